package home

import (
	"archive/tar"
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/tink-crypto/tink-go/v2/streamingaead/subtle"
	"golang.org/x/sys/unix"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/material"
	"kmsfs/keyservice/sealer"
)

const (
	backupMagic   = "kmsfs home backup 1\n"
	backupLabel   = "kmsfs home backup"
	backupSegment = 64 << 10 // bytes of a segment of the sealed stream
)

// backupStream is the cipher of a backup: AES-256-GCM in segments, so that none can be changed, moved or cut off.
func backupStream(rootKey []byte) (*subtle.AESGCMHKDF, error) {
	key, err := hkdf.Key(sha256.New, rootKey, nil, backupLabel, material.RootKeySize)
	if err != nil {
		return nil, err
	}
	return subtle.NewAESGCMHKDF(key, "SHA256", material.RootKeySize, backupSegment, 0)
}

// Backup writes all of the home into a file, as it is at one moment: sealed under the root key, whose
// own sealed form stands in front. The file must not be there; it appears when it is complete and on
// disk. changes is held while the store and the slots are copied.
func (h *Home) Backup(path string, log *audit.Log, changes sync.Locker) error {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".new-")
	if err != nil {
		return err
	}
	defer f.Close()
	b := backup{h, log, changes}
	err = b.write(f)
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = unix.Renameat2(unix.AT_FDCWD, f.Name(), unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("back up to %s: %w", path, err), os.Remove(f.Name()))
	}
	return dir.Sync()
}

// backup is a backup under way.
type backup struct {
	home    *Home
	log     *audit.Log
	changes sync.Locker
}

func (b *backup) write(w io.Writer) error {
	sealed, err := b.home.dir.readFile(rootKeyFile, maxRootKeyFile)
	if err != nil {
		return err
	}
	head := append([]byte(backupMagic), binary.BigEndian.AppendUint32(nil, uint32(len(sealed)))...)
	head = append(head, sealed...)
	if _, err := w.Write(head); err != nil {
		return err
	}
	cipher, err := backupStream(b.home.rootKey.bytes())
	if err != nil {
		return err
	}
	stream, err := cipher.NewEncryptingWriter(w, head)
	if err != nil {
		return err
	}
	archive := tar.NewWriter(stream)
	if err := b.archiveStore(archive); err != nil {
		return err
	}
	if err := b.archiveLog(archive); err != nil {
		return err
	}
	if err := archive.Close(); err != nil {
		return err
	}
	return stream.Close()
}

func (d *Dir) readFile(name string, most int64) ([]byte, error) {
	f, err := d.open(name, os.O_RDONLY, most)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, most))
}

// archiveStore adds the store and the slots.
func (b *backup) archiveStore(archive *tar.Writer) error {
	copied, err := os.CreateTemp("", "kmsfs-backup-") // the store's size is not known before, and its records are sealed
	if err != nil {
		return err
	}
	defer copied.Close()
	b.changes.Lock() // so that the store and the slots belong together
	defer b.changes.Unlock()
	if err := os.Remove(copied.Name()); err != nil {
		return err
	}
	if err := b.home.Store.WriteTo(copied); err != nil {
		return err
	}
	var slots bytes.Buffer
	if _, err := b.home.Slots.WriteTo(&slots); err != nil {
		return err
	}
	defer clear(slots.Bytes())
	if err := archiveFile(archive, storeFile, copied); err != nil {
		return err
	}
	return archiveText(archive, slotsFile, slots.Bytes())
}

// archiveLog adds the audit log as far as it has been written: behind what the store knows of it.
func (b *backup) archiveLog(archive *tar.Writer) error {
	if by := b.log.StandingIn(); by.Path != "" {
		return fmt.Errorf("the audit log can't be written, and its last records are in %s: make room for it first", by.Path)
	}
	return b.log.WithFiles(func(names []string) error {
		for _, name := range names {
			f, err := b.home.audit.open(name, os.O_RDONLY, maxAuditFile)
			if err != nil {
				return err
			}
			if err := errors.Join(archiveFile(archive, auditDir+"/"+name, f), f.Close()); err != nil {
				return err
			}
		}
		return nil
	})
}

