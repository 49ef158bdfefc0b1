package fs

import (
	"fmt"
	"runtime"
	"testing"
	"time"
)

// TestForgetOutOfOrder has the kernel forget a directory before what is in it, as its batches may
// be answered in any order, and look it up in between: it is the same directory for all that
// follows.
func TestForgetOutOfOrder(t *testing.T) {
	k := newKernel(t)
	old := k.mkdir(root, "a")
	child := k.mkdir(old, "child")
	k.Forget(old, 1)
	a := k.lookup(root, "a")
	k.Forget(child, 1)
	k.rename(root, "a", root, "b")
	k.chown(a, 1000)
	k.Forget(a, 1)
	b := k.lookup(root, "b")
	child = k.lookup(b, "child")
	k.mkdir(child, "below")
}

// TestUnusedInodesGo has inodes leave the table when nothing refers to them any more: those of a
// search through the volume, and those that the kernel has forgotten.
func TestUnusedInodesGo(t *testing.T) {
	k := newKernel(t)
	for i := range 200 {
		name := fmt.Sprint("dir", i)
		dir := k.mkdir(root, name)
		file := k.file(dir, "file")
		k.Forget(file, 1)
		k.Forget(dir, 1)
	}
	k.v.root.fresh = nil // they are durable
	r := &recovery{v: k.v, before: time.Now()}
	if !r.search(t.Context()) {
		t.Error("the search has left something out")
	}
	k.v.dirs.close() // no directory stays open
	for deadline := time.Now().Add(time.Minute); ; {
		runtime.GC()
		k.v.inodes.mu.Lock()
		left := len(k.v.inodes.known)
		k.v.inodes.mu.Unlock()
		if left < 20 { // the root, and what a goroutine's stack still holds
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d inodes are in the table", left)
		}
		runtime.Gosched()
	}
}

// TestDeepDirectories opens the lowest of many directories after all descriptors are closed.
func TestDeepDirectories(t *testing.T) {
	k := newKernel(t)
	const depth = 2000
	at := uint64(root)
	for range depth {
		at = k.mkdir(at, "d")
	}
	k.v.dirs.close()
	k.file(at, "file")
	k.v.dirs.close()
	k.lookup(at, "file")
}
