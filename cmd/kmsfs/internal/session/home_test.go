package session

import (
	"os"
	"path/filepath"
	"testing"
)

func TestHomeDir(t *testing.T) {
	t.Chdir(t.TempDir())
	working, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", "/home/alice")
	user := func(dir string) string { // root's is always the same
		if os.Geteuid() == 0 {
			return "/var/lib/kmsfs"
		}
		return dir
	}
	for _, test := range []struct{ named, env, data, want string }{
		{"", "", "", user("/home/alice/.local/share/kmsfs")},
		{"", "", "/data", user("/data/kmsfs")},
		{"", "", "relative", user("/home/alice/.local/share/kmsfs")},
		{"", "/env", "/data", "/env"},
		{"/named", "/env", "/data", "/named"},
		{"named", "", "", filepath.Join(working, "named")},
	} {
		t.Setenv("KMSFS_HOME", test.env)
		t.Setenv("XDG_DATA_HOME", test.data)
		if got, err := HomeDir(test.named); got != test.want || err != nil {
			t.Errorf("%+v: got %q, %v", test, got, err)
		}
	}
}
