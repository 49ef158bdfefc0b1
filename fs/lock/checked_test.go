//go:build lockorder

package lock_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kmsfs/fs/lock"
)

// violations runs do and returns what it was found to do.
func violations(t *testing.T, do func()) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "order")
	t.Setenv(lock.Variable, path)
	do()
	text, err := os.ReadFile(fmt.Sprintf("%s.%d", path, os.Getpid()))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return string(text)
}

func TestOrder(t *testing.T) {
	var names lock.RWMutex[lock.Names]
	var file lock.Mutex[lock.OpenFile]
	var leaf, otherLeaf lock.Mutex[lock.Links]
	inOrder := func() {
		names.RLock()
		file.Lock()
		leaf.Lock()
		leaf.Unlock()
		otherLeaf.Lock()
		otherLeaf.Unlock()
		file.Unlock()
		names.RUnlock()
		lock.AssertNone("the key service")
	}
	if got := violations(t, inOrder); got != "" {
		t.Errorf("locks taken in order: %s", got)
	}
	for want, do := range map[string]func(){
		"names is taken while open file is held": func() {
			file.Lock()
			defer file.Unlock()
			names.RLock()
			defer names.RUnlock()
		},
		"links is taken while links is held": func() {
			leaf.Lock()
			defer leaf.Unlock()
			otherLeaf.Lock()
			defer otherLeaf.Unlock()
		},
		"the key service is waited for while names is held": func() {
			names.Lock()
			defer names.Unlock()
			lock.AssertNone("the key service")
		},
	} {
		if got := violations(t, do); !strings.Contains(got, want) {
			t.Errorf("got %q, want it to say %q", got, want)
		}
	}
}
