package integration

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/keyservice"
	"kmsfs/keyservice/kms"
	"kmsfs/policy/caller"
)

// forger changes a volume with its keys in hand, as a crash of the file system, or a fault in it, may. The volume is mounted, and nobody uses what it
// changes.
type forger struct {
	t      *testing.T
	api    kms.Service
	sealed *envelope.Volume
}

func (v *volume) forger(t *testing.T) *forger {
	t.Helper()
	api, err := keyservice.DialHome(v.home)
	must(t, err)
	configuration, err := os.ReadFile(filepath.Join(v.dir, "kmsfs.volume"))
	must(t, err)
	config, err := envelope.ParseConfig(configuration)
	must(t, err)
	f := &forger{t: t, api: api}
	key := f.decrypt(config.MetadataKeyARN, config.MetadataKey, config.Context())
	f.sealed, err = envelope.OpenVolume(configuration, key)
	must(t, err)
	return f
}

// me is this process as a caller of the key service.
func me() kms.Caller {
	return kms.Caller{Caller: caller.Caller{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), PID: int32(os.Getpid())}}
}

func (f *forger) decrypt(key string, blob []byte, encryptionContext map[string]string) []byte {
	f.t.Helper()
	out, err := kms.Decrypt.Call(context.Background(), f.api, me(), &kms.DecryptInput{KeyId: key, CiphertextBlob: blob, EncryptionContext: encryptionContext})
	must(f.t, err)
	return out.Plaintext
}

// find returns the path in a volume of what users see at path.
func (f *forger) find(volume, path string) string {
	f.t.Helper()
	for name := range strings.SplitSeq(path, "/") {
		page, err := os.ReadFile(filepath.Join(volume, "kmsfs.dir"))
		must(f.t, err)
		d, err := f.sealed.OpenDirectory(page)
		must(f.t, err)
		entry, err := f.sealed.EncryptName(d.ID, name)
		must(f.t, err)
		volume = filepath.Join(volume, entry.Entry)
	}
	return volume
}

// file has the header of a file changed.
func (f *forger) file(path string, edit func(h *envelope.Header)) {
	f.t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	must(f.t, err)
	defer file.Close()
	was := stat(f.t, path)
	defer func() {
		must(f.t, unix.UtimesNanoAt(unix.AT_FDCWD, path, []unix.Timespec{was.Atim, was.Mtim}, 0))
	}()
	st := disk{file}
	h, err := f.sealed.ReadHeader(st, false)
	must(f.t, err)
	opened, err := f.sealed.OpenFile(st, h, f.decrypt(h.KeyARN, h.WrappedKey, h.Context(f.sealed.ID())), envelope.FileOptions{})
	must(f.t, err)
	must(f.t, opened.ChangeHeader(func(h *envelope.Header) error {
		edit(h)
		return nil
	}))
	must(f.t, opened.Close())
}

// directory has a directory's record changed.
func (f *forger) directory(path string, edit func(d *envelope.Directory)) {
	f.t.Helper()
	name := filepath.Join(path, "kmsfs.dir")
	page, err := os.ReadFile(name)
	must(f.t, err)
	d, err := f.sealed.OpenDirectory(page)
	must(f.t, err)
	edit(d)
	page, err = f.sealed.SealDirectory(d)
	must(f.t, err)
	overwrite(f.t, name, page)
}

// disk is a file as package envelope asks for it.
type disk struct{ *os.File }

var _ envelope.Storage = disk{}

var errNotForged = errors.New("no forger needs that")

func (d disk) Size() (int64, error) {
	info, err := d.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (d disk) PunchHole(int64, int64) error { return errNotForged }

func (d disk) Allocate(int64, int64, bool) error { return errNotForged }

func (d disk) SeekData(off int64) (int64, error) {
	return unix.Seek(int(d.Fd()), off, unix.SEEK_DATA)
}

func (d disk) SeekHole(off int64) (int64, error) {
	return unix.Seek(int(d.Fd()), off, unix.SEEK_HOLE)
}

func (d disk) Overflow() ([]byte, error) {
	value := make([]byte, 64<<10)
	n, err := unix.Fgetxattr(int(d.Fd()), overflow, value)
	if err == unix.ENODATA {
		return nil, nil
	}
	return value[:max(n, 0)], err
}

func (d disk) SetOverflow(value []byte) error {
	if value == nil {
		return unix.Fremovexattr(int(d.Fd()), overflow)
	}
	return unix.Fsetxattr(int(d.Fd()), overflow, value, 0)
}

// overflow is the attribute of a header's overflow.
const overflow = "user.kmsfs.more"
