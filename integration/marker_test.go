package integration

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMarkerReplayed puts the dirty marker of an earlier mount back into a volume that was unmounted
// cleanly: nothing is tolerated because of it.
func TestMarkerReplayed(t *testing.T) {
	t.Parallel()
	if plain {
		t.Log("there is no ciphertext")
		return
	}
	for name, later := range map[string]func(t *testing.T, v *volume){
		"AfterCleanEnd": func(t *testing.T, v *volume) { v.umount(t) },
		"AfterKillAndRepair": func(t *testing.T, v *volume) {
			v.kill(t)
			v.mount(t)
			v.awaitRecovery(t)
			v.umount(t)
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := mounted(t)
			for _, name := range []string{"cut", "emptied", "a", "b", "whole"} {
				write(t, v.path(name), noise(uint64(500+len(name)), 20000))
			}
			write(t, v.path("b"), noise(510, 20000))
			marker, err := os.ReadFile(filepath.Join(v.dir, "kmsfs.mark"))
			must(t, err)
			forger := v.forger(t)
			at := map[string]string{}
			for _, name := range []string{"cut", "emptied", "a", "b"} {
				at[name] = forger.find(v.dir, name)
			}
			later(t, v)
			must(t, os.Truncate(at["cut"], 3*page))
			must(t, os.Truncate(at["emptied"], header))
			must(t, unix.Renameat2(unix.AT_FDCWD, at["a"], unix.AT_FDCWD, at["b"], unix.RENAME_EXCHANGE))
			overwrite(t, filepath.Join(v.dir, "kmsfs.mark"), marker)

			if _, summary := v.fsck(t, 1, "--read-data"); summary.UncleanEnd || summary.Faults != 4 {
				t.Errorf("fsck: %+v, want four faults and no unclean end", summary)
			}
			v.mount(t)
			for _, name := range []string{"cut", "emptied", "a", "b"} {
				if _, err := tryRead(v.path(name)); !errors.Is(err, unix.EIO) {
					t.Errorf("%s: %v, want EIO", name, err)
				}
			}
			wantContent(t, v.path("whole"), noise(505, 20000))
			forged := 0
			for _, r := range v.audit(t) {
				if r.EventName == "ForgedMarker" {
					forged++
				}
			}
			if forged < 2 {
				t.Errorf("the audit log has %d events of a forged marker, want one each of fsck and mount", forged)
			}
			v.umount(t) // which leaves no marker
			overwrite(t, filepath.Join(v.dir, "kmsfs.mark"), marker)
			v.fsck(t, 0, "--read-data", "--repair")
			v.mount(t)
			for _, name := range []string{"cut", "emptied", "a", "b"} {
				wantGone(t, v.path(name))
			}
			wantContent(t, v.path("whole"), noise(505, 20000))
		})
	}
}

// TestMarkerRemoved removes the marker that an unclean end has left: the key service knows of the end.
func TestMarkerRemoved(t *testing.T) {
	t.Parallel()
	if plain {
		t.Log("there is no ciphertext")
		return
	}
	v := mounted(t)
	content := noise(520, 20000)
	write(t, v.path("file"), content)
	run(t, "/", "sync", "-f", v.point)
	path := v.forger(t).find(v.dir, "file")
	for range 2 { // the second time the marker is the same mount's or a later one's
		v.kill(t)
		must(t, os.Remove(filepath.Join(v.dir, "kmsfs.mark")))
		must(t, os.Truncate(path, 3*page))
		v.mount(t)
		v.awaitRecovery(t)
		wantContent(t, v.path("file"), content[:3044+2*4068])
	}
}
