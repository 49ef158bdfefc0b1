package fsck

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	"kmsfs/fs/volume"
	"kmsfs/fs/volume/backing"
)

// opened is a regular file under repair.
type opened struct {
	*envelope.File
	storage *volume.Storage
	header  *envelope.Header
	st      unix.Stat_t
}

// fileRepair is the repair of a regular file.
type fileRepair struct{ *entryRepair }

func (p *fileRepair) inPlace(f finding) (o outcome, ok bool) {
	switch f.class {
	case FaultOwner:
		return p.giveBack(), true
	case FaultStaleLocation:
		return p.dropLocations(), true
	case FaultStaleOwner:
		return p.dropOwner(), true
	case FaultStaleOverflow:
		return p.dropOverflow(), true
	case FaultUncleanEnd, FaultSize, FaultBlock:
		return p.tolerate(f)
	}
	return outcome{}, false
}

// withFile opens a file for changes that its modification time is not to show, and makes them
// durable. What an unclean end may have left behind is accepted if accepted is not nil, and noted
// there.
func (r *repairer) withFile(dir backing.Dir, entry string, accepted *acceptances, do func(f opened) error) error {
	file, err := dir.OpenFile(entry, unix.O_RDWR, 0)
	if errors.Is(err, unix.EACCES) {
		file, err = volume.OpenOwned(dir, entry)
	}
	if err != nil {
		return err
	}
	defer file.Close()
	f := opened{storage: volume.NewStorage(file)}
	if f.st, err = file.Stat(); err != nil {
		return err
	}
	if f.st.Mode&unix.S_IFMT != unix.S_IFREG {
		return unix.EINVAL
	}
	if f.header, err = r.Sealed.ReadHeader(f.storage, false); err != nil {
		return err
	}
	if !r.Sealed.Allows(f.header.KeyARN) {
		return fmt.Errorf("the header names the key %s, which is none of the volume's: %w", f.header.KeyARN, envelope.ErrAuthentication)
	}
	key, err := r.Keys.Decrypt(r.ctx, keys.Self("fsck"), f.header.KeyARN, f.header.WrappedKey, f.header.Context(r.Sealed.ID()))
	if err != nil {
		return fmt.Errorf("its data key: %w", err)
	}
	defer clear(key)
	options := envelope.FileOptions{}
	if accepted != nil {
		options.Tolerant, options.Repaired = true, accepted.add
	}
	if f.File, err = r.Sealed.OpenFile(f.storage, f.header, key, options); err != nil {
		return err
	}
	err = errors.Join(do(f), f.Close())
	return errors.Join(err, volume.SetModified(file, f.st.Mtim), file.Sync())
}

// editHeader changes the header of the suspect.
func (p *fileRepair) editHeader(class Class, what string, edit func(f opened, h *envelope.Header) error) outcome {
	if err := p.note(class, what); err != nil {
		return outcome{err: err}
	}
	err := p.withFile(p.dir, p.entry.Name, nil, func(f opened) error {
		return f.ChangeHeader(func(h *envelope.Header) error { return edit(f, h) })
	})
	return outcome{what, err}
}

// dropLocations has the header list only those places where the file lies by right.
func (p *fileRepair) dropLocations() outcome {
	return p.editHeader(FaultStaleLocation, "dropped", func(f opened, h *envelope.Header) error {
		right := p.survey.links[f.st.Ino]
		if len(right) == 0 {
			return errors.New("it lies nowhere by right")
		}
		h.Locations, h.LinkDigests = nil, nil
		for _, l := range right {
			p.Sealed.AddLocation(h, l)
		}
		return nil
	})
}

func (p *fileRepair) dropOwner() outcome {
	return p.editHeader(FaultStaleOwner, "dropped", func(_ opened, h *envelope.Header) error {
		h.NextOwner = nil
		return nil
	})
}

func (p *fileRepair) dropOverflow() outcome {
	return p.remove("removed", func() error {
		return p.withFile(p.dir, p.entry.Name, nil, func(f opened) error { return f.storage.SetOverflow(nil) })
	})
}

// giveBack gives a file to the owner that its header names.
func (p *fileRepair) giveBack() outcome {
	var owner uint32
	err := p.withFile(p.dir, p.entry.Name, nil, func(f opened) error {
		owner = f.header.Owner
		if err := p.note(FaultOwner, "given back to "+volume.OwnerName(owner)); err != nil {
			return err
		}
		if err := f.storage.Chown(int(owner), -1); err != nil {
			return err
		}
		return f.storage.Chmod(f.st.Mode & 0o7777) // a change of owner clears bits
	})
	return outcome{"given back to " + volume.OwnerName(owner), err}
}

