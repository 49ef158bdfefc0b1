package fsck_test

import (
	"bytes"
	"context"
	"errors"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/fsck"
	"kmsfs/fs/keys"
	"kmsfs/fs/keys/keystest"
	"kmsfs/fs/volume"
)

// The KMS keys of the tests. The volume is made under the first, and knows nothing of the second.
const (
	kmsKey   = "arn:aws-kmsfs:kms:x:000000000000:key/first"
	otherKey = "arn:aws-kmsfs:kms:x:000000000000:key/second"
)

// fixture is a volume for tests. It is filled and damaged as it lies on disk, without a mount.
type fixture struct {
	*testing.T
	dir  string
	keys *keystest.Service
	v    *volume.Volume
}

func newFixture(t *testing.T, plaintextNames bool) *fixture {
	t.Helper()
	f := &fixture{T: t, dir: filepath.Join(t.TempDir(), "volume"), keys: keystest.New(kmsKey, otherKey)}
	f.must(volume.Create(volume.CreateOptions{Volume: f.dir, Keys: f.keys, Key: kmsKey, PlaintextNames: plaintextNames}))
	var err error
	f.v, err = volume.Open(f.dir, f.keys, "test")
	f.must(err)
	t.Cleanup(f.v.Close)
	return f
}

func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// spot is a name in an open directory.
type spot struct {
	dir  int
	id   envelope.DirectoryID
	name string
	envelope.BackingName
}

func (s spot) location() envelope.Location { return envelope.Location{Directory: s.id, Name: s.name} }

