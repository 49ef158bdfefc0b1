package fsck

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	"kmsfs/fs/volume"
)

// fileCheck is the check of one regular file, at one of its names.
type fileCheck struct {
	c        *check
	in       *checkedDirectory
	entry    string
	location envelope.Location // with unknownName if the name doesn't open
	// strict has nothing accepted that an unclean end may have left behind.
	strict bool

	// read says that the content has been read, and suspects which parts of it did not open: only
	// those are looked at again.
	read     bool
	suspects []envelope.Span
	// size is the ciphertext's, in bytes, and counted what progress knows of already.
	size, counted int64
}

// look returns what is wrong with the file. What changed its type or name meanwhile has nothing
// wrong.
func (f *fileCheck) look() []finding {
	file, err := f.in.dir.OpenFile(f.entry, unix.O_RDONLY, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ELOOP), errors.Is(err, unix.ENXIO):
		return nil
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		f.c.denied.Add(1)
		return nil
	case err != nil:
		return unreadable(err)
	}
	defer file.Close()
	st, err := file.Stat()
	if err != nil {
		return unreadable(err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil
	}
	f.size = st.Size
	return f.lookAt(volume.NewStorage(file), st)
}

func unreadable(err error) []finding {
	return []finding{{class: FaultUnreadable, detail: err.Error()}}
}

func (f *fileCheck) lookAt(s *volume.Storage, st unix.Stat_t) []finding {
	c := f.c
	tolerant := !f.strict && c.tolerance.Covers(st.Ctim)
	header, err := c.Sealed.ReadHeader(s, tolerant)
	if err != nil {
		return headerFinding(err)
	}
	file, accepted, found := f.open(s, header, tolerant)
	if file == nil {
		return found
	}
	defer func() { _ = file.Close() }() // it is open read-only
	found = append(found, f.place(header, st)...)
	if !header.RefersToOverflow() && c.hasOverflow(s) {
		found = append(found, finding{class: FaultStaleOverflow, detail: "the header refers to none"})
	}
	found = append(found, c.attributes(s, header.FileID)...)
	found = append(found, f.content(file, st)...)
	return append(found, accepted.findings()...)
}

// headerFinding tells the faults of headers apart.
func headerFinding(err error) []finding {
	corrupt, ok := errors.AsType[*envelope.CorruptError](err)
	switch {
	case errors.Is(err, envelope.ErrEmpty):
		return []finding{{class: FaultUncleanEnd, detail: "the file has no header yet"}}
	case ok && corrupt.Part.Kind == envelope.PartOverflow:
		return []finding{{class: FaultOverflow, detail: err.Error()}}
	case ok && corrupt.Part.Kind == envelope.PartSize:
		return []finding{{class: FaultSize, detail: err.Error()}}
	case isFault(err):
		return []finding{{class: FaultHeader, detail: err.Error()}}
	}
	return unreadable(err)
}

// open opens the file, or says why it can't be. It returns neither if the key service refuses its
// key.
func (f *fileCheck) open(s *volume.Storage, header *envelope.Header, tolerant bool) (*envelope.File, *acceptances, []finding) {
	c := f.c
	if !c.Sealed.Allows(header.KeyARN) {
		return nil, nil, []finding{{class: FaultForeignKey, detail: "the header names the key " + header.KeyARN}}
	}
	key, err := c.Keys.Decrypt(c.ctx, keys.Self("fsck"), header.KeyARN, header.WrappedKey, header.Context(c.Sealed.ID()))
	switch {
	case errors.Is(err, keys.ErrDenied):
		c.refused.Add(1)
		return nil, nil, nil
	case errors.Is(err, keys.ErrUnopened):
		return nil, nil, []finding{{class: FaultDataKey, detail: err.Error()}}
	case err != nil: // that says nothing of the file
		c.stop(fmt.Errorf("checking %s: %w", f.in.pathOf(f.location.Name), err))
		return nil, nil, nil
	}
	defer clear(key)
	accepted := &acceptances{}
	file, err := c.Sealed.OpenFile(s, header, key, envelope.FileOptions{Tolerant: tolerant, ReadOnly: true, Repaired: accepted.add})
	if err != nil {
		return nil, nil, headerFinding(err)
	}
	return file, accepted, nil
}

