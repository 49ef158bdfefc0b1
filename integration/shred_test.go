package integration

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/keyservice"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/sealer"
)

// shredding is a volume and its home on a disk of their own, with what must be gone from it when the KMS key is.
type shredding struct {
	*volume
	image, disk, passphrase, key string
	// slots are the home's, of which one is destroyed; keys are those that must never be found.
	slots, keys [][]byte
	// blobs are all that the KMS key has wrapped.
	blobs []wrapped
}

type wrapped struct {
	blob    []byte
	context map[string]string
}

// TestCryptoShredding destroys the material of a KMS key: afterwards, nobody who has the whole disk, everything that was in its volume and home, and the
// passphrase, opens a file.
func TestCryptoShredding(t *testing.T) {
	if plain {
		t.Log("everything is plain")
		return
	}
	t.Run("Imported", func(t *testing.T) {
		material := noise(401, 32)
		s := newShredding(t, func(s *shredding) {
			write(t, filepath.Join(s.root, "material"), material)
			s.key = strings.TrimSpace(s.kmsfs(t, "key", "create", "--origin", "EXTERNAL"))
			s.kmsfs(t, "key", "import", s.key, filepath.Join(s.root, "material"))
		})
		s.keys = append(s.keys, material)
		before := s.keep(t)
		// While it is mounted, and in use.
		_, err := kms.DeleteImportedKeyMaterial.Call(t.Context(), s.api(t), me(), &kms.DeleteImportedKeyMaterialInput{KeyId: s.key})
		must(t, err)
		if _, err := os.ReadFile(s.path("new", "after")); err == nil {
			t.Error("a file that was not open is opened after its key's material is gone")
		}
		s.umount(t)
		s.checkShredded(t, before)
	})
	t.Run("Deleted", func(t *testing.T) {
		s := newShredding(t, func(s *shredding) { s.key = strings.TrimSpace(s.kmsfs(t, "key", "create")) })
		before := s.keep(t)
		s.umount(t)
		s.deleteKey(t)
		s.checkShredded(t, before)
	})
}

// newShredding makes a home and a volume on a disk of their own, mounts it and fills it with marks.
func newShredding(t *testing.T, makeKey func(s *shredding)) *shredding {
	t.Helper()
	v := prepareVolume(t)
	s := &shredding{volume: v, disk: filepath.Join(v.root, "disk"), passphrase: filepath.Join(v.root, "passphrase")}
	s.image = loopDisk(t, v, "64M")
	v.home = filepath.Join(s.disk, "home")
	write(t, s.passphrase, []byte("correct horse battery staple\n"))
	v.also = []string{"KMSFS_KEY_FILE=", "KMSFS_PASSPHRASE_FILE=" + s.passphrase}
	v.kmsfs(t, "init", filepath.Join(s.disk, "other")) // makes the home
	makeKey(s)
	v.kmsfs(t, "init", "--key", s.key, v.dir)
	v.mount(t)
	plantMarks(t, v.point)
	must(t, os.Mkdir(v.path("new"), 0o755))
	write(t, v.path("new", "after"), []byte(marks["content"]))
	v.remount(t) // so that everything is in the volume
	return s
}

func (s *shredding) api(t *testing.T) kms.Service {
	t.Helper()
	api, err := keyservice.DialHome(s.home)
	must(t, err)
	return api
}

// keep notes all keys there are, and returns what keeps them: a copy of the home's files.
func (s *shredding) keep(t *testing.T) (home string) {
	t.Helper()
	f := s.forger(t)
	config := f.sealed.Config()
	s.blobs = append(s.blobs, wrapped{config.MetadataKey, config.Context()})
	must(t, filepath.WalkDir(s.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || strings.HasPrefix(e.Name(), "kmsfs.") {
			return err
		}
		file, err := os.Open(path)
		must(t, err)
		defer file.Close()
		h, err := f.sealed.ReadHeader(disk{file}, false)
		must(t, err)
		s.blobs = append(s.blobs, wrapped{h.WrappedKey, h.Context(config.VolumeID)})
		return nil
	}))
	for _, b := range s.blobs {
		s.keys = append(s.keys, f.decrypt(s.key, b.blob, b.context))
	}
	slots, err := os.ReadFile(filepath.Join(s.home, "slots"))
	must(t, err)
	for slot := range slices.Chunk(slots, 32) {
		s.slots = append(s.slots, bytes.Clone(slot))
	}
	home = filepath.Join(s.root, "home-before")
	run(t, "/", "cp", "-a", s.home, home)
	must(t, os.RemoveAll(filepath.Join(home, "socket")))
	return home
}

