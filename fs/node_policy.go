package fs

import (
	"context"
	"errors"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
)

// The extended attributes by which users talk to the file system. They are in no list, so that programs that copy attributes leave them alone.
const (
	// keyAttribute is the KMS key of a directory's policy, or, to be read only, that of a file; effectiveKeyAttribute, to be read only, is the one that holds
	// for what is made in a directory.
	keyAttribute          = reservedAttributes + "key"
	effectiveKeyAttribute = reservedAttributes + "effective.key"
	// compressionAttribute and effectiveCompressionAttribute are the same for compression: "none" or "zstd".
	compressionAttribute          = reservedAttributes + "compression"
	effectiveCompressionAttribute = reservedAttributes + "effective.compression"
	// rewrapAttribute and adoptAttribute, set on a directory to the name of a file or directory in it, have that done. Empty, on the root, they mean the volume.
	rewrapAttribute = reservedAttributes + "rewrap"
	adoptAttribute  = reservedAttributes + "adopt"
	// lockAttribute on the root is "1" while the mount is locked by hand; it is set to lock, and removed to unlock.
	lockAttribute = reservedAttributes + "locked"
)

// maxKeyName bounds the name of a KMS key, in bytes: AWS's bound of identifiers.
const maxKeyName = 2048

// getControl reads one of the attributes above.
func (n *node) getControl(name string) (value string, err error) {
	v := n.v
	if err := v.tree.RLock(); err != nil {
		return "", err
	}
	defer v.tree.RUnlock()
	switch {
	case name == keyAttribute && n.in.kind == unix.S_IFREG:
		return n.fileKey()
	case n.in.kind != unix.S_IFDIR:
		return "", unix.ENODATA
	case name == lockAttribute && n.in == v.root && v.watch.locked.Load():
		return "1", nil
	case name == keyAttribute || name == compressionAttribute:
		record, err := v.record(n.in)
		if err != nil {
			return "", err
		}
		value = record.Key
		if name == compressionAttribute {
			value = compressionName(record.Compression)
		}
	case name == effectiveKeyAttribute || name == effectiveCompressionAttribute:
		g, err := v.governing(n.in)
		if err != nil {
			return "", err
		}
		value = g.key
		if name == effectiveCompressionAttribute {
			value = compressionName(g.compression)
		}
	}
	if value == "" {
		return "", unix.ENODATA
	}
	return value, nil
}

// fileKey is the ARN of the KMS key that a file's header names. The caller holds volume.tree.
func (n *node) fileKey() (string, error) {
	h, err := n.readHeader()
	if err != nil {
		return "", err
	}
	return h.KeyARN, nil
}

// setControl sets one of them; nil removes it.
func (n *node) setControl(ctx context.Context, name string, value []byte) error {
	v := n.v
	if n.in.kind != unix.S_IFDIR || v.readOnly {
		return unix.EOPNOTSUPP
	}
	text := string(value)
	switch {
	case name == keyAttribute:
		return n.setKey(v.callOf(ctx, "set policy"), text)
	case name == compressionAttribute:
		return n.setCompression(v.callOf(ctx, "set policy"), text)
	case name == rewrapAttribute && value != nil:
		return n.rewrap(v.callOf(ctx, "rewrap"), text)
	case name == adoptAttribute && value != nil:
		return n.adopt(v.callOf(ctx, "adopt"), text)
	case name == lockAttribute && n.in == v.root:
		return v.lockByHand(v.callOf(ctx, "lock"), value != nil)
	}
	return unix.EOPNOTSUPP
}

// setKey sets, or with "" removes, the KMS key of a directory's policy. Whoever sets it must be allowed to make files under it there.
func (n *node) setKey(call Call, key string) error {
	v := n.v
	if len(key) > maxKeyName || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return unix.EINVAL
	}
	if err := v.tree.Lock(); err != nil {
		return err
	}
	defer v.tree.Unlock()
	if key != "" {
		if err := v.admitPolicy(call, n.in, key); err != nil {
			return err
		}
	}
	return v.setPolicy(call, n.in, func(d *envelope.Directory) { d.Key = key })
}

// admitPolicy has the key service decide whether the caller may have files in a directory made under a KMS key, and notes the key.
func (v *volume) admitPolicy(call Call, in *inode, key string) error {
	u, err := v.use(in)
	if err != nil {
		return err
	}
	defer u.release()
	record, err := v.record(in)
	if err != nil {
		return err
	}
	if err := checkOwner(call, record); err != nil {
		return err
	}
	if err := v.refuseIfLocked(); err != nil {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(u.fd, &st); err != nil {
		return err
	}
	header := envelope.Header{Path: in.path(), Owner: st.Uid}
	made, err := v.keys.GenerateDataKey(context.Background(), call, key, header.Context(v.sealed.ID()))
	clear(made.Plaintext)
	if err != nil {
		return err
	}
	return v.allow(made.KeyARN)
}

// setCompression sets, or with "" removes, the compression of a directory's policy.
func (n *node) setCompression(call Call, text string) error {
	compression, ok := compressionNames[text]
	if !ok && text != "" {
		return unix.EINVAL
	}
	if err := n.v.tree.Lock(); err != nil {
		return err
	}
	defer n.v.tree.Unlock()
	return n.v.setPolicy(call, n.in, func(d *envelope.Directory) { d.Compression = compression })
}

// controlErrno is the error number of what came of an attribute above.
func (n *node) controlErrno(err error, op string) syscall.Errno {
	for _, usual := range []syscall.Errno{unix.ENODATA, unix.EOPNOTSUPP, unix.EPERM, unix.EINVAL, unix.ENOENT} {
		if errors.Is(err, usual) {
			return usual
		}
	}
	return n.v.errno(err, op, n.describe())
}

// isAdministrator says whether a caller may do to the volume what nobody else may: it is root, or the user whose mount it is.
func (v *volume) isAdministrator(call Call) bool {
	return call.Caller.UID == 0 || call.Caller.UID == v.uid
}
