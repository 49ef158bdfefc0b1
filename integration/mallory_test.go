package integration

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMallory has a user who can change all of the ciphertext, and may use the files in one directory, try to read others, or to have others read
// what she made up. No mode stands in her way.
func TestMallory(t *testing.T) {
	t.Parallel()
	if plain {
		t.Log("there is no ciphertext")
		return
	}
	t.Run("Encrypted", func(t *testing.T) { runHeists(t) })
	t.Run("PlaintextNames", func(t *testing.T) { runHeists(t, "--plaintext-names") })
}

// heist is what she does with one directory of others, in one of her own.
type heist struct {
	name string
	// do changes the ciphertext.
	do func(h *scene)
}

// scene is where a heist takes place: /secret/NAME, with the files f, g, sub/deep and link, and her /m/NAME, with the files own, dir/in and link. All
// paths are the volume's, unless they are said to be the mount's.
type scene struct {
	secret, secretF, secretG, sub, deep, link string
	mine, own, dir, in, myLink                string
	// slot and slotDir are where the volume would have her files of those names, which there aren't, in the mount and in the volume.
	slot, slotDir string
	// kept is what she copied from the volume earlier, by path.
	kept map[string][]byte
	// errs are those of what she could not do.
	errs []error
}

func (s *scene) try(err error) { s.errs = append(s.errs, err) }

func (s *scene) move(from, to string) { s.try(os.Rename(from, to)) }

func (s *scene) exchange(x, y string) {
	s.try(unix.Renameat2(unix.AT_FDCWD, x, unix.AT_FDCWD, y, unix.RENAME_EXCHANGE))
}

func (s *scene) copy(from, to string) {
	content, err := os.ReadFile(from)
	s.try(err)
	s.try(os.WriteFile(to, content, 0o666))
}

func record(dir string) string { return filepath.Join(dir, "kmsfs.dir") }

func heists() []heist {
	return []heist{
		{"None", func(*scene) {}},
		{"MoveFile", func(s *scene) { s.move(s.secretF, s.slot) }},
		{"MoveFileOver", func(s *scene) { s.move(s.secretF, s.own) }},
		{"LinkFile", func(s *scene) { s.try(os.Link(s.secretF, s.slot)) }},
		{"LinkFileOver", func(s *scene) {
			s.try(os.Remove(s.own))
			s.try(os.Link(s.secretF, s.own))
		}},
		{"CopyFile", func(s *scene) { s.copy(s.secretF, s.slot) }},
		{"CopyFileOver", func(s *scene) { s.copy(s.secretF, s.own) }},
		{"ExchangeFiles", func(s *scene) { s.exchange(s.secretF, s.own) }},
		{"PlantFile", func(s *scene) { s.copy(s.own, s.secretF) }},
		{"PlantHeader", func(s *scene) {
			stolen, err := os.ReadFile(s.secretF)
			s.try(err)
			own, err := os.ReadFile(s.own)
			s.try(err)
			s.try(os.WriteFile(s.own, append(stolen[:header:header], own[header:]...), 0o666))
		}},
		{"PlantContent", func(s *scene) { // under her own header
			stolen, err := os.ReadFile(s.secretF)
			s.try(err)
			own, err := os.ReadFile(s.own)
			s.try(err)
			s.try(os.WriteFile(s.own, append(own[:header:header], stolen[header:]...), 0o666))
		}},
		{"MoveDirectory", func(s *scene) { s.move(s.secret, s.slotDir) }},
		{"ExchangeDirectories", func(s *scene) { s.exchange(s.secret, s.dir) }},
		{"MoveInner", func(s *scene) { s.move(s.sub, s.slotDir) }},
		{"ExchangeInner", func(s *scene) { s.exchange(s.sub, s.dir) }},
		{"ExchangeWithRecords", func(s *scene) { // each record stays where it is
			s.exchange(s.secret, s.dir)
			s.exchange(record(s.secret), record(s.dir))
		}},
		{"ExchangeRecords", func(s *scene) { s.exchange(record(s.secret), record(s.dir)) }},
		{"CopyRecord", func(s *scene) {
			s.move(s.secret, s.slotDir)
			s.copy(record(s.dir), record(s.slotDir))
		}},
		{"LinkRecord", func(s *scene) {
			s.try(os.Remove(record(s.dir)))
			s.try(os.Link(record(s.secret), record(s.dir)))
		}},
		{"LinkIntoOwn", func(s *scene) { // her directory, with the other's record and files
			s.try(os.Remove(record(s.dir)))
			for _, path := range []string{record(s.secret), s.secretF, s.secretG} {
				s.try(os.Link(path, filepath.Join(s.dir, filepath.Base(path))))
			}
		}},
		{"OwnTheDirectory", func(s *scene) { // which gets her as its owner
			s.try(os.Mkdir(s.slotDir, 0o777))
			entries, err := os.ReadDir(s.secret)
			s.try(err)
			for _, e := range entries {
				s.move(filepath.Join(s.secret, e.Name()), filepath.Join(s.slotDir, e.Name()))
			}
			s.try(os.Remove(s.secret))
			s.move(s.slotDir, s.secret)
		}},
		{"PlainLink", func(s *scene) {
			s.try(os.Remove(s.own))
			s.try(os.Symlink(s.secretF, s.own))
		}},
		{"ControlLinks", func(s *scene) { // what the process writes to
			for _, dir := range []string{s.dir, s.secret} {
				s.try(os.Remove(record(dir)))
				s.try(os.Symlink(s.secretF, record(dir)))
			}
		}},
		{"ControlPipes", func(s *scene) {
			for _, dir := range []string{s.dir, s.secret, s.mine} {
				s.move(record(dir), filepath.Join(dir, "kmsfs.was"))
				s.try(unix.Mkfifo(record(dir), 0o666))
			}
		}},
		{"OldConfiguration", func(s *scene) {
			for path, content := range s.kept {
				if filepath.Base(path) == "kmsfs.volume" {
					s.try(os.Rename(path, path+".away"))
					s.try(os.WriteFile(path, content, 0o666))
					s.try(os.Remove(path))
					s.try(os.Rename(path+".away", path))
				}
			}
		}},
	}
}

