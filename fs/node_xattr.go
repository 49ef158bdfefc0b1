package fs

import (
	"context"
	"errors"
	"strings"
	"syscall"

	gofs "github.com/hanwen/go-fuse/v2/fs"
	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/control"
	disk "kmsfs/fs/volume"
	"kmsfs/fs/volume/backing"
)

var (
	_ gofs.NodeGetxattrer    = (*node)(nil)
	_ gofs.NodeSetxattrer    = (*node)(nil)
	_ gofs.NodeRemovexattrer = (*node)(nil)
	_ gofs.NodeListxattrer   = (*node)(nil)
)

const accessACL = "system.posix_acl_access"

// attribute is an extended attribute as the volume has it.
type attribute struct {
	at     attributePath
	object [envelope.IDSize]byte
	name   string // as users see it
	stored string // as the volume has it
}

// attributes are an inode's extended attributes.
type attributes struct {
	*operation
	in *inode
}

// with resolves the attribute name of an inode and calls do. ACLs are the backing inode's
// own; all others are sealed.
func (t attributes) with(name string, do func(a attribute, sealed bool) error) error {
	return t.run(resolving, func() error {
		a, sealed := attribute{name: name, stored: name}, name != accessACL && name != disk.DefaultACL
		if sealed {
			if err := t.sealName(&a); err != nil {
				return err
			}
		}
		target, err := t.target(t.in)
		if err != nil {
			return err
		}
		defer target.release()
		a.at = target.attributePath()
		return do(a, sealed)
	})
}

// sealName finds out the attribute's name in the volume.
func (t attributes) sealName(a *attribute) (err error) {
	if !mayHave(a.name) {
		return unix.EOPNOTSUPP
	}
	if a.object, err = t.object(); err != nil {
		return err
	}
	a.stored, err = t.sealed.SealAttributeName(a.object, a.name)
	if errors.Is(err, envelope.ErrTooLong) {
		return unix.ERANGE
	}
	return err
}

// mayHave says whether an attribute lies in one of the namespaces that Linux has for users
// (xattr(7)), and isn't reserved.
func mayHave(name string) bool {
	for _, namespace := range []string{"user.", "trusted.", "security."} {
		if strings.HasPrefix(name, namespace) && len(name) > len(namespace) {
			return !strings.HasPrefix(name, control.Prefix)
		}
	}
	return false
}

// attributePath leads to a backing inode, for system calls that take no descriptor open with
// O_PATH.
type attributePath struct {
	path string
	// follow says that the path is that of a descriptor, which only is reached by following it.
	follow bool
}

func (t target) attributePath() attributePath {
	if t.fd >= 0 {
		return attributePath{procPath(t.fd), true}
	}
	return attributePath{t.entry.procPath(), false}
}

func (p attributePath) get(name string, value []byte) (int, error) {
	if p.follow {
		return unix.Getxattr(p.path, name, value)
	}
	return unix.Lgetxattr(p.path, name, value)
}

func (p attributePath) set(name string, value []byte, flags int) error {
	if p.follow {
		return unix.Setxattr(p.path, name, value, flags)
	}
	return unix.Lsetxattr(p.path, name, value, flags)
}

func (p attributePath) remove(name string) error {
	if p.follow {
		return unix.Removexattr(p.path, name)
	}
	return unix.Lremovexattr(p.path, name)
}

func (p attributePath) list(names []byte) (int, error) {
	if p.follow {
		return unix.Listxattr(p.path, names)
	}
	return unix.Llistxattr(p.path, names)
}

// object returns the ID that an inode's attributes are sealed with. The caller holds volume.tree.
func (t attributes) object() (id [envelope.IDSize]byte, err error) {
	switch t.in.kind {
	case unix.S_IFDIR:
		dir, err := t.pin(t.in)
		if err != nil {
			return id, err
		}
		defer dir.release()
		return dir.id(), nil
	case unix.S_IFREG:
		known := t.in.object.Load()
		if known == nil || t.shared() { // the number may be another file's by now
			h, err := t.readHeader(t.in)
			if err != nil {
				return id, err
			}
			known = &h.FileID // where it is wrong, no attribute opens
			t.in.object.Store(known)
		}
		return *known, nil
	}
	return id, unix.EOPNOTSUPP
}