// tolerate accepts what an unclean end may have left, and says whether that repairs the file. It
// accepts nothing of a file that no unclean end can have left so.
func (p *fileRepair) tolerate(f finding) (outcome, bool) {
	if !p.tolerated {
		return outcome{}, false
	}
	accepted := &acceptances{}
	err := p.note(f.class, "accepted, as far as an unclean end may have left it so")
	if err != nil {
		return outcome{err: err}, true
	}
	if p.isEmpty() {
		return p.giveHeader(), true
	}
	err = p.withFile(p.dir, p.entry.Name, accepted, func(f opened) error {
		var bad []envelope.Span
		err := f.Verify(envelope.Everything(), func([]byte, int64) error { return p.ctx.Err() }, func(s envelope.Span) error {
			bad = append(bad, s)
			return p.ctx.Err()
		})
		if err == nil && len(bad) > 0 {
			err = fmt.Errorf("%d bytes at offset %d: %w", bad[0].Length, bad[0].Offset, envelope.ErrAuthentication)
		}
		return err
	})
	if err == nil && f.class == FaultUncleanEnd && len(accepted.what) == 0 {
		return p.acceptPlace(), true
	}
	if err != nil {
		return outcome{err: err}, !isFault(err)
	}
	return outcome{"accepted, as after an unclean end: " + strings.Join(accepted.what, ", "), nil}, true
}

// isEmpty says whether the file has not even a header.
func (p *fileRepair) isEmpty() bool {
	st, err := p.dir.StatAt(p.entry.Name)
	return err == nil && st.Size == 0
}

// giveHeader makes such a file an empty one.
func (p *fileRepair) giveHeader() outcome {
	name, err := p.NameOf(p.dir, p.id, p.entry)
	if err != nil {
		return outcome{err: err}
	}
	file, err := p.dir.OpenFile(p.entry.Name, unix.O_RDWR, 0)
	if err != nil {
		return outcome{err: err}
	}
	defer file.Close()
	st, err := file.Stat()
	if err != nil {
		return outcome{err: err}
	}
	h := &envelope.Header{FileID: envelope.NewFileID(), Owner: st.Uid, Path: volume.ShortenPath(p.path), Locations: []envelope.Location{{Directory: p.id, Name: name}}}
	err = p.seal(file, h, p.Sealed.Config().KeyARN, func(*envelope.File) error { return nil })
	return outcome{"it has a header now, as an empty file", errors.Join(err, volume.SetModified(file, st.Mtim), file.Sync())}
}

// acceptPlace has the header list the place where a file was found after an unclean end.
func (p *fileRepair) acceptPlace() outcome {
	return p.editHeader(FaultUncleanEnd, "its place is accepted, as after an unclean end", func(_ opened, h *envelope.Header) error {
		name, err := p.NameOf(p.dir, p.id, p.entry)
		if err == nil {
			p.Sealed.AddLocation(h, envelope.Location{Directory: p.id, Name: name})
		}
		return err
	})
}

// move moves the file: its header lists the new place before it is there, and afterwards no other,
// but for those of other links.
func (f opened) move(v *envelope.Volume, dir backing.Dir, entry string, to *lostDirectory, name lostName) error {
	add := func(h *envelope.Header) error {
		v.AddLocation(h, name.location)
		return nil
	}
	if err := f.ChangeHeader(add); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := to.take(dir, entry, name); err != nil {
		return err
	}
	if f.st.Nlink > 1 {
		return nil
	}
	return f.ChangeHeader(func(h *envelope.Header) error {
		h.Locations, h.LinkDigests = nil, nil
		return add(h)
	})
}

// salvage copies what opens of a file to lost+found, with zeros in place of the rest, and moves the
// file there too.
func (p *fileRepair) salvage(lost *lostDirectory, name lostName) (string, error) {
	var missing int64
	err := p.withFile(p.dir, p.entry.Name, nil, func(f opened) error {
		return p.createLost(lost, name, f.header.KeyARN, f.st, func(to *envelope.File) error {
			err := f.Verify(envelope.Everything(), func(plain []byte, off int64) error {
				_, err := to.WriteAt(plain, off)
				return errors.Join(err, p.ctx.Err())
			}, func(s envelope.Span) error {
				missing += s.Length
				return p.ctx.Err()
			})
			return errors.Join(err, to.Truncate(f.Size()))
		})
	})
	if isFault(err) {
		return "moved as it is to " + name.path, lost.take(p.dir, p.entry.Name, name)
	}
	if err != nil {
		return "", err
	}
	rest, err := lost.freeName(name.location.Name + ".damaged")
	if err != nil {
		return "", err
	}
	moved, err := p.moveFile(p.dir, p.entry.Name, lost, rest)
	return fmt.Sprintf("copied to %s, with %d zeros for what doesn't open; the file itself: %s", name.path, missing, moved), err
}