// at finds the directory of a path that users see, and the name in it.
func (f *fixture) at(p string) spot {
	f.Helper()
	dir, err := unix.Open(f.dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	f.must(err)
	names := strings.Split(strings.Trim(p, "/"), "/")
	for i, name := range names {
		record, err := f.v.ReadDirectory(dir)
		f.must(err)
		backing, err := f.v.Sealed.EncryptName(record.ID, name)
		f.must(err)
		if i == len(names)-1 {
			f.Cleanup(func() { unix.Close(dir) })
			return spot{dir, record.ID, name, backing}
		}
		inner, err := unix.Openat(dir, backing.Entry, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		f.must(err)
		unix.Close(dir)
		dir = inner
	}
	panic("unreachable")
}

// backing is where the entry at a path lies in the volume's directory.
func (f *fixture) backing(p string) string {
	f.Helper()
	if p == "/" {
		return f.dir
	}
	return filepath.Join(f.backing(path.Dir(p)), f.at(p).Entry)
}

// prepare writes the file of a long name.
func (f *fixture) prepare(s spot) {
	f.Helper()
	if s.Long != "" {
		f.must(volume.WriteControl(s.dir, envelope.LongFile(s.Entry), []byte(s.Long), false))
	}
}

func (f *fixture) mkdir(p string) {
	f.Helper()
	s := f.at(p)
	f.prepare(s)
	f.must(unix.Mkdirat(s.dir, s.Entry, 0o700))
	f.writeRecord(p, func(*envelope.Directory) {})
}

// writeRecord writes a record for the directory at p, as it should be but for an edit.
func (f *fixture) writeRecord(p string, edit func(d *envelope.Directory)) {
	f.Helper()
	s := f.at(p)
	fd, err := unix.Openat(s.dir, s.Entry, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	f.must(err)
	defer unix.Close(fd)
	record, err := f.v.ReadDirectory(fd)
	if errors.Is(err, envelope.ErrFormat) {
		record, err = &envelope.Directory{ID: envelope.NewDirectoryID()}, nil
	}
	f.must(err)
	next := *record
	next.Owners, next.Locations = []uint32{f.v.UID}, []envelope.Location{s.location()}
	edit(&next)
	f.must(f.v.WriteDirectory(fd, &next, true))
}

// write makes a file, with a header as it should be but for an edit.
func (f *fixture) write(p string, content []byte, edit func(h *envelope.Header)) {
	f.Helper()
	s := f.at(p)
	f.prepare(s)
	h := &envelope.Header{FileID: envelope.NewFileID(), Owner: f.v.UID, Path: p, Locations: []envelope.Location{s.location()}, KeyARN: kmsKey}
	if edit != nil {
		edit(h)
	}
	key, err := f.keys.GenerateDataKey(context.Background(), keys.Self("test"), h.KeyARN, h.Context(f.v.Sealed.ID()))
	f.must(err)
	h.WrappedKey = key.Wrapped
	fd, err := unix.Openat(s.dir, s.Entry, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o600)
	f.must(err)
	defer unix.Close(fd)
	file, err := f.v.Sealed.CreateFile(&volume.Storage{FD: fd}, h, key.Plaintext, envelope.FileOptions{})
	f.must(err)
	_, err = file.WriteAt(content, 0)
	f.must(err)
	f.must(file.Close())
}

// read returns a file's content, if its header is its place's and its owner's.
func (f *fixture) read(p string) ([]byte, error) {
	f.Helper()
	s := f.at(p)
	fd, err := unix.Openat(s.dir, s.Entry, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	st := &volume.Storage{FD: fd}
	h, err := f.v.Sealed.ReadHeader(st, false)
	if err != nil {
		return nil, err
	}
	if !f.v.Sealed.LiesAt(h, s.location()) || !h.OwnedBy(f.v.UID) {
		return nil, volume.ErrMismatch
	}
	key, err := f.keys.Decrypt(context.Background(), keys.Self("test"), h.KeyARN, h.WrappedKey, h.Context(f.v.Sealed.ID()))
	if err != nil {
		return nil, err
	}
	file, err := f.v.Sealed.OpenFile(st, h, key, envelope.FileOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	content := make([]byte, file.Size())
	if len(content) > 0 {
		_, err = file.ReadAt(content, 0)
	}
	return content, errors.Join(err, file.Close())
}

func (f *fixture) symlink(p, target string) {
	f.Helper()
	s := f.at(p)
	f.prepare(s)
	sealed, err := f.v.Sealed.SealTarget(target)
	f.must(err)
	f.must(unix.Symlinkat(sealed, s.dir, s.Entry))
}

// move moves an entry, as somebody does who has the volume's directory but no key.
func (f *fixture) move(from, to string) {
	f.Helper()
	a, b := f.at(from), f.at(to)
	f.must(unix.Renameat(a.dir, a.Entry, b.dir, b.Entry))
}

// edit changes the bytes of a file of the volume's directory.
func (f *fixture) edit(backing string, edit func(b []byte) []byte) {
	f.Helper()
	fd, err := unix.Open(backing, unix.O_RDWR|unix.O_CLOEXEC, 0)
	f.must(err)
	defer unix.Close(fd)
	st := &volume.Storage{FD: fd}
	size, err := st.Size()
	f.must(err)
	content := make([]byte, size)
	if size > 0 {
		_, err = st.ReadAt(content, 0)
		f.must(err)
	}
	content = edit(content)
	f.must(st.Truncate(0))
	_, err = st.WriteAt(content, 0)
	f.must(err)
}

func (f *fixture) flip(backing string, at int) {
	f.Helper()
	f.edit(backing, func(b []byte) []byte {
		b = bytes.Clone(b)
		b[at] ^= 1
		return b
	})
}

// fsck checks the volume, and returns its faults as "class path".
func (f *fixture) fsck(repair bool) (faults []string, summary fsck.Summary) {
	f.Helper()
	var not []string
	summary, err := fsck.Check(context.Background(), fsck.Options{
		Volume: f.dir, Keys: f.keys, ReadData: true, Repair: repair, Report: func(fault fsck.Fault) {
			faults = append(faults, string(fault.Class)+" "+fault.Path)
			if fault.Repaired != nil && !*fault.Repaired {
				not = append(not, fault.Path+": "+fault.Remedy)
			}
		},
	})
	f.must(err)
	if len(not) > 0 {
		f.Errorf("not repaired: %q", not)
	}
	slices.Sort(faults)
	return faults, summary
}
