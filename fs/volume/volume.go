// Package volume is a volume as it lies on disk, without FUSE.
//
//   - volume.go: an opened volume and its keys; create.go makes one, config.go reads and replaces its configuration
//   - session.go, sharing.go, marker.go: the use of a volume by a mount: locks, turns with other mounts, dirty markers
//   - control.go, record.go: control files and directory records
//   - name.go, path.go, attribute.go: the names of entries, paths and attributes
//   - entry.go, walk.go, progress.go: listing directories, and going through a volume in parallel
//   - file.go, storage.go: regular files as package envelope asks for them
//   - inspect.go: what a file, directory or symlink says of itself
package volume

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	"kmsfs/fs/volume/backing"
)

// Volume is an opened volume, mounted or not: its directory, and the keys to what is in it.
type Volume struct {
	Path   string // as the caller gave it, for messages
	Root   backing.Dir
	UID    uint32
	Owner  uint32 // of the directory
	Sealed *envelope.Volume
	Keys   keys.Service
}

// Open opens the volume at path: its configuration, and with the key service its metadata key.
func Open(path string, keys keys.Service, operation string) (*Volume, error) {
	root, err := backing.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening %s: %w", path, err)
	}
	b, err := OpenIn(root, path, keys, operation)
	if err != nil {
		root.Close()
		return nil, err
	}
	return b, nil
}

// OpenIn opens the volume in a directory that is open, and which the volume closes. The path is for messages.
func OpenIn(root backing.Dir, path string, keys keys.Service, operation string) (*Volume, error) {
	b := &Volume{Path: path, Root: root, UID: uint32(os.Geteuid()), Keys: keys}
	if err := b.open(operation); err != nil {
		return nil, err
	}
	return b, nil
}

func (b *Volume) open(operation string) error {
	st, err := b.Root.Stat()
	if err != nil {
		return fmt.Errorf("opening %s: %w", b.Path, err)
	}
	b.Owner = st.Uid
	configuration, err := b.readControl(b.Root, envelope.ConfigName, 1, envelope.MaxConfigSize)
	switch {
	case errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%s: %w", b.Path, ErrNotVolume)
	case errors.Is(err, envelope.ErrFormat):
		return fmt.Errorf("%s: %w: %w", b.Path, ErrDamaged, err)
	case err != nil:
		return fmt.Errorf("%s: %w", b.Path, err)
	}
	config, err := envelope.ParseConfig(configuration)
	if err != nil {
		return fmt.Errorf("%s: %w: %w", b.Path, ErrDamaged, err)
	}
	key, err := b.Keys.Decrypt(context.Background(), keys.Self(operation), config.MetadataKeyARN, config.MetadataKey, config.Context())
	if errors.Is(err, keys.ErrDenied) {
		return fmt.Errorf("%s: key %s can't be used: %w", b.Path, config.MetadataKeyARN, err)
	}
	if errors.Is(err, keys.ErrUnopened) {
		return fmt.Errorf("%s: %w: its metadata key doesn't open: %w", b.Path, ErrDamaged, err)
	}
	if err != nil {
		return fmt.Errorf("%s: its metadata key: %w", b.Path, err)
	}
	defer clear(key)
	if b.Sealed, err = envelope.OpenVolume(configuration, key); err != nil {
		return fmt.Errorf("%s: %w: %w", b.Path, ErrDamaged, err)
	}
	return nil
}

// Close forgets the volume's keys.
func (b *Volume) Close() {
	b.Sealed.Close()
	b.Root.Close()
}
