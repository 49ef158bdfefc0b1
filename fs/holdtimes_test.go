//go:build lockorder

package fs

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"kmsfs/fs/lock"
)

// TestHoldTimes reports the longest times that locks are held under a mixed load, with a key
// service that takes a second for an answer. No lock may be held that long.
func TestHoldTimes(t *testing.T) {
	k := newKernel(t)
	const answerTime = time.Second
	k.keys.setBefore(func(_ context.Context, _ string, _ map[string]string) error {
		time.Sleep(answerTime)
		return nil
	})
	var load sync.WaitGroup
	for i := range 8 {
		load.Go(func() { mixedLoad(k, uint64(i), 8) })
	}
	load.Wait()
	for _, h := range lock.Longest() {
		how := "reading"
		if h.Write {
			how = "writing"
		}
		t.Logf("%v\t%s for %s\t%s", h.Time, h.Lock, how, h.By)
		if h.Time >= answerTime {
			t.Error("that is as long as the key service takes for an answer")
		}
	}
}

// mixedLoad makes, opens, writes, stats, renames and gives away files in a directory of its own.
func mixedLoad(k *kernel, seed uint64, steps int) {
	random := rand.New(rand.NewPCG(seed, 1))
	dir := k.mkdir(root, fmt.Sprint("dir", seed))
	name := "file0"
	file := k.file(dir, name)
	for i := range steps {
		switch random.IntN(6) {
		case 0:
			next := fmt.Sprint("file", i+1)
			k.rename(dir, name, dir, next)
			name = next
		case 1:
			k.chown(file, uint32(1000+random.IntN(3)))
		case 2:
			k.file(dir, fmt.Sprint("other", i))
		case 3:
			k.mkdir(dir, fmt.Sprint("sub", i))
			k.stat(dir)
		default:
			handle := k.open(file)
			in := &fuse.WriteIn{InHeader: header(file), Fh: handle, Size: 4}
			if _, status := k.Writev(nil, in, [][]byte{[]byte("data")}); status != fuse.OK {
				k.t.Errorf("write: %v", status)
			}
			k.release(file, handle)
			k.lookup(dir, name)
		}
	}
}