func runHeists(t *testing.T, options ...string) {
	v := newVolume(t, options...)
	v.mount(t, "--allow-other")
	must(t, os.Chmod(v.point, 0o777))
	v.kmsfs(t, "grant", "create", "--key", "alias/kmsfs-default", "--grantee", fmt.Sprint("uid:", mallory), "--path", "/m", "--operations", "Decrypt,GenerateDataKey")
	hers := v.kmsKey(t, "alias/hers")
	v.kmsfs(t, "grant", "create", "--key", hers, "--grantee", fmt.Sprint("uid:", mallory), "--operations", "Decrypt,GenerateDataKey")
	all := heists()
	for _, h := range all {
		v.plantScene(t, h.name)
	}
	run(t, "/", "chown", "-R", fmt.Sprintf("%d:%d", mallory, mallory), v.path("m"))
	at := v.allSealed(t)
	scenes := make([]*scene, len(all))
	for i, h := range all {
		scenes[i] = v.setScene(t, h.name, at)
	}
	before := v.mismatches(t)
	for i, h := range all {
		t.Run(h.name, func(t *testing.T) {
			s := scenes[i]
			run(t, "/", "chmod", "-R", "a+rwX", v.dir)
			asUID(t, mallory, func() { h.do(s) })
			for _, err := range s.errs {
				if err != nil {
					t.Errorf("her preparations failed: %v", err)
				}
			}
			if !soon(t, "reading", func() { v.checkHeist(t, h.name) }) {
				v.kill(t)
				v.mount(t, "--allow-other")
			}
			if h.name == "ControlPipes" { // so that nothing else waits for her
				for _, dir := range []string{s.dir, s.secret, s.mine} {
					must(t, os.Rename(filepath.Join(dir, "kmsfs.was"), record(dir)))
				}
			}
		})
	}
	v.remount(t)
	for _, h := range all {
		t.Run("Remounted"+h.name, func(t *testing.T) { v.checkHeist(t, h.name) })
	}
	if v.mismatches(t) == before {
		t.Error("the audit log tells of no ContextMismatch")
	}
}

func (v *volume) plantScene(t *testing.T, name string) {
	t.Helper()
	secret, mine := v.path("secret", name), v.path("m", name)
	must(t, os.MkdirAll(filepath.Join(secret, "sub"), 0o777))
	must(t, os.MkdirAll(filepath.Join(mine, "dir"), 0o777))
	must(t, os.Mkdir(filepath.Join(mine, "slotdir"), 0o777))
	for _, file := range []string{"f", "g", "sub/deep"} {
		write(t, filepath.Join(secret, file), secretText(name, file))
	}
	for _, file := range []string{"own", "slot", "dir/in"} {
		write(t, filepath.Join(mine, file), ownText)
	}
	must(t, os.Symlink("f", filepath.Join(secret, "link")))
	must(t, os.Symlink(filepath.Join(mine, "dir", "in"), filepath.Join(mine, "link")))
}

