package main_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const passphrase = "correct horse battery staple"

// volume has the program make a volume called vault, sealed with a passphrase, and a directory
// called clear.
func (p *program) volume() (volume, mountpoint string) {
	p.t.Helper()
	p.must("init", "--passphrase-file", p.write("passphrase", passphrase+"\n"), "vault")
	return p.path("vault"), p.mkdir("clear")
}

func TestInit(t *testing.T) {
	p := newProgram(t)
	p.must("init", "--passphrase-file", p.write("passphrase", passphrase), "vault")
	for _, name := range []string{"vault/kmsfs.volume", "vault/kmsfs.dir"} {
		if _, err := os.Stat(p.path(name)); err != nil {
			t.Error(err)
		}
	}
	info, err := os.Stat(p.path("home"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o700 {
		t.Errorf("home has mode %o, want 700", info.Mode().Perm())
	}
	// The home and its default key serve a second volume, made in an empty directory.
	p.mkdir("second")
	p.must("init", "--passphrase-file", "passphrase", "--plaintext-names", "second")
	first, second := keyOf(t, p.path("vault")), keyOf(t, p.path("second"))
	if first != second {
		t.Errorf("volumes under the keys %s and %s, want the same", first, second)
	}
}

// keyOf returns the part of a volume's configuration that names its KMS key.
func keyOf(t *testing.T, volume string) string {
	t.Helper()
	config, err := os.ReadFile(filepath.Join(volume, "kmsfs.volume"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(config), `"KeyARN":"`)
	key, _, _ := strings.Cut(rest, `"`)
	if !ok {
		t.Fatalf("no KeyARN in %s", config)
	}
	return key
}

func TestInitKeyFile(t *testing.T) {
	p := newProgram(t)
	p.must("init", "--key-file", "key", "vault")
	info, err := os.Stat(p.path("key"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("key file has mode %o, want 600", info.Mode().Perm())
	}
	// With the home there, a key file that isn't is no new one.
	p.run("init", "--key-file", "other", "second").wantError(t, 1, "other", "no such key file")
	if _, err := os.Stat(p.path("other")); err == nil {
		t.Error("made a key file for a home that has one")
	}
}

// TestFailures runs what must fail with one line that says what is wrong and what to do, and change
// nothing.
func TestFailures(t *testing.T) {
	for _, test := range []struct {
		name string
		// prepare returns the arguments that must fail.
		prepare func(p *program) []string
		want    []string
		// recorded says that the failure is one of those that the audit log records, in the home.
		recorded bool
	}{
		{name: "init in a directory that isn't empty", prepare: func(p *program) []string {
			p.mkdir("vault")
			p.write("vault/file", "content")
			return []string{"init", "--passphrase-file", p.write("passphrase", passphrase), "vault"}
		}, want: []string{"vault", "not empty", "empty directory"}},
		{name: "init in a directory that isn't empty, with a new key file", prepare: func(p *program) []string {
			p.mkdir("vault")
			p.write("vault/file", "content")
			return []string{"init", "--key-file", "key", "vault"}
		}, want: []string{"vault", "not empty"}},
		{name: "init of a volume", prepare: func(p *program) []string {
			volume, _ := p.volume()
			return []string{"init", "--passphrase-file", "passphrase", volume}
		}, want: []string{"vault", "not empty"}},
		{name: "init in a directory that isn't there", prepare: func(p *program) []string {
			return []string{"init", "--passphrase-file", p.write("passphrase", passphrase), "none/vault"}
		}, want: []string{"none", "no such directory", "mkdir"}},
		{name: "init around the home", prepare: func(p *program) []string {
			return []string{"init", "--passphrase-file", p.write("passphrase", passphrase), "--home", "vault/home", "vault"}
		}, want: []string{"vault", "home"}},
		{name: "init with a key that isn't there, and a new home", prepare: func(p *program) []string {
			return []string{"init", "--passphrase-file", p.write("passphrase", passphrase), "--key", "alias/none", "vault"}
		}, want: []string{"alias/none", "--key"}},
		{name: "init with a key that isn't there, a new home and a new key file", prepare: func(p *program) []string {
			return []string{"init", "--key-file", "key", "--key", "alias/none", "vault"}
		}, want: []string{"alias/none", "--key"}},
		{name: "init with a key that isn't there", prepare: func(p *program) []string {
			p.volume()
			return []string{"init", "--passphrase-file", "passphrase", "--key", "alias/none", "second"}
		}, want: []string{"alias/none", "--key"}, recorded: true},
		{name: "init without a passphrase", prepare: func(p *program) []string {
			return []string{"init", "vault"}
		}, want: []string{"passphrase", "--passphrase-file"}},
		{name: "init with an empty passphrase", prepare: func(p *program) []string {
			return []string{"init", "--passphrase-file", p.write("passphrase", "\n"), "vault"}
		}, want: []string{"passphrase", "empty"}},
		{name: "init without the passphrase file", prepare: func(p *program) []string {
			return []string{"init", "--passphrase-file", "passphrase", "vault"}
		}, want: []string{"passphrase", "no such file"}},
		{name: "wrong passphrase", prepare: func(p *program) []string {
			volume, mountpoint := p.volume()
			return []string{"mount", "--passphrase-file", p.write("wrong", "wrong"), volume, mountpoint}
		}, want: []string{"passphrase", "--home"}},
		{name: "wrong passphrase in the foreground", prepare: func(p *program) []string {
			volume, mountpoint := p.volume()
			return []string{"mount", "--foreground", "--passphrase-file", p.write("wrong", "wrong"), volume, mountpoint}
		}, want: []string{"passphrase", "--home"}},
		{name: "wrong key file", prepare: func(p *program) []string {
			p.must("init", "--key-file", "key", "vault")
			p.must("init", "--home", "other", "--key-file", "wrong", "other-vault")
			p.mkdir("clear")
			return []string{"mount", "--key-file", "wrong", "vault", "clear"}
		}, want: []string{"key file", "--home"}},
		{name: "a key file for a passphrase", prepare: func(p *program) []string {
			volume, mountpoint := p.volume()
			p.must("init", "--home", "other", "--key-file", "key", "other-vault")
			return []string{"mount", "--key-file", "key", volume, mountpoint}
		}, want: []string{"passphrase"}},
		{name: "no key file", prepare: func(p *program) []string {
			p.must("init", "--key-file", "key", "vault")
			p.mkdir("clear")
			return []string{"mount", "vault", "clear"}
		}, want: []string{"--key-file"}},
		{name: "no passphrase", prepare: func(p *program) []string {
			volume, mountpoint := p.volume()
			return []string{"mount", volume, mountpoint}
		}, want: []string{"--passphrase-file"}},
		{name: "missing home", prepare: func(p *program) []string {
			volume, mountpoint := p.volume()
			return []string{"mount", "--home", "none", "--passphrase-file", "passphrase", volume, mountpoint}
		}, want: []string{"none", "kmsfs init", "--home"}},
		{name: "foreign home, which misses the key", prepare: func(p *program) []string {
			volume, mountpoint := p.volume()
			p.must("init", "--home", "other", "--passphrase-file", "passphrase", "other-vault")
			return []string{"mount", "--home", "other", "--passphrase-file", "passphrase", volume, mountpoint}
		}, want: []string{"key", "--home"}, recorded: true},
		{name: "damaged home", prepare: func(p *program) []string {
			volume, mountpoint := p.volume()
			damage(p, "home")
			return []string{"mount", "--passphrase-file", "passphrase", volume, mountpoint}
		}, want: []string{"home", "backup"}},
		{name: "damaged configuration", prepare: func(p *program) []string {
			volume, mountpoint := p.volume()
			config, err := os.ReadFile(p.path("vault/kmsfs.volume"))
			if err != nil {
				p.t.Fatal(err)
			}
			config = bytes.Replace(config, []byte(`"PlaintextNames":false`), []byte(`"PlaintextNames":true`), 1)
			p.write("vault/kmsfs.volume", string(config))
			return []string{"mount", "--passphrase-file", "passphrase", volume, mountpoint}
		}, want: []string{"kmsfs.volume", "backup"}, recorded: true},
		{name: "garbage for a configuration", prepare: func(p *program) []string {
			volume, mountpoint := p.volume()
			p.write("vault/kmsfs.volume", "garbage")
			return []string{"mount", "--passphrase-file", "passphrase", volume, mountpoint}
		}, want: []string{"kmsfs.volume", "backup"}, recorded: true},
		{name: "no volume", prepare: func(p *program) []string {
			_, mountpoint := p.volume()
			return []string{"mount", "--passphrase-file", "passphrase", p.mkdir("plain"), mountpoint}
		}, want: []string{"plain", "kmsfs init"}},
		{name: "volume that isn't there", prepare: func(p *program) []string {
			_, mountpoint := p.volume()
			return []string{"mount", "--passphrase-file", "passphrase", "none", mountpoint}
		}, want: []string{"none", "no such volume", "kmsfs init"}},
		{name: "mountpoint that isn't there", prepare: func(p *program) []string {
			volume, _ := p.volume()
			return []string{"mount", "--passphrase-file", "passphrase", volume, "none"}
		}, want: []string{"none", "no such directory", "mkdir"}},
		{name: "mountpoint that isn't empty", prepare: func(p *program) []string {
			volume, mountpoint := p.volume()
			p.write("clear/file", "content")
			return []string{"mount", "--passphrase-file", "passphrase", volume, mountpoint}
		}, want: []string{"clear", "not empty", "empty directory"}, recorded: true},
		{name: "mountpoint in the volume", prepare: func(p *program) []string {
			volume, _ := p.volume()
			return []string{"mount", "--passphrase-file", "passphrase", volume, p.mkdir("vault/clear")}
		}, want: []string{"clear", "inside the volume"}},
		{name: "umount of a directory", prepare: func(p *program) []string {
			return []string{"umount", p.mkdir("clear")}
		}, want: []string{"clear", "not a mountpoint", "findmnt"}},
		{name: "inspect outside", prepare: func(p *program) []string {
			p.volume()
			return []string{"inspect", "--passphrase-file", "passphrase", "clear"}
		}, want: []string{"clear", "mountpoint"}},
		{name: "inspect nothing", prepare: func(p *program) []string {
			return []string{"inspect", "none"}
		}, want: []string{"none", "no such file or directory"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			p := newProgram(t)
			args := test.prepare(p)
			before := p.state(test.recorded)
			p.run(args...).wantError(t, 1, test.want...)
			if after := p.state(test.recorded); after != before {
				t.Errorf("changed something: before\n%.2000s\nafter\n%.2000s", before, after)
			}
		})
	}
}

// state describes all that the program has made, but for the homes if they may have recorded
// something.
func (p *program) state(recorded bool) string {
	var kept []string
	for line := range strings.Lines(snapshot(p.t, p.dir)) {
		in := func(home string) bool { return strings.HasPrefix(line, p.path(home)+"/") }
		if !recorded || !in("home") && !in("other") {
			kept = append(kept, line)
		}
	}
	return strings.Join(kept, "")
}

// damage overwrites all files beneath the directory with the same number of other bytes.
func damage(p *program, dir string) {
	p.t.Helper()
	paths, err := filepath.Glob(filepath.Join(p.path(dir), "*"))
	if err != nil || len(paths) == 0 {
		p.t.Fatalf("nothing in %s: %v", dir, err)
	}
	for _, path := range paths {
		info, err := os.Lstat(path)
		if err != nil {
			p.t.Fatal(err)
		}
		if !info.Mode().IsRegular() {
			continue
		}
		if err := os.WriteFile(path, bytes.Repeat([]byte("?"), int(info.Size())), 0o600); err != nil {
			p.t.Fatal(err)
		}
	}
}

// requireFUSE fails a test that mounts where that can't be done.
func requireFUSE(t *testing.T) {
	t.Helper()
	if err := unix.Access("/dev/fuse", unix.R_OK|unix.W_OK); err != nil {
		t.Fatalf("/dev/fuse: %v", err)
	}
}

func TestMountpointInUse(t *testing.T) {
	requireFUSE(t)
	p := newProgram(t)
	volume, mountpoint := p.volume()
	p.must("mount", "--passphrase-file", "passphrase", volume, mountpoint)
	t.Cleanup(func() { p.must("umount", mountpoint) })
	// No secret is needed any more: the home is served.
	p.must("init", "second")
	p.run("mount", "second", mountpoint).wantError(t, 1, "clear", "unmount what is there")
	p.run("mount", volume, p.mkdir("other")).wantError(t, 1, "vault", "unmount it there first")
	p.write("clear/open", "")
	f, err := os.Open(p.path("clear/open"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p.run("umount", mountpoint).wantError(t, 1, "clear", "fuser")
}

// TestNoFusermount takes fusermount3 away from a user who isn't root, in a mount namespace of its
// own.
func TestNoFusermount(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make a mount namespace")
	}
	for _, tool := range []string{"unshare", "setpriv", "fusermount3"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(err)
		}
	}
	requireFUSE(t)
	p := newProgram(t)
	for dir := p.dir; dir != os.TempDir(); dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const nobody = 65534
	if err := os.Chown(p.dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(p.write("passphrase", passphrase), nobody, nobody); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(p.mkdir("clear"), nobody, nobody); err != nil {
		t.Fatal(err)
	}
	p.user = &syscall.Credential{Uid: nobody, Gid: nobody}
	p.must("init", "--passphrase-file", "passphrase", "vault")
	p.user = nil

	script := `set -e
		for tool in $(which -a fusermount3 fusermount | xargs -n1 readlink -f | sort -u); do mount --bind /dev/null $tool; done
		exec setpriv --reuid 65534 --regid 65534 --clear-groups "$@"`
	p.finish(exec.Command("unshare", "--mount", "sh", "-c", script, "sh",
		binary, "mount", "--passphrase-file", "passphrase", "vault", "clear")).wantError(t, 1, "fusermount3", "fuse3")
}
