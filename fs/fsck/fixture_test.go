package fsck_test

import (
	"bytes"
	"context"
	"errors"
	"path"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/fsck"
	"kmsfs/fs/keys"
	"kmsfs/fs/keys/keystest"
	"kmsfs/fs/volume"
	"kmsfs/fs/volume/backing"
	"kmsfs/fs/volume/backing/memory"
)

// The KMS keys of the tests. The volume is made under the first, and knows nothing of the second.
const (
	kmsKey   = "arn:aws-kmsfs:kms:x:000000000000:key/first"
	otherKey = "arn:aws-kmsfs:kms:x:000000000000:key/second"
)

// fixture is a volume for tests, in memory. It is filled and damaged as it lies on disk, without a mount.
type fixture struct {
	*testing.T
	disk *memory.FS
	keys *keystest.Service
	v    *volume.Volume
}

func newFixture(t *testing.T, plaintextNames bool) *fixture {
	t.Helper()
	f := &fixture{T: t, disk: memory.New(memory.Options{}), keys: keystest.New(kmsKey, otherKey)}
	o := volume.CreateOptions{Volume: "volume", Keys: f.keys, Key: kmsKey, PlaintextNames: plaintextNames}
	f.must(volume.CreateIn(f.disk.Root(), o))
	f.open()
	return f
}

// open opens the volume that is on the disk.
func (f *fixture) open() {
	f.Helper()
	var err error
	f.v, err = volume.OpenIn(f.disk.Root(), "volume", f.keys, "test")
	f.must(err)
	f.v.UID = 0 // whoever runs the test
	f.Cleanup(f.v.Close)
}

func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// place is a name in an open directory.
type place struct {
	dir  backing.Dir
	id   envelope.DirectoryID
	name string
	envelope.BackingName
}

func (p place) location() envelope.Location { return envelope.Location{Directory: p.id, Name: p.name} }

// at finds the directory of a path that users see, and the name in it.
func (f *fixture) at(p string) place {
	f.Helper()
	dir := f.dir(path.Dir(p))
	record, err := f.v.ReadDirectory(dir)
	f.must(err)
	name, err := f.v.Sealed.EncryptName(record.ID, path.Base(p))
	f.must(err)
	return place{dir, record.ID, path.Base(p), name}
}

// dir opens the directory at a path that users see.
func (f *fixture) dir(p string) backing.Dir {
	f.Helper()
	dir := f.disk.Root()
	if p != "/" {
		at := f.at(p)
		var err error
		dir, err = at.dir.OpenDir(at.Entry)
		f.must(err)
	}
	f.Cleanup(func() { dir.Close() })
	return dir
}

// prepare writes the file of a long name.
func (f *fixture) prepare(at place) {
	f.Helper()
	if at.Long != "" {
		f.must(volume.WriteControl(at.dir, envelope.LongFile(at.Entry), []byte(at.Long), false))
	}
}

func (f *fixture) mkdir(p string) {
	f.Helper()
	at := f.at(p)
	f.prepare(at)
	f.must(at.dir.Mkdir(at.Entry, 0o700))
	f.writeRecord(p, func(*envelope.Directory) {})
}

// writeRecord writes a record for the directory at p, as it should be but for an edit.
func (f *fixture) writeRecord(p string, edit func(d *envelope.Directory)) {
	f.Helper()
	at, dir := f.at(p), f.dir(p)
	record, err := f.v.ReadDirectory(dir)
	if errors.Is(err, envelope.ErrFormat) {
		record, err = &envelope.Directory{ID: envelope.NewDirectoryID()}, nil
	}
	f.must(err)
	owner, err := volume.OwnerOf(dir)
	f.must(err)
	next := *record
	next.Owners, next.Locations = []uint32{owner}, []envelope.Location{at.location()}
	edit(&next)
	f.must(f.v.WriteDirectory(dir, &next, true))
}

// write makes a file, with a header as it should be but for an edit.
func (f *fixture) write(p string, content []byte, edit func(h *envelope.Header)) {
	f.Helper()
	at := f.at(p)
	f.prepare(at)
	created, err := at.dir.OpenFile(at.Entry, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
	f.must(err)
	defer created.Close()
	st, err := created.Stat()
	f.must(err)
	h := &envelope.Header{FileID: envelope.NewFileID(), Owner: st.Uid, Path: p, Locations: []envelope.Location{at.location()}, KeyARN: kmsKey}
	if edit != nil {
		edit(h)
	}
	key, err := f.keys.GenerateDataKey(context.Background(), keys.Self("test"), h.KeyARN, h.Context(f.v.Sealed.ID()))
	f.must(err)
	h.WrappedKey = key.Wrapped
	file, err := f.v.Sealed.CreateFile(volume.NewStorage(created), h, key.Plaintext, envelope.FileOptions{})
	f.must(err)
	_, err = file.WriteAt(content, 0)
	f.must(err)
	f.must(file.Close())
}

// read returns a file's content, if its header is its place's and its owner's.
func (f *fixture) read(p string) ([]byte, error) {
	f.Helper()
	at := f.at(p)
	opened, err := at.dir.OpenFile(at.Entry, unix.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer opened.Close()
	owner, err := opened.Stat()
	f.must(err)
	st := volume.NewStorage(opened)
	h, err := f.v.Sealed.ReadHeader(st, false)
	if err != nil {
		return nil, err
	}
	if !f.v.Sealed.LiesAt(h, at.location()) || !h.OwnedBy(owner.Uid) {
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
	at := f.at(p)
	f.prepare(at)
	sealed, err := f.v.Sealed.SealTarget(target)
	f.must(err)
	f.must(at.dir.Symlink(sealed, at.Entry))
}

// move moves an entry, as somebody does who has the volume's directory but no key.
func (f *fixture) move(from, to string) {
	f.Helper()
	a, b := f.at(from), f.at(to)
	f.must(a.dir.Rename(a.Entry, b.dir, b.Entry, 0))
}

// edit changes the bytes of a file in a directory of the disk.
func (f *fixture) edit(dir backing.Dir, name string, edit func(b []byte) []byte) {
	f.Helper()
	file, err := dir.OpenFile(name, unix.O_RDWR, 0)
	f.must(err)
	defer file.Close()
	st, err := file.Stat()
	f.must(err)
	content := make([]byte, st.Size)
	if len(content) > 0 {
		_, err = file.ReadAt(content, 0)
		f.must(err)
	}
	content = edit(bytes.Clone(content))
	f.must(file.Truncate(0))
	if len(content) > 0 {
		_, err = file.WriteAt(content, 0)
		f.must(err)
	}
}

// flip flips a bit of the byte at an offset.
func (f *fixture) flip(dir backing.Dir, name string, offset int) {
	f.Helper()
	f.edit(dir, name, func(b []byte) []byte {
		b[offset] ^= 1
		return b
	})
}

// fsck checks the volume, and returns its faults as "class path".
func (f *fixture) fsck(repair bool) (faults []string, summary fsck.Summary) {
	f.Helper()
	var not []string
	summary, err := fsck.CheckVolume(context.Background(), f.v, fsck.Options{
		ReadData: true, Repair: repair, Report: func(fault fsck.Fault) {
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
