package home

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/material"
	"kmsfs/keyservice/sealer"
	"kmsfs/keyservice/store"
)

// InitOptions say what home to make.
type InitOptions struct {
	// Dir is the home's directory, missing or empty so far. Those above it are made as needed.
	Dir string
	// Sealer seals the root key.
	Sealer sealer.Sealer
	// Name is the home's name in ARNs, in the place of AWS's region: letters, digits and hyphens. Default: "local".
	Name string
	// Owner is the UID of the user whose home it is, and who may do everything.
	Owner uint32
}

// Facts are what a home is, for good. The store has them, sealed.
type Facts struct {
	Name string `json:"name"`
	// Account has twelve digits.
	Account string    `json:"account"`
	Owner   uint32    `json:"owner"`
	Created time.Time `json:"created"`
}

// defaultName is a home's name in ARNs if none is given.
const defaultName = "local"

// Init makes a home: all of it, durably, or, on an error, nothing. The error is ErrExists if something is there already.
func Init(o InitOptions) error {
	if o.Name == "" {
		o.Name = defaultName
	}
	if !kms.IsHomeName(o.Name) {
		return fmt.Errorf("the key service home's name %q: want up to 63 letters, digits and inner hyphens", o.Name)
	}
	if o.Sealer == nil {
		return errors.New("a key service home needs a sealer")
	}
	return makeHome(o.Dir, func(made string) error { return fill(made, o) })
}

// makeHome has f fill a new directory, and puts it in a home's place.
func makeHome(dir string, f func(made string) error) error {
	dir, err := homePlace(dir)
	if err != nil {
		return err
	}
	// It is made beside its place, so that it comes there all at once.
	made, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".new-")
	if err != nil {
		return err
	}
	if err := f(made); err != nil {
		return errors.Join(err, os.RemoveAll(made))
	}
	if err := unix.Rename(made, dir); err != nil {
		if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
			err = ErrExists
		}
		return errors.Join(fmt.Errorf("make %s: %w", dir, err), os.RemoveAll(made))
	}
	return syncPath(filepath.Dir(dir))
}

// homePlace returns where the home is to be, and makes the directories above it.
func homePlace(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if target, err := filepath.EvalSymlinks(dir); err == nil {
		dir = target
	}
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return dir, os.MkdirAll(filepath.Dir(dir), 0o700)
	case errors.Is(err, unix.ENOTDIR):
		return "", fmt.Errorf("make %s: %w", dir, ErrExists)
	case err != nil:
		return "", err
	case len(entries) > 0:
		return "", fmt.Errorf("make %s: %w", dir, ErrExists)
	}
	return dir, nil
}

// fill makes a home's files in an empty directory.
func fill(dir string, o InitOptions) error {
	rootKey := make([]byte, material.RootKeySize)
	defer clear(rootKey)
	rand.Read(rootKey)
	sealed, err := encodeRootKey(o.Sealer, rootKey)
	if err != nil {
		return fmt.Errorf("seal the root key: %w", err)
	}
	if err := createStore(filepath.Join(dir, storeFile), rootKey, o); err != nil {
		return fmt.Errorf("make the key store: %w", err)
	}
	if err := os.Mkdir(filepath.Join(dir, auditDir), 0o700); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, rootKeyFile), sealed); err != nil {
		return err
	}
	for _, name := range []string{slotsFile, lockFile, filepath.Join(auditDir, auditFile)} {
		if err := writeFile(filepath.Join(dir, name), nil); err != nil {
			return err
		}
	}
	if err := give(dir, o.Owner); err != nil {
		return err
	}
	return syncDirs(dir)
}

func createStore(path string, rootKey []byte, o InitOptions) error {
	ring, err := material.NewKeyring(rootKey)
	if err != nil {
		return err
	}
	defer ring.Wipe()
	account, err := rand.Int(rand.Reader, big.NewInt(1e12))
	if err != nil {
		return err
	}
	text, err := json.Marshal(Facts{o.Name, fmt.Sprintf("%012d", account), o.Owner, time.Now().UTC()})
	if err != nil {
		return err
	}
	return store.Create(path, ring, text)
}

// writeFile makes a file that is on disk when it returns.
func writeFile(path string, content []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(content); err != nil {
		return err
	}
	return f.Sync()
}

// give has everything in the directory, which nobody else can reach yet, belong to the user.
func give(dir string, uid uint32) error {
	if uid == uint32(os.Geteuid()) {
		return nil
	}
	return filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(uid), -1)
	})
}

func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// syncDirs puts the names of a home's files on disk.
func syncDirs(dir string) error {
	if err := syncPath(filepath.Join(dir, auditDir)); err != nil {
		return err
	}
	return syncPath(dir)
}
