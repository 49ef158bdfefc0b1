package control_test

import (
	"context"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"kmsfs/fs/control"
)

// mount is a stand-in for a mount of kmsfs: a directory passed through, which notes the orders it
// gets.
type mount struct {
	path string
	mu   sync.Mutex
	// orders are "attribute path", relative to the mountpoint; values has those of the root's
	// attributes.
	orders []string
	values map[string]string
	// answers are the error numbers for entries, by name.
	answers map[string]syscall.Errno
}

type node struct {
	*gofs.LoopbackNode
	m *mount
}

// WrapChild makes the nodes beneath of the same kind.
func (n *node) WrapChild(_ context.Context, child gofs.InodeEmbedder) gofs.InodeEmbedder {
	return &node{child.(*gofs.LoopbackNode), n.m}
}

func (n *node) note(name string, value []byte) syscall.Errno {
	n.m.mu.Lock()
	defer n.m.mu.Unlock()
	below := filepath.Join("/", n.Path(n.Root()))
	if name == control.Rewrap || name == control.Adopt {
		n.m.orders = append(n.m.orders, strings.TrimPrefix(name, control.Prefix)+" "+filepath.Join(below, string(value)))
	} else if value == nil {
		delete(n.m.values, name)
	} else {
		n.m.values[name] = string(value)
	}
	return n.m.answers[string(value)]
}

func (n *node) Setxattr(_ context.Context, name string, value []byte, _ uint32) syscall.Errno {
	return n.note(name, append([]byte{}, value...))
}

func (n *node) Removexattr(_ context.Context, name string) syscall.Errno { return n.note(name, nil) }

func (n *node) Getxattr(_ context.Context, name string, dest []byte) (uint32, syscall.Errno) {
	n.m.mu.Lock()
	defer n.m.mu.Unlock()
	value, ok := n.m.values[name]
	if !ok {
		return 0, unix.ENODATA
	}
	return uint32(copy(dest, value)), 0
}

// newMount mounts a tree of files; names that end in a slash are directories.
func newMount(t *testing.T, names ...string) *mount {
	t.Helper()
	dir := t.TempDir()
	source := filepath.Join(dir, "source")
	m := &mount{path: filepath.Join(dir, "mount"), values: map[string]string{}, answers: map[string]syscall.Errno{}}
	for _, path := range []string{source, m.path} {
		must(t, os.Mkdir(path, 0o755))
	}
	for _, name := range names {
		if strings.HasSuffix(name, "/") {
			must(t, os.Mkdir(filepath.Join(source, name), 0o755))
			continue
		}
		must(t, os.WriteFile(filepath.Join(source, name), nil, 0o644))
	}
	root, err := gofs.NewLoopbackRoot(source)
	must(t, err)
	top := &node{root.(*gofs.LoopbackNode), m}
	server, err := gofs.Mount(m.path, top, &gofs.Options{MountOptions: fuse.MountOptions{
		FsName: source, Name: "kmsfs", DirectMount: true,
	}})
	must(t, err)
	t.Cleanup(func() { must(t, server.Unmount()) })
	return m
}

// told returns the orders so far.
func (m *mount) told() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.orders)
}

// attributes returns the root's attributes.
func (m *mount) attributes() map[string]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.values)
}

// answer has the mount answer orders for a value with an error number.
func (m *mount) answer(value string, number syscall.Errno) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.answers[value] = number
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// run runs a walk from paths relative to the mountpoint. It returns what was reported: paths, with
// the error after them.
func (m *mount) run(t *testing.T, w *control.Walk, paths ...string) (reported []string, err error) {
	t.Helper()
	w.Report = func(path string, err error) {
		line := strings.TrimPrefix(path, m.path)
		if err != nil {
			line += ": " + err.Error()
		}
		reported = append(reported, line)
	}
	for i := range paths {
		paths[i] = filepath.Join(m.path, paths[i])
	}
	err = w.Run(paths)
	slices.Sort(reported)
	return reported, err
}

