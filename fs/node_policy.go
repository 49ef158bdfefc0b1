package fs

import (
	"context"
	"errors"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/control"
	"kmsfs/fs/keys"
)

// maxKeyName bounds the name of a KMS key, in bytes: AWS's bound of identifiers.
const maxKeyName = 2048

// getControl reads an attribute by which programs speak to the mount.
func (n *node) getControl(name string) (value string, err error) {
	v := n.v
	if err := v.tree.RLock(); err != nil {
		return "", err
	}
	defer v.tree.RUnlock()
	switch {
	case name == control.Key && n.in.kind == unix.S_IFREG:
		return n.fileKey()
	case n.in.kind != unix.S_IFDIR:
		return "", unix.ENODATA
	case name == control.Locked && n.in == v.root && v.watch.locked.Load():
		return control.Yes, nil
	case name == control.Key || name == control.Compression:
		record, err := v.record(n.in)
		if err != nil {
			return "", err
		}
		value = record.Key
		if name == control.Compression {
			value = compressionName(record.Compression)
		}
	case name == control.EffectiveKey || name == control.EffectiveCompression:
		g, err := v.governing(n.in)
		if err != nil {
			return "", err
		}
		value = g.key
		if name == control.EffectiveCompression {
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
	case name == control.Key:
		return n.setKey(v.callOf(ctx, "set policy"), text)
	case name == control.Compression:
		return n.setCompression(v.callOf(ctx, "set policy"), text)
	case name == control.Rewrap && value != nil:
		return n.rewrap(v.callOf(ctx, "rewrap"), text)
	case name == control.Adopt && value != nil:
		return n.adopt(v.callOf(ctx, "adopt"), text)
	case name == control.Locked && n.in == v.root:
		return v.lockByHand(v.callOf(ctx, "lock"), value != nil)
	}
	return unix.EOPNOTSUPP
}

// setKey sets, or with "" removes, the KMS key of a directory's policy. Whoever sets it must be allowed to make files under it there.
func (n *node) setKey(call keys.Call, key string) error {
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
func (v *volume) admitPolicy(call keys.Call, in *inode, key string) error {
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
	return v.disk.Allow(made.KeyARN)
}

// setCompression sets, or with "" removes, the compression of a directory's policy.
func (n *node) setCompression(call keys.Call, text string) error {
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

// controlErrno is the error number of what came of such an attribute.
func (n *node) controlErrno(err error, op string) syscall.Errno {
	for _, usual := range []syscall.Errno{unix.ENODATA, unix.EOPNOTSUPP, unix.EPERM, unix.EINVAL, unix.ENOENT} {
		if errors.Is(err, usual) {
			return usual
		}
	}
	return n.v.errno(err, op, n.describe())
}

// isAdministrator says whether a caller may do to the volume what nobody else may: it is root, or the user whose mount it is.
func (v *volume) isAdministrator(call keys.Call) bool {
	return call.Caller.UID == 0 || call.Caller.UID == v.disk.UID
}