// deleteKey has the KMS key deleted, with all of the waiting period, by a clock that goes faster.
func (s *shredding) deleteKey(t *testing.T) {
	t.Helper()
	secret, err := os.ReadFile(s.passphrase)
	must(t, err)
	synctest.Test(t, func(t *testing.T) {
		sealer, err := sealer.NewPassphrase(bytes.TrimSpace(secret))
		must(t, err)
		service, err := keyservice.Open(s.home, sealer)
		must(t, err)
		_, err = kms.ScheduleKeyDeletion.Call(context.Background(), service, me(), &kms.ScheduleKeyDeletionInput{KeyId: s.key, PendingWindowInDays: new(int32(7))})
		must(t, err)
		time.Sleep(7*24*time.Hour - time.Hour)
		if _, err := kms.DescribeKey.Call(context.Background(), service, me(), &kms.DescribeKeyInput{KeyId: s.key}); err != nil {
			t.Errorf("the key is gone before its time: %v", err)
		}
		time.Sleep(2 * time.Hour)
		must(t, service.Close())
	})
}

// checkShredded tries everything. before is a copy of the home from before.
func (s *shredding) checkShredded(t *testing.T, before string) {
	t.Helper()
	s.refused(t, []string{"mount", s.dir, s.point}, "can't be used")
	s.checkBlobs(t, "with the home as it is", s.home)

	// An older store, with the slots as they are now: as from a copy of that file alone, or what the disk has of old pages.
	older := filepath.Join(s.root, "home-older")
	run(t, "/", "cp", "-a", s.home, older)
	run(t, "/", "cp", filepath.Join(before, "keys.db"), filepath.Join(older, "keys.db"))
	s.checkBlobs(t, "with an older keys.db", older)

	run(t, "/", "sync", "-f", s.disk)
	run(t, "/", "umount", s.disk)
	content, err := os.ReadFile(s.image)
	must(t, err)
	for _, key := range s.keys {
		if bytes.Contains(content, key) {
			t.Errorf("the disk holds the key %x", key)
		}
	}
	for _, mark := range findMarks(content) {
		if kind, _, _ := strings.Cut(mark, " as "); !slices.Contains(inNames, kind) { // the audit log has paths
			t.Errorf("the disk holds the mark of a %s", mark)
		}
	}
	destroyed := 0
	for _, slot := range s.slots {
		if !bytes.Contains(content, slot) {
			destroyed++
		}
	}
	if destroyed != 1 {
		t.Errorf("the disk lacks %d of %d slots, want one that is destroyed", destroyed, len(s.slots))
	}
	run(t, "/", "mount", "-o", "loop", s.image, s.disk)

	// What remains, as README says: a home from before has the key.
	s.home = before
	s.mount(t)
	if got, err := os.ReadFile(s.path("new", "after")); err != nil || string(got) != marks["content"] {
		t.Errorf("with a copy of the home from before: %q, %v", got, err)
	}
}

// checkBlobs checks that nothing that the key has wrapped opens with a home.
func (s *shredding) checkBlobs(t *testing.T, how, home string) {
	t.Helper()
	secret, err := os.ReadFile(s.passphrase)
	must(t, err)
	sealer, err := sealer.NewPassphrase(bytes.TrimSpace(secret))
	must(t, err)
	service, err := keyservice.Open(home, sealer)
	must(t, err)
	defer func() { must(t, service.Close()) }()
	for _, b := range s.blobs {
		out, err := kms.Decrypt.Call(t.Context(), service, me(), &kms.DecryptInput{CiphertextBlob: b.blob, EncryptionContext: b.context})
		if err == nil {
			t.Fatalf("%s: %s is opened, to %d bytes", how, b.context["kmsfs:path"], len(out.Plaintext))
		}
	}
}

