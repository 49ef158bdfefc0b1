package fsck

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	"kmsfs/fs/volume"
)

// opened is a regular file under repair.
type opened struct {
	*envelope.File
	storage *volume.Storage
	header  *envelope.Header
	st      unix.Stat_t
}

// withFile opens a file for changes that its modification time is not to show, and makes them durable. What an unclean end may have left behind is
// accepted if accepted is not nil, and noted there.
func (m *mending) withFile(dir int, entry string, accepted *acceptances, do func(f opened) error) error {
	fd, err := unix.Openat(dir, entry, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EACCES) {
		fd, err = volume.OpenOwned(dir, entry, unix.O_CLOEXEC)
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	f := opened{storage: &volume.Storage{FD: fd}}
	if err := unix.Fstat(fd, &f.st); err != nil {
		return err
	}
	if f.st.Mode&unix.S_IFMT != unix.S_IFREG {
		return unix.EINVAL
	}
	if f.header, err = m.Sealed.ReadHeader(f.storage, false); err != nil {
		return err
	}
	if !m.Sealed.Allows(f.header.KeyARN) {
		return fmt.Errorf("the header names the key %s, which is none of the volume's: %w", f.header.KeyARN, envelope.ErrAuthentication)
	}
	key, err := m.Keys.Decrypt(m.ctx, keys.Self("fsck"), f.header.KeyARN, f.header.WrappedKey, f.header.Context(m.Sealed.ID()))
	if err != nil {
		return fmt.Errorf("its data key: %w", err)
	}
	defer clear(key)
	options := envelope.FileOptions{}
	if accepted != nil {
		options.Tolerant, options.Repaired = true, accepted.add
	}
	if f.File, err = m.Sealed.OpenFile(f.storage, f.header, key, options); err != nil {
		return err
	}
	err = errors.Join(do(f), f.Close())
	return errors.Join(err, volume.SetModified(fd, f.st.Mtim), unix.Fsync(fd))
}

// editHeader changes the header of the suspect.
func (m *mending) editHeader(class Class, what string, edit func(f opened, h *envelope.Header) error) outcome {
	if err := m.note(class, what); err != nil {
		return outcome{err: err}
	}
	err := m.withFile(m.dir, m.entry.Name, nil, func(f opened) error {
		return f.ChangeHeader(func(h *envelope.Header) error { return edit(f, h) })
	})
	return outcome{what, err}
}

// dropLocations has the header or record list only those places where the file or directory lies by right.
func (m *mending) dropLocations() outcome {
	const what = "dropped"
	if m.entry.Kind == unix.DT_DIR {
		return m.dropPlace(what)
	}
	return m.editHeader(FaultStaleLocation, what, func(f opened, h *envelope.Header) error {
		right := m.survey.links[f.st.Ino]
		if len(right) == 0 {
			return errors.New("it lies nowhere by right")
		}
		h.Locations, h.LinkDigests = nil, nil
		for _, l := range right {
			m.Sealed.AddLocation(h, l)
		}
		return nil
	})
}

// dropPlace has a directory's record list only the place where it lies.
func (m *mending) dropPlace(what string) outcome {
	return m.remove(what, func() error {
		return m.withRecord(func(fd int, record *envelope.Directory) error {
			name, err := m.NameOf(m.dir, m.id, m.entry)
			if err != nil {
				return err
			}
			next := *record
			next.Locations = []envelope.Location{{Directory: m.id, Name: name}}
			return m.ReplaceDirectory(fd, &next)
		})
	})
}

func (m *mending) dropOwner() outcome {
	return m.editHeader(FaultStaleOwner, "dropped", func(_ opened, h *envelope.Header) error {
		h.NextOwner = nil
		return nil
	})
}

func (m *mending) dropOverflow() outcome {
	return m.remove("removed", func() error {
		return m.withFile(m.dir, m.entry.Name, nil, func(f opened) error { return f.storage.SetOverflow(nil) })
	})
}

// giveBack gives a file to the owner that its header names.
func (m *mending) giveBack() outcome {
	var owner uint32
	err := m.withFile(m.dir, m.entry.Name, nil, func(f opened) error {
		owner = f.header.Owner
		if err := m.note(FaultOwner, "given back to "+volume.OwnerName(owner)); err != nil {
			return err
		}
		if err := unix.Fchown(f.storage.FD, int(owner), -1); err != nil {
			return err
		}
		return unix.Fchmod(f.storage.FD, f.st.Mode&0o7777) // a change of owner clears bits
	})
	return outcome{"given back to " + volume.OwnerName(owner), err}
}

// tolerate accepts what an unclean end may have left, and says whether that mends the file.
func (m *mending) tolerate(f finding) (outcome, bool) {
	accepted := &acceptances{}
	err := m.note(f.class, "accepted, as far as an unclean end may have left it so")
	if err != nil {
		return outcome{err: err}, true
	}
	if m.lacksHeader() {
		return m.giveHeader(), true
	}
	err = m.withFile(m.dir, m.entry.Name, accepted, func(f opened) error {
		var bad []envelope.Span
		err := f.Verify(envelope.Everything(), func([]byte, int64) error { return m.ctx.Err() }, func(s envelope.Span) error {
			bad = append(bad, s)
			return m.ctx.Err()
		})
		if err == nil && len(bad) > 0 {
			err = &envelope.CorruptError{Block: 0, Reason: "blocks don't open", Err: envelope.ErrAuthentication}
		}
		return err
	})
	if err == nil && f.class == FaultUncleanEnd && len(accepted.what) == 0 {
		return m.acceptPlace(), true
	}
	if err != nil {
		return outcome{err: err}, !isFault(err)
	}
	return outcome{"accepted, as after an unclean end: " + strings.Join(accepted.what, ", "), nil}, true
}

// lacksHeader says whether an unclean end has left the file without a header.
func (m *mending) lacksHeader() bool {
	var st unix.Stat_t
	err := unix.Fstatat(m.dir, m.entry.Name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && st.Size == 0 && m.tolerance.Covers(st.Ctim)
}

// giveHeader makes such a file an empty one.
func (m *mending) giveHeader() outcome {
	name, err := m.NameOf(m.dir, m.id, m.entry)
	if err != nil {
		return outcome{err: err}
	}
	fd, err := unix.Openat(m.dir, m.entry.Name, unix.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return outcome{err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return outcome{err: err}
	}
	h := &envelope.Header{FileID: envelope.NewFileID(), Owner: st.Uid, Path: volume.ShortenPath(m.path), Locations: []envelope.Location{{Directory: m.id, Name: name}}}
	err = m.fill(fd, h, m.Sealed.Config().KeyARN, func(*envelope.File) error { return nil })
	return outcome{"it has a header now, as an empty file", errors.Join(err, volume.SetModified(fd, st.Mtim), unix.Fsync(fd))}
}

// acceptPlace has the header list the place where a file was found after an unclean end.
func (m *mending) acceptPlace() outcome {
	return m.editHeader(FaultUncleanEnd, "its place is accepted, as after an unclean end", func(_ opened, h *envelope.Header) error {
		name, err := m.NameOf(m.dir, m.id, m.entry)
		if err == nil {
			m.Sealed.AddLocation(h, envelope.Location{Directory: m.id, Name: name})
		}
		return err
	})
}

// moveFile moves a file, so that it opens in its new place. One that can't be opened, or is a copy of another, is moved as it is.
func (m *mending) moveFile(dir int, entry string, to *lostDirectory, name lostName) (string, error) {
	err := m.withFile(dir, entry, nil, func(f opened) error {
		if f.st.Nlink == 1 && !m.survey.claimFile(f.header.FileID) {
			return errCopy
		}
		return f.move(m.Sealed, dir, entry, to, name)
	})
	switch {
	case errors.Is(err, errCopy):
		return "it is a copy of a file that there is: moved as it is to " + name.path, to.take(dir, entry, name)
	case isFault(err), errors.Is(err, keys.ErrUnopened):
		return "moved as it is to " + name.path, to.take(dir, entry, name)
	}
	return "moved to " + name.path, err
}

var errCopy = errors.New("a copy")

// move moves the file: its header lists the new place before it is there, and afterwards no other, but for those of other links.
func (f opened) move(v *envelope.Volume, dir int, entry string, to *lostDirectory, name lostName) error {
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

// salvage copies what opens of a file to lost+found, with zeros in place of the rest, and moves the file there too.
func (m *mending) salvage(lost *lostDirectory, name lostName) (string, error) {
	var missing int64
	err := m.withFile(m.dir, m.entry.Name, nil, func(f opened) error {
		return m.create(lost, name, f.header.KeyARN, f.st, func(to *envelope.File) error {
			err := f.Verify(envelope.Everything(), func(p []byte, off int64) error {
				_, err := to.WriteAt(p, off)
				return errors.Join(err, m.ctx.Err())
			}, func(s envelope.Span) error {
				missing += s.Length
				return m.ctx.Err()
			})
			return errors.Join(err, to.Truncate(f.Size()))
		})
	})
	if isFault(err) {
		return "moved as it is to " + name.path, lost.take(m.dir, m.entry.Name, name)
	}
	if err != nil {
		return "", err
	}
	rest, err := lost.freeName(name.location.Name + ".damaged")
	if err != nil {
		return "", err
	}
	moved, err := m.moveFile(m.dir, m.entry.Name, lost, rest)
	return fmt.Sprintf("copied to %s, with %d zeros for what doesn't open; the file itself: %s", name.path, missing, moved), err
}

// create makes a file in lost+found that is like the one that st is of, but for its content. After an error there is none.
func (m *mending) create(lost *lostDirectory, name lostName, keyARN string, st unix.Stat_t, fill func(f *envelope.File) error) (err error) {
	if err := lost.prepareName(name); err != nil {
		return err
	}
	fd, err := unix.Openat(lost.fd, name.Entry, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	defer func() {
		if err != nil {
			err = errors.Join(err, unix.Unlinkat(lost.fd, name.Entry, 0))
		}
	}()
	owner := m.UID
	if m.UID == 0 {
		owner = st.Uid
		if err := unix.Fchown(fd, int(st.Uid), int(st.Gid)); err != nil {
			return err
		}
	}
	h := &envelope.Header{FileID: envelope.NewFileID(), Owner: owner, Path: name.path, Locations: []envelope.Location{name.location}}
	if err := m.fill(fd, h, keyARN, fill); err != nil {
		return err
	}
	return errors.Join(unix.Fchmod(fd, st.Mode&0o777), volume.SetModified(fd, st.Mtim), unix.Fsync(fd), volume.SyncDir(lost.fd))
}

// fill gives an empty file a header, under a data key of its own, and a content.
func (m *mending) fill(fd int, h *envelope.Header, keyARN string, content func(f *envelope.File) error) error {
	key, err := m.Keys.GenerateDataKey(m.ctx, keys.Self("fsck"), keyARN, h.Context(m.Sealed.ID()))
	if err != nil {
		return err
	}
	defer clear(key.Plaintext)
	h.KeyARN, h.WrappedKey = key.KeyARN, key.Wrapped
	f, err := m.Sealed.CreateFile(&volume.Storage{FD: fd}, h, key.Plaintext, envelope.FileOptions{})
	if err != nil {
		return err
	}
	return errors.Join(content(f), f.Close())
}

// lostAttribute is what a file in lost+found says of an attribute that didn't open.
type lostAttribute struct {
	Path      string `json:"path"`
	Attribute string `json:"attribute"` // its name in the volume
	Value     []byte `json:"value"`
}

// moveAttributes moves all attributes of the entry that don't open into a file in lost+found.
func (m *mending) moveAttributes() outcome {
	fd, err := unix.Openat(m.dir, m.entry.Name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return outcome{err: err}
	}
	defer unix.Close(fd)
	object, err := m.object(fd)
	if err != nil {
		return outcome{err: err}
	}
	bad := m.badAttributes(fd, object)
	if len(bad) == 0 {
		return outcome{what: "moved with the one before"}
	}
	lost, err := m.openLost()
	if err != nil {
		return outcome{err: err}
	}
	name, err := lost.freeName(m.base() + ".attributes")
	if err != nil {
		return outcome{err: err}
	}
	what := "moved to the file " + name.path
	if err := m.note(FaultAttribute, what); err != nil {
		return outcome{err: err}
	}
	return outcome{what, m.moveAttributesTo(lost, name, fd, bad)}
}

func (m *mending) moveAttributesTo(lost *lostDirectory, name lostName, fd int, bad []badAttribute) error {
	var text bytes.Buffer
	for _, a := range bad {
		value, err := readAttribute(fd, a.name)
		if err != nil {
			return err
		}
		if err := json.NewEncoder(&text).Encode(lostAttribute{m.path, a.name, value}); err != nil {
			return err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	err := m.create(lost, name, m.Sealed.Config().KeyARN, st, func(f *envelope.File) error {
		_, err := f.WriteAt(text.Bytes(), 0)
		return err
	})
	for _, a := range bad {
		if err == nil {
			err = unix.Fremovexattr(fd, a.name)
		}
	}
	return err
}

// object returns the ID that the attributes of an open file or directory are sealed with.
func (m *mending) object(fd int) (id [envelope.IDSize]byte, err error) {
	if m.entry.Kind == unix.DT_DIR {
		record, err := m.ReadDirectory(fd)
		if err != nil {
			return id, err
		}
		return record.ID, nil
	}
	header, err := m.Sealed.ReadHeader(&volume.Storage{FD: fd}, false)
	if err != nil {
		return id, err
	}
	return header.FileID, nil
}