// readHeader reads a file's header, which needs no data key. Unless the file is open, the header is
// not authentic. The caller holds volume.tree.
func (o *operation) readHeader(in *inode) (*envelope.Header, error) {
	t, err := o.target(in)
	if err != nil {
		return nil, err
	}
	defer t.release()
	if t.file != nil && !o.shared() {
		h := t.file.unsealed().Header()
		return &h, nil
	}
	fd := t.fd
	if fd < 0 {
		fd, err = unix.Openat(t.entry.fd, t.entry.name(), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		defer unix.Close(fd)
	}
	h, err := o.sealed.ReadHeader(disk.NewStorage(backing.FromDescriptor(fd)), false)
	if err != nil {
		return nil, err
	}
	if t.fd < 0 && !o.sealed.LiesAt(h, t.entry.location()) {
		return nil, disk.ErrMismatch
	}
	return h, nil
}

// Getxattr reads an attribute.
func (n *node) Getxattr(ctx context.Context, name string, dest []byte) (size uint32, errno syscall.Errno) {
	o := n.v.operation(ctx)
	defer o.end()
	if strings.HasPrefix(name, control.Prefix) {
		value, err := controls{o, n.in}.get(name)
		if err == nil && len(dest) < len(value) && len(dest) > 0 {
			return uint32(len(value)), unix.ERANGE
		}
		copy(dest, value)
		return uint32(len(value)), n.controlErrno(err, "read an attribute of")
	}
	err := attributes{o, n.in}.with(name, func(a attribute, sealed bool) error {
		value, err := a.get()
		if !sealed && errors.Is(err, unix.EOPNOTSUPP) {
			return unix.ENODATA // the kernel takes ACLs for supported; a backing file system without them has none
		}
		if err == nil && sealed {
			value, err = n.v.sealed.OpenAttribute(a.object, a.name, value)
		}
		if err != nil {
			return err
		}
		size = uint32(len(value))
		if len(dest) < len(value) {
			return unix.ERANGE
		}
		copy(dest, value)
		return nil
	})
	return size, n.attributeErrno(err, "read an attribute of")
}

// attributeErrno keeps quiet about answers that are no faults.
func (n *node) attributeErrno(err error, op string) syscall.Errno {
	if err == nil {
		return 0
	}
	for _, usual := range []syscall.Errno{unix.ENODATA, unix.ERANGE, unix.EOPNOTSUPP, unix.EPERM} {
		if errors.Is(err, usual) {
			return usual
		}
	}
	return n.v.errnoOf(err, op, n.in)
}

func (a attribute) get() ([]byte, error) {
	value := make([]byte, 512)
	for {
		n, err := a.at.get(a.stored, value)
		if errors.Is(err, unix.ERANGE) && len(value) < disk.MaxAttribute+envelope.AttributeOverhead {
			value = make([]byte, disk.MaxAttribute+envelope.AttributeOverhead)
			continue
		}
		if err != nil {
			return nil, err
		}
		return value[:n], nil
	}
}

// Setxattr writes an attribute.
func (n *node) Setxattr(ctx context.Context, name string, value []byte, flags uint32) syscall.Errno {
	o := n.v.operation(ctx)
	defer o.end()
	if strings.HasPrefix(name, control.Prefix) {
		return n.controlErrno(controls{o, n.in}.set(ctx, name, value), "set an attribute of")
	}
	err := attributes{o, n.in}.with(name, func(a attribute, sealed bool) (err error) {
		stored := value
		if sealed {
			if stored, err = o.sealed.SealAttribute(a.object, a.name, value); err != nil {
				return err
			}
		}
		return a.at.set(a.stored, stored, int(flags))
	})
	return n.attributeErrno(err, "set an attribute of")
}

// Removexattr removes an attribute.
func (n *node) Removexattr(ctx context.Context, name string) syscall.Errno {
	o := n.v.operation(ctx)
	defer o.end()
	if strings.HasPrefix(name, control.Prefix) {
		return n.controlErrno(controls{o, n.in}.set(ctx, name, nil), "remove an attribute of")
	}
	err := attributes{o, n.in}.with(name, func(a attribute, _ bool) error { return a.at.remove(a.stored) })
	return n.attributeErrno(err, "remove an attribute of")
}

// Listxattr lists the attributes' names.
func (n *node) Listxattr(ctx context.Context, dest []byte) (uint32, syscall.Errno) {
	o := n.v.operation(ctx)
	defer o.end()
	var list []byte
	err := o.run(resolving, func() (err error) {
		list, err = attributes{o, n.in}.list()
		return err
	})
	if err != nil {
		return 0, n.attributeErrno(err, "list the attributes of")
	}
	if len(dest) < len(list) {
		return uint32(len(list)), unix.ERANGE
	}
	return uint32(copy(dest, list)), 0
}

// list returns the names, each with a NUL behind it. The caller holds volume.tree.
func (t attributes) list() ([]byte, error) {
	stored := make([]byte, disk.MaxAttribute)
	size, err := t.stored(stored)
	if err != nil || size == 0 {
		return nil, err
	}
	var list []byte
	for name := range strings.SplitSeq(string(stored[:size]), "\x00") {
		switch {
		case name == accessACL || name == disk.DefaultACL:
		case strings.HasPrefix(name, envelope.AttributePrefix):
			object, err := t.object()
			if err != nil {
				return nil, err
			}
			if name, err = t.sealed.OpenAttributeName(object, name); err != nil {
				t.log.Error("an attribute's name doesn't open: it is not shown", "path", t.in.path(), "error", err)
				continue
			}
		default:
			continue
		}
		list = append(append(list, name...), 0)
	}
	return list, nil
}

func (t attributes) stored(names []byte) (int, error) {
	target, err := t.target(t.in)
	if err != nil {
		return 0, err
	}
	defer target.release()
	return target.attributePath().list(names)
}
