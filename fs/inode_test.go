package fs

import "testing"

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
