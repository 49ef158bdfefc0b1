package fs

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/policy"
)

// backing is an opened volume's directory with the keys to what is in it, mounted or not.
type backing struct {
	path   string
	root   int // descriptor of the directory
	uid    uint32
	owner  uint32 // of the directory
	sealed *envelope.Volume
	keys   KeyService
}

// self is the call that the file system makes on its own behalf.
func self(operation string) Call {
	return Call{
		Caller:    policy.Caller{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), PID: int32(os.Getpid())},
		Operation: operation,
		Own:       true,
		ID:        uuid.New(),
	}
}

// openBacking opens the volume at path: its configuration, and with the key service its metadata key.
func openBacking(path string, keys KeyService, operation string) (*backing, error) {
	b := &backing{path: path, uid: uint32(os.Geteuid()), keys: keys}
	var err error
	b.root, err = unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	if err := b.open(operation); err != nil {
		unix.Close(b.root)
		return nil, err
	}
	return b, nil
}

func (b *backing) open(operation string) error {
	var st unix.Stat_t
	if err := unix.Fstat(b.root, &st); err != nil {
		return fmt.Errorf("opening %s: %w", b.path, err)
	}
	b.owner = st.Uid
	configuration, err := b.readControl(b.root, envelope.ConfigName, 1, envelope.MaxConfigSize)
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%s: %w", b.path, ErrNotVolume)
	case errors.Is(err, envelope.ErrFormat):
		return fmt.Errorf("%s: %w: %w", b.path, ErrVolumeDamaged, err)
	case err != nil:
		return fmt.Errorf("%s: %w", b.path, err)
	}
	config, err := envelope.ParseConfig(configuration)
	if err != nil {
		return fmt.Errorf("%s: %w: %w", b.path, ErrVolumeDamaged, err)
	}
	key, err := b.keys.Decrypt(context.Background(), self(operation), config.MetadataKeyARN, config.MetadataKey, config.Context())
	if errors.Is(err, ErrRefused) {
		return fmt.Errorf("%s: key %s can't be used: %w", b.path, config.MetadataKeyARN, err)
	}
	if errors.Is(err, ErrUnopened) {
		return fmt.Errorf("%s: %w: its metadata key doesn't open: %w", b.path, ErrVolumeDamaged, err)
	}
	if err != nil {
		return fmt.Errorf("%s: its metadata key: %w", b.path, err)
	}
	defer clear(key)
	if b.sealed, err = envelope.OpenVolume(configuration, key); err != nil {
		return fmt.Errorf("%s: %w: %w", b.path, ErrVolumeDamaged, err)
	}
	return nil
}

func (b *backing) close() {
	b.sealed.Close()
	unix.Close(b.root)
}

// readDirectory reads the record of the directory dir, and says whether it was changed at or after the time in seconds since
// 1970.
func (b *backing) readDirectory(dir int) (*envelope.Directory, error) {
	page, err := b.readControl(dir, envelope.DirectoryName, envelope.DirectorySize, envelope.DirectorySize)
	if errors.Is(err, unix.ENOENT) {
		return nil, fmt.Errorf("the directory's record is missing: %w", envelope.ErrFormat)
	}
	if err != nil {
		return nil, err
	}
	return b.sealed.OpenDirectory(page)
}

// writeDirectory seals a directory's record into dir; with replace, over the one that is there.
func (b *backing) writeDirectory(dir int, d *envelope.Directory, replace bool) error {
	page, err := b.sealed.SealDirectory(d)
	if err != nil {
		return err
	}
	return writeControl(dir, envelope.DirectoryName, page, replace)
}
