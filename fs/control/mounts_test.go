package control

import (
	"os"
	"path/filepath"
	"testing"
)

func TestParseMount(t *testing.T) {
	for _, test := range []struct {
		line string
		want Mount
	}{
		{
			`36 35 0:50 / /srv/clear rw,noatime shared:1 master:2 - fuse.kmsfs /srv/vault rw,user_id=0`,
			Mount{ID: 36, Path: "/srv/clear", FSType: "fuse.kmsfs", Source: "/srv/vault"},
		},
		{
			`1 0 0:1 / /a\040b\011c\134d rw - fuse.kmsfs /x\134040 rw`,
			Mount{ID: 1, Path: "/a b\tc\\d", FSType: "fuse.kmsfs", Source: `/x\040`},
		},
		{`1 0 0:1 / / rw - overlay  rw`, Mount{ID: 1, Path: "/", FSType: "overlay"}},
	} {
		if got, err := parseMount(test.line); got != test.want || err != nil {
			t.Errorf("%s: got %+v, %v, want %+v", test.line, got, err, test.want)
		}
	}
	for _, line := range []string{"", "1 0 0:1 / / rw", "x 0 0:1 / / rw - a b c", "1 - a b c", `1 0 0:1 / / rw - `} {
		if got, err := parseMount(line); err == nil {
			t.Errorf("%q: got %+v, want an error", line, got)
		}
	}
	if _, err := Mounts(); err != nil {
		t.Error(err)
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{``: "", `\`: `\`, `\04`: `\04`, `\999`: `\999`, `\777`: `\777`, `a\012`: "a\n"} {
		if got := unescape(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestWithin(t *testing.T) {
	for _, test := range []struct {
		dir, path string
		want      bool
	}{{"/a", "/a", true}, {"/a", "/a/b", true}, {"/a", "/ab", false}, {"/", "/a", true}, {"/a/b", "/a", false}} {
		if got := Within(test.dir, test.path); got != test.want {
			t.Errorf("Within(%q, %q) is %v", test.dir, test.path, got)
		}
	}
}

func TestResolve(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for link, target := range map[string]string{"link": "there", "dangling": "gone"} {
		if err := os.Symlink(target, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "there"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		path   string
		follow bool
		want   string // empty: an error
	}{
		{"there", true, "there"},
		{"link", true, "there"},
		{"link", false, "link"},
		{"link/new", true, "there/new"},
		{"new", true, "new"},
		{"new/newer", true, "new/newer"},
		{"dangling", true, ""},
		{"dangling", false, "dangling"},
	} {
		got, err := Resolve(filepath.Join(dir, test.path), test.follow)
		if want := filepath.Join(dir, test.want); test.want == "" && err == nil || test.want != "" && (got != want || err != nil) {
			t.Errorf("%s, %v: got %q, %v, want %q", test.path, test.follow, got, err, test.want)
		}
	}
	if got, err := Resolve("/", false); got != "/" || err != nil {
		t.Errorf("/: got %q, %v", got, err)
	}
}