// setScene finds the scene in the volume, and frees her slots.
func (v *volume) setScene(t *testing.T, name string, sealed func(path string) string) *scene {
	t.Helper()
	secret, mine := v.path("secret", name), v.path("m", name)
	at := func(elements ...string) string { return sealed(filepath.Join(elements...)) }
	s := &scene{
		secret: at("secret", name), secretF: at("secret", name, "f"), secretG: at("secret", name, "g"), sub: at("secret", name, "sub"),
		deep: at("secret", name, "sub", "deep"), link: at("secret", name, "link"),
		mine: at("m", name), own: at("m", name, "own"), dir: at("m", name, "dir"), in: at("m", name, "dir", "in"), myLink: at("m", name, "link"),
		slot: at("m", name, "slot"), slotDir: at("m", name, "slotdir"),
		kept: map[string][]byte{},
	}
	must(t, os.Remove(filepath.Join(mine, "slot")))
	must(t, os.Remove(filepath.Join(mine, "slotdir")))
	for _, path := range []string{filepath.Join(v.dir, "kmsfs.volume"), s.secretF, record(s.secret)} {
		content, err := os.ReadFile(path)
		must(t, err)
		s.kept[path] = content
	}
	// All of it is known to the kernel and the process, and none of it is open.
	for _, file := range []string{"f", "g", "sub/deep", "link"} {
		_, err := os.ReadFile(filepath.Join(secret, file))
		must(t, err)
	}
	return s
}

var ownText = bytes.Repeat([]byte("made up by mallory\n"), 500)

func secretText(name, file string) []byte {
	return bytes.Repeat([]byte("top secret: "+name+" "+file+"\n"), 500)
}

// checkHeist has her try to read, and to have what she did accepted, through the mount; and others read what is theirs.
func (v *volume) checkHeist(t *testing.T, name string) {
	t.Helper()
	mine, secret := v.path("m", name), v.path("secret", name)
	var loot []string
	look := func(when string) {
		_ = filepath.WalkDir(v.point, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() {
				if err == nil && path != v.point && path != v.path("m") && path != v.path("secret") && !strings.HasPrefix(path+"/", mine+"/") && !strings.HasPrefix(path+"/", secret+"/") {
					return fs.SkipDir
				}
				return nil
			}
			if content, _ := tryRead(path); bytes.Contains(content, []byte("secret")) {
				loot = append(loot, when+": "+path)
			}
			return nil
		})
		for _, path := range []string{"slot", "own", "slotdir/f", "slotdir/g", "slotdir/sub/deep", "slotdir/deep", "dir/f", "dir/g", "dir/sub/deep", "dir/deep", "moved/f", "moved/sub/deep", "moved"} {
			if content, _ := tryRead(filepath.Join(mine, path)); bytes.Contains(content, []byte("secret")) {
				loot = append(loot, when+": "+path)
			}
		}
	}
	var policy error
	asUID(t, mallory, func() {
		look("at first")
		for _, from := range []string{"slot", "slotdir", "own", "dir", "slotdir/sub"} {
			// What she did is made good by nothing that she may do.
			_ = unix.Setxattr(mine, rewrapAttribute, []byte(from), 0)
			if err := unix.Setxattr(mine, adoptAttribute, []byte(from), 0); err == nil {
				loot = append(loot, "adopted "+from)
			}
			at, to := filepath.Join(mine, from), filepath.Join(mine, "moved")
			_ = unix.Chmod(at, 0o777)
			_ = os.Link(at, to)
			look("linked " + from)
			_ = os.Remove(to)
			if unix.Rename(at, to) == nil {
				look("moved " + from)
				_ = unix.Rename(to, at)
				look("moved back " + from)
			}
			_ = unix.Renameat2(unix.AT_FDCWD, at, unix.AT_FDCWD, filepath.Join(mine, "own"), unix.RENAME_EXCHANGE)
			look("exchanged " + from)
		}
		policy = unix.Setxattr(secret, keyAttribute, []byte("alias/hers"), 0)
	})
	if len(loot) > 0 {
		t.Errorf("%s: she reads %q", name, loot)
	}
	if policy == nil {
		t.Errorf("%s: she has set a policy of a directory that isn't hers", name)
	}
	for _, file := range []string{"f", "g", "sub/deep", "link"} {
		content, err := tryReadFollow(filepath.Join(secret, file))
		if err == nil && !bytes.Equal(content, secretText(name, strings.Replace(file, "link", "f", 1))) {
			t.Errorf("%s: others read, as %s, what isn't genuine: %.40q", name, file, content)
		}
		if name == "None" && err != nil {
			t.Error(err)
		}
		if err != nil && !errors.Is(err, unix.EIO) && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ESTALE) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// tryReadFollow is tryRead, through a symlink.
func tryReadFollow(path string) ([]byte, error) {
	if target, err := os.Readlink(path); err == nil {
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = target
	}
	return tryRead(path)
}
