package envelope_test

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"kmsfs/envelope"
)

// TestReplacePathsAfterCrash ends the replacement of one long path by another at each of its changes, then that by a third in the same way:
// the header is always one of them.
func TestReplacePathsAfterCrash(t *testing.T) {
	for _, plaintextNames := range []bool{false, true} {
		v := newVolume(t, plaintextNames)
		paths := []string{strings.Repeat("/a", 700), strings.Repeat("/b", 700), strings.Repeat("/c", 700)}
		st, h := newDisk(), newHeader()
		h.Path = paths[0]
		if _, err := v.CreateFile(st, h, newKey(1), envelope.FileOptions{}); err != nil {
			t.Fatal(err)
		}
		// states are what the storage may hold after each of the changes that give it that path.
		states := func(st *disk, path string) (all []*disk) {
			t.Helper()
			for n := 0; ; n++ {
				m := st.clone()
				f := mustOpen(t, v, m, newKey(1), envelope.FileOptions{})
				m.fail(n+1, true)
				h := f.Header()
				h.Path, h.WrappedKey = path, bytes.Repeat([]byte(path[1:2]), 140)
				err := setHeader(f, h)
				all = append(all, m.clone())
				if err == nil {
					return all
				}
			}
		}
		for i, first := range states(st, paths[1]) {
			for j, second := range states(first, paths[2]) {
				f, err := open(v, second, newKey(1), envelope.FileOptions{})
				if err != nil {
					t.Errorf("plaintext names %v, after %d and %d changes: %v", plaintextNames, i, j, err)
				} else if !slices.Contains(paths, f.Header().Path) {
					t.Errorf("after %d and %d changes: path %.20q", i, j, f.Header().Path)
				}
			}
		}
	}
}