// keyUsage is what "kmsfs key usage --json" says.
type keyUsage struct {
	Key, Known string
	Volumes    []volumeUsage
}

type volumeUsage struct {
	Volume, Error               string
	Files, Directories, Unknown int64
	Metadata, NewFiles          bool
}

// TestKeyUsage counts what depends on a KMS key.
func TestKeyUsage(t *testing.T) {
	if plain {
		t.Log("there are no keys")
		return
	}
	v := mounted(t)
	for i := range 300 {
		must(t, os.MkdirAll(v.path(fmt.Sprint("d", i%7)), 0o755))
		write(t, v.path(fmt.Sprint("d", i%7), fmt.Sprint(i)), []byte("content"))
	}
	must(t, os.Link(v.path("d1", "1"), v.path("d2", "link")))
	must(t, os.Symlink("target", v.path("symlink")))
	must(t, unix.Mkfifo(v.path("fifo"), 0o600))
	write(t, v.path("damaged"), []byte("content"))
	v.kmsfs(t, "alias", "create", "alias/second", strings.TrimSpace(v.kmsfs(t, "key", "create")))
	f := v.forger(t)
	f.directory(f.find(v.dir, "d3"), func(d *envelope.Directory) { d.Key = "alias/second" })
	overwrite(t, f.find(v.dir, "damaged"), noise(402, 2000))
	second := filepath.Join(v.root, "second")
	v.kmsfs(t, "init", "--key", "alias/second", second)

	usage := func(exit int, args ...string) (u keyUsage) {
		t.Helper()
		cmd, cancel := command(v.root, binary, append([]string{"key", "usage", "--json"}, args...)...)
		defer cancel()
		cmd.Env = v.environment()
		out, err := cmd.Output()
		if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != exit {
			t.Fatalf("%q: %v, want exit status %d\n%s", args, err, exit, out)
		}
		must(t, json.Unmarshal(out, &u))
		return u
	}
	check := func(u keyUsage, i int, volume string, files, directories, unknown int64, metadata bool) {
		t.Helper()
		if len(u.Volumes) <= i {
			t.Fatalf("%+v, want more volumes", u)
		}
		if got := u.Volumes[i]; got.Volume != volume || got.Files != files || got.Directories != directories || got.Unknown != unknown || got.Metadata != metadata || got.NewFiles != metadata {
			t.Errorf("%+v, want %s, %d files, %d directories, %d unknown, %v", got, volume, files, directories, unknown, metadata)
		}
	}
	u := usage(0, "alias/kmsfs-default", v.dir, second)
	check(u, 0, v.dir, 300, 0, 1, true)
	check(u, 1, second, 0, 0, 0, false)
	byID := u.Key[strings.LastIndexByte(u.Key, '/')+1:]
	check(usage(0, byID, v.point), 0, v.dir, 300, 0, 1, true)
	u = usage(0, "alias/second", v.dir, second)
	check(u, 0, v.dir, 0, 1, 1, false)
	check(u, 1, second, 0, 0, 0, true)

	// Those that the home knows of.
	v.umount(t)
	u = usage(0, byID)
	if u.Known != "mounted and audit log" {
		t.Errorf("known is %q", u.Known)
	}
	at := slices.IndexFunc(u.Volumes, func(each volumeUsage) bool { return each.Volume == v.dir })
	check(u, max(at, 0), v.dir, 300, 0, 1, true)

	v.kmsfs(t, "key", "disable", byID)
	u = usage(1, byID, v.dir)
	if got := u.Volumes[0]; !got.Metadata || got.Error == "" || got.Files != 0 {
		t.Errorf("of a disabled key: %+v", got)
	}
	text, err := v.try("key", "usage", "alias/second", second)
	if err != nil || !strings.Contains(text, second) || !strings.Contains(text, "yes") {
		t.Errorf("%s, %v", text, err)
	}
	if out, err := v.try("key", "usage"); err == nil || !strings.Contains(out, "want a KEY") {
		t.Errorf("without arguments: %s, %v", out, err)
	}
	v.refused(t, []string{"key", "usage", "alias/nothing", second}, "alias/nothing")
}