func equal(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func TestWalkRecursive(t *testing.T) {
	m := newMount(t, "a/", "a/b/", "a/one", "a/b/two", "three")
	must(t, os.Link(filepath.Join(m.path, "three"), filepath.Join(m.path, "a/link")))
	must(t, os.Symlink("one", filepath.Join(m.path, "a/symlink")))
	w := &control.Walk{Attribute: control.Rewrap, Recursive: true, Volume: true}
	counted := 0
	w.Count([]string{m.path}, func() { counted++ })
	if counted != 4 { // a link counts like a file
		t.Errorf("counted %d, want 4", counted)
	}
	reported, err := m.run(t, w, "/")
	must(t, err)
	linked := slices.IndexFunc(reported, func(path string) bool { return path == "/three" || path == "/a/link" })
	equal(t, "reported", slices.Delete(slices.Clone(reported), linked, linked+1), "/a/b/two", "/a/one")
	orders := m.told()
	if last := orders[len(orders)-1]; last != "rewrap /" {
		t.Errorf("the last order is %q, want the volume's", last)
	}
	equal(t, "orders", orders, "rewrap /", "rewrap /a/b/two", "rewrap /a/one", "rewrap "+reported[linked])
}

func TestWalkDirectories(t *testing.T) {
	m := newMount(t, "a/", "a/b/", "a/b/two", "other/", "other/file")
	reported, err := m.run(t, &control.Walk{Attribute: control.Adopt, Recursive: true, Directories: true}, "a")
	must(t, err)
	equal(t, "reported", reported, "/a", "/a/b", "/a/b/two")
	if got := strings.Join(m.told(), ", "); got != "adopt /a, adopt /a/b, adopt /a/b/two" {
		t.Errorf("orders: %s", got)
	}
}

// An entry that fails is reported. The walk goes on, but not into a directory that was not done,
// and it leaves the volume alone.
func TestWalkFailures(t *testing.T) {
	m := newMount(t, "bad/", "bad/file", "denied", "fine")
	m.answer("bad", unix.EPERM)
	m.answer("denied", unix.EACCES)
	reported, err := m.run(t, &control.Walk{Attribute: control.Adopt, Recursive: true, Directories: true, Volume: true}, "/")
	must(t, err)
	equal(t, "reported", reported, "/bad: "+control.ErrNotAdministrator.Error(), "/denied: "+control.ErrKeyDenied.Error(), "/fine")
	if slices.Contains(m.told(), "adopt /") {
		t.Error("the volume was done though something failed")
	}
}

func TestWalkNamed(t *testing.T) {
	m := newMount(t, "a/", "a/file")
	reported, err := m.run(t, &control.Walk{Attribute: control.Rewrap}, "a/file")
	must(t, err)
	equal(t, "reported", reported, "/a/file")
	for _, test := range []struct {
		walk *control.Walk
		path string
		want error
	}{
		{&control.Walk{Attribute: control.Rewrap}, "a", control.ErrIsDirectory},
		{&control.Walk{Attribute: control.Rewrap}, "none", unix.ENOENT},
		{&control.Walk{Attribute: control.Rewrap}, "..", control.ErrNotMounted},
		{&control.Walk{Attribute: control.Adopt, Directories: true}, "/", control.ErrIsDirectory},
	} {
		if _, err := m.run(t, test.walk, test.path); !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", test.path, err, test.want)
		}
	}
}

// A walk stays on the mount: something else that is mounted beneath is not gone through.
func TestWalkStaysOnMount(t *testing.T) {
	m := newMount(t, "here/", "here/there/", "here/file")
	outside := t.TempDir()
	must(t, os.WriteFile(filepath.Join(outside, "outside"), nil, 0o644))
	there := filepath.Join(m.path, "here/there")
	must(t, unix.Mount(outside, there, "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, unix.Unmount(there, unix.MNT_DETACH)) })
	reported, err := m.run(t, &control.Walk{Attribute: control.Rewrap, Recursive: true}, "here")
	must(t, err)
	equal(t, "reported", reported, "/here/file")
}

func TestDirectory(t *testing.T) {
	m := newMount(t, "a/")
	dir, err := control.Open(m.path)
	must(t, err)
	defer dir.Close()
	if got, err := dir.Get(control.Key); got != "" || err != nil {
		t.Errorf("before: %q, %v", got, err)
	}
	must(t, dir.Set(control.Key, "alias/finance"))
	must(t, dir.Set(control.Locked, control.Yes))
	if want := map[string]string{control.Key: "alias/finance", control.Locked: control.Yes}; !maps.Equal(m.attributes(), want) {
		t.Errorf("attributes: %q, want %q", m.attributes(), want)
	}
	if got, err := dir.Get(control.Key); got != "alias/finance" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if !control.IsLocked(m.path) {
		t.Error("not seen to be locked")
	}
	must(t, dir.Remove(control.Locked))
	if control.IsLocked(m.path) {
		t.Error("still seen to be locked")
	}
	for value, number := range map[string]syscall.Errno{"x": unix.EACCES, "y": unix.EPERM, "z": unix.EROFS, "io": unix.EIO} {
		m.answer(value, number)
	}
	for _, test := range []struct {
		attribute, value string
		want             error
	}{
		{control.Key, "x", control.ErrKeyDenied},
		{control.Key, "y", control.ErrNotOwner},
		{control.Locked, "y", control.ErrNotAdministrator},
		{control.Key, "z", control.ErrReadOnly},
		{control.Key, "io", unix.EIO},
	} {
		err := dir.Set(test.attribute, test.value)
		if !errors.Is(err, test.want) || !strings.HasPrefix(err.Error(), m.path+": ") {
			t.Errorf("%s=%s: got %v, want %v", test.attribute, test.value, err, test.want)
		}
	}
}

func TestFind(t *testing.T) {
	m := newMount(t, "a/")
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(m.path, link))
	path, found, ok, err := control.Find(link)
	if path != m.path || !ok || err != nil || found.Source != filepath.Join(filepath.Dir(m.path), "source") {
		t.Errorf("got %q, %+v, %v, %v", path, found, ok, err)
	}
	if path, _, ok, err := control.Find(filepath.Join(link, "a")); ok || err != nil || path != filepath.Join(m.path, "a") {
		t.Errorf("beneath it: %q, %v, %v", path, ok, err)
	}
	if above, ok, err := control.Above(filepath.Join(m.path, "a")); !ok || err != nil || above.Path != m.path {
		t.Errorf("above: %+v, %v, %v", above, ok, err)
	}
	if _, ok, err := control.Above(filepath.Dir(m.path)); ok || err != nil {
		t.Errorf("beside it: %v, %v", ok, err)
	}
	own, err := control.KmsfsMounts()
	must(t, err)
	if !slices.ContainsFunc(own, func(each control.Mount) bool { return each.Path == m.path }) {
		t.Errorf("not among %+v", own)
	}
}
