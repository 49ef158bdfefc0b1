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

// CreateOptions say what volume to make, and where.
type CreateOptions struct {
	// Volume is an empty directory, or one to be made.
	Volume string
	Keys   keys.Service
	// Key is the KMS key of the volume: an ID, an alias or an ARN.
	Key            string
	PlaintextNames bool
	// Owner is the uid in the encryption context of the volume's metadata key.
	Owner uint32
}

// Create makes a volume. It returns ErrNotEmpty if the directory has something in it. After an
// error the directory is as it was.
func Create(o CreateOptions) (err error) {
	made := false
	if err := unix.Mkdir(o.Volume, 0o700); err == nil {
		made = true
	} else if !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("making %s: %w", o.Volume, err)
	}
	defer func() {
		if err != nil && made {
			err = errors.Join(err, os.Remove(o.Volume))
		}
	}()
	dir, err := backing.Open(o.Volume)
	if err != nil {
		return fmt.Errorf("opening %s: %w", o.Volume, err)
	}
	defer dir.Close()
	return CreateIn(dir, o)
}

// CreateIn is Create for a directory that is open.
func CreateIn(dir backing.Dir, o CreateOptions) error {
	all, err := dir.OpenDir(".")
	if err != nil {
		return fmt.Errorf("reading %s: %w", o.Volume, err)
	}
	defer all.Close()
	entries, err := backing.Entries(all)
	if err != nil {
		return fmt.Errorf("reading %s: %w", o.Volume, err)
	}
	if len(entries) > 0 {
		return fmt.Errorf("%s: %w", o.Volume, ErrNotEmpty)
	}
	return o.fill(dir)
}

// fill writes what a volume has from the start. The configuration comes last: without it, it is no
// volume.
func (o CreateOptions) fill(dir backing.Dir) (err error) {
	config := envelope.Config{
		Format: 1, VolumeID: envelope.NewVolumeID(), PlaintextNames: o.PlaintextNames, Owner: o.Owner,
	}
	key, err := o.Keys.GenerateDataKey(context.Background(), keys.Self("init"), o.Key, config.Context())
	if err != nil {
		return fmt.Errorf("key %s: %w", o.Key, err)
	}
	defer clear(key.Plaintext)
	config.KeyARN, config.KeyARNs = key.KeyARN, []string{key.KeyARN}
	config.MetadataKeyARN, config.MetadataKey = key.KeyARN, key.Wrapped
	configuration, err := config.Marshal(key.Plaintext)
	if err != nil {
		return err
	}
	sealed, err := envelope.OpenVolume(configuration, key.Plaintext)
	if err != nil {
		return err
	}
	defer sealed.Close()
	st, err := dir.Stat()
	if err != nil {
		return err
	}
	b := &Volume{Sealed: sealed}
	defer func() {
		if err != nil {
			_ = dir.Unlink(envelope.ConfigName)
			_ = dir.Unlink(envelope.DirectoryName)
		}
	}()
	root := &envelope.Directory{ID: envelope.NewDirectoryID(), Owners: []uint32{st.Uid}, Locations: []envelope.Location{{}}}
	if err := b.WriteDirectory(dir, root, false); err != nil {
		return err
	}
	if err := SyncControl(dir, envelope.DirectoryName); err != nil {
		return err
	}
	if err := WriteControl(dir, envelope.ConfigName, configuration, false); err != nil {
		return err
	}
	if err := SyncControl(dir, envelope.ConfigName); err != nil {
		return err
	}
	return SyncDir(dir)
}