func archiveFile(archive *tar.Writer, name string, f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := archive.WriteHeader(&tar.Header{Name: name, Size: info.Size(), Mode: 0o600, Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err = io.Copy(archive, io.NewSectionReader(f, 0, info.Size()))
	return err
}

func archiveText(archive *tar.Writer, name string, text []byte) error {
	if err := archive.WriteHeader(&tar.Header{Name: name, Size: int64(len(text)), Mode: 0o600, Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err := archive.Write(text)
	return err
}

// ErrDamagedBackup says that a file is no backup of a home, or not one that is whole.
var ErrDamagedBackup = errors.New("not an intact backup of a key service home")

// Restore makes a home of a backup: all of it, durably, or, on an error, nothing. The error wraps ErrExists, ErrDamagedBackup, or what Open's does.
func Restore(backup io.Reader, dir string, secret sealer.Sealer, owner uint32) error {
	head, rootKey, err := openBackup(backup, secret)
	if err != nil {
		return err
	}
	defer clear(rootKey)
	return makeHome(dir, func(made string) error {
		cipher, err := backupStream(rootKey)
		if err != nil {
			return err
		}
		stream, err := cipher.NewDecryptingReader(backup, head)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDamagedBackup, err)
		}
		if err := restoreFiles(made, head[len(backupMagic)+4:], stream); err != nil {
			return err
		}
		return give(made, owner)
	})
}

// openBackup reads what stands in front of the sealed stream, and opens the root key with the secret.
func openBackup(backup io.Reader, secret sealer.Sealer) (head, rootKey []byte, err error) {
	head = make([]byte, len(backupMagic)+4)
	if _, err := io.ReadFull(backup, head); err != nil || string(head[:len(backupMagic)]) != backupMagic {
		return nil, nil, ErrDamagedBackup
	}
	size := binary.BigEndian.Uint32(head[len(backupMagic):])
	if size > maxRootKeyFile {
		return nil, nil, ErrDamagedBackup
	}
	sealed := make([]byte, size)
	if _, err := io.ReadFull(backup, sealed); err != nil {
		return nil, nil, ErrDamagedBackup
	}
	root, err := parseRootKey(sealed)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrDamagedBackup, err)
	}
	rootKey, err = root.unseal(secret)
	return append(head, sealed...), rootKey, err
}

// restoreFiles makes the files of a home. Nothing but what a backup has is taken: the store, the slots, and the files of the audit log, with the
// open segment the last.
func restoreFiles(dir string, sealedRootKey []byte, stream io.Reader) error {
	if err := os.Mkdir(filepath.Join(dir, auditDir), 0o700); err != nil {
		return err
	}
	archive := tar.NewReader(stream)
	for _, want := range []string{storeFile, slotsFile, auditDir + "/" + auditFile} {
		for {
			header, err := archive.Next()
			if err != nil || header.Typeflag != tar.TypeReg {
				return fmt.Errorf("%w: no %s", ErrDamagedBackup, want)
			}
			segment, isAudit := strings.CutPrefix(header.Name, auditDir+"/")
			isSegment := isAudit && want == auditDir+"/"+auditFile && audit.IsFile(segment)
			if header.Name != want && !isSegment {
				return fmt.Errorf("%w: no %s", ErrDamagedBackup, want)
			}
			if err := writeFrom(filepath.Join(dir, header.Name), archive); err != nil {
				return err
			}
			if header.Name == want {
				break
			}
		}
	}
	// The end of the archive, and of the stream, have to be genuine too.
	if _, err := archive.Next(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: its end is missing", ErrDamagedBackup)
	}
	if _, err := io.Copy(io.Discard, stream); err != nil {
		return fmt.Errorf("%w: %w", ErrDamagedBackup, err)
	}
	if err := writeFile(filepath.Join(dir, rootKeyFile), sealedRootKey); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(dir, lockFile), nil); err != nil {
		return err
	}
	return syncDirs(dir)
}

// writeFrom makes a file that is on disk when it returns.
func writeFrom(path string, content io.Reader) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(f, content); err != nil {
		if _, system := errors.AsType[unix.Errno](err); system {
			return err
		}
		return fmt.Errorf("%w: %w", ErrDamagedBackup, err)
	}
	return f.Sync()
}