// acceptances are what an unclean end left behind in a file.
type acceptances struct {
	mu   sync.Mutex // guards what follows
	what []string
}

func (a *acceptances) add(part envelope.Part, what string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if part.Kind == envelope.PartBlock {
		what = part.String() + ": " + what
	}
	a.what = append(a.what, what)
}

func (a *acceptances) findings() []finding {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.what) == 0 {
		return nil
	}
	return []finding{{class: FaultUncleanEnd, detail: strings.Join(a.what, ", ")}}
}

// place says whether the file is where, and whose, its header says.
func (f *fileCheck) place(h *envelope.Header, st unix.Stat_t) (found []finding) {
	c := f.c
	if f.location.Name != unknownName {
		lies := c.Sealed.LiesAt(h, f.location)
		switch {
		case !lies && c.tolerance.Rebooted && c.tolerance.Covers(st.Ctim):
			found = append(found, finding{class: FaultUncleanEnd, detail: "it was renamed, which its header doesn't know yet"})
		case !lies && st.Nlink > 1:
			found = append(found, finding{class: FaultPlantedLink, detail: fmt.Sprintf("the file has %d links, and its header lists %d, but not this one", st.Nlink, h.Listed())})
		case !lies:
			found = append(found, finding{class: FaultMisplaced, detail: "the header says that it lies elsewhere: " + describePlaces(h.Locations, f.location)})
		case h.Listed() > int(st.Nlink):
			found = append(found, finding{class: FaultStaleLocation, detail: fmt.Sprintf("the header lists %d places, and the file has %d links", h.Listed(), st.Nlink)})
		}
	}
	switch {
	case !h.OwnedBy(st.Uid):
		found = append(found, finding{class: FaultOwner, detail: fmt.Sprintf("it belongs to %s, and by its header to %s", volume.OwnerName(st.Uid), volume.OwnerName(h.Owner))})
	case h.NextOwner != nil && h.Owner == st.Uid:
		found = append(found, finding{class: FaultStaleOwner, detail: "the header has it given to " + volume.OwnerName(*h.NextOwner)})
	}
	return found
}

// content opens all blocks, or only the last, which nothing else shows to be the last.
func (f *fileCheck) content(file *envelope.File, st unix.Stat_t) []finding {
	parts := []envelope.Span{{Offset: max(file.Size()-1, 0), Length: 1}}
	var linked *linkedInode
	switch {
	case f.read:
		parts = f.suspects
	case f.c.options.ReadData && !f.strict:
		parts = []envelope.Span{envelope.Everything()}
		if st.Nlink > 1 {
			linked = f.c.inodes.visit(st)
			parts = linked.parts()
			defer linked.leave()
		}
	case f.c.options.ReadData:
		parts = []envelope.Span{envelope.Everything()}
	}
	var bad []envelope.Span
	for _, part := range parts {
		err := file.Verify(part, f.count, func(s envelope.Span) error {
			bad = joinSpan(bad, s)
			return f.c.ctx.Err()
		})
		if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, io.EOF) {
			return unreadable(err)
		}
	}
	f.read, f.suspects = true, bad
	linked.found(bad)
	if len(bad) == 0 {
		return nil
	}
	return []finding{{class: FaultBlock, detail: describeBad(bad, file.Size()), bad: bad}}
}

func (f *fileCheck) count(p []byte, _ int64) error {
	if pr := f.c.options.Progress; pr != nil && !f.read {
		pr.Bytes.Add(int64(len(p)))
		f.counted += int64(len(p))
	}
	return f.c.ctx.Err()
}

// joinSpan adds a span that begins where the last one ends, or later.
func joinSpan(all []envelope.Span, s envelope.Span) []envelope.Span {
	if n := len(all); n > 0 && all[n-1].End() == s.Offset {
		all[n-1].Length += s.Length
		return all
	}
	return append(all, s)
}

func describeBad(bad []envelope.Span, size int64) string {
	var lost int64
	for _, s := range bad {
		lost += s.Length
	}
	text := fmt.Sprintf("%d of %d bytes don't open, beginning at %d", lost, size, bad[0].Offset)
	if bad[len(bad)-1].End() == size {
		text += "; the last block is among them: the file may have been cut or extended"
	}
	return text
}
