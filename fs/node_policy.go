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
	disk "kmsfs/fs/volume"
)

// maxKeyName bounds the name of a KMS key, in bytes: AWS's bound of identifiers.
const maxKeyName = 2048

// getControl reads an attribute by which programs speak to the mount.
func (o *operation) getControl(in *inode, name string) (value string, err error) {
	if name == control.Locked && in == o.root && o.revocation.locked.Load() {
		return control.Yes, nil
	}
	err = o.run(resolving, func() (err error) {
		if in.kind == unix.S_IFDIR {
			value, err = o.directoryControl(in, name)
		} else if name == control.Key && in.kind == unix.S_IFREG {
			value, err = o.fileKey(in)
		}
		return err
	})
	if err == nil && value == "" {
		err = unix.ENODATA
	}
	return value, err
}

// directoryControl reads a directory's own policy, or the effective one.
func (o *operation) directoryControl(in *inode, name string) (string, error) {
	switch name {
	case control.Key, control.Compression:
		record, err := o.directoryRecord(in)
		if err != nil {
			return "", err
		}
		if name == control.Compression {
			return compressionName(record.Compression), nil
		}
		return record.Key, nil
	case control.EffectiveKey, control.EffectiveCompression:
		p, err := o.effective(in)
		if err != nil {
			return "", err
		}
		if name == control.EffectiveCompression {
			return compressionName(p.compression), nil
		}
		return p.key, nil
	}
	return "", nil
}

// fileKey returns the ARN of the KMS key that a file's header names. The caller holds volume.tree.
func (o *operation) fileKey(in *inode) (string, error) {
	h, err := o.readHeader(in)
	if err != nil {
		return "", err
	}
	return h.KeyARN, nil
}

// setControl sets one of them; nil removes it.
func (o *operation) setControl(ctx context.Context, in *inode, name string, value []byte) error {
	if in.kind != unix.S_IFDIR || o.readOnly {
		return unix.EOPNOTSUPP
	}
	text := string(value)
	switch {
	case name == control.Key:
		return o.setKey(callOf(ctx, "set policy"), in, text)
	case name == control.Compression:
		return o.setCompression(callOf(ctx, "set policy"), in, text)
	case name == control.Rewrap && value != nil:
		return o.rewrap(callOf(ctx, "rewrap"), in, text)
	case name == control.Adopt && value != nil:
		return o.adopt(callOf(ctx, "adopt"), in, text)
	case name == control.Locked && in == o.root:
		return o.revocation.lockByHand(ctx, callOf(ctx, "lock"), value != nil)
	}
	return unix.EOPNOTSUPP
}

// setKey sets, or with "" removes, the KMS key of a directory's policy. Only a caller that may make
// files under the key there may set it.
func (o *operation) setKey(call keys.Call, in *inode, key string) error {
	if len(key) > maxKeyName || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return unix.EINVAL
	}
	return o.run(changing, func() error {
		if key != "" {
			if err := o.admitPolicy(call, in, key); err != nil {
				return err
			}
		}
		return o.setPolicy(call, in, func(d *envelope.Directory) { d.Key = key })
	})
}

// admitPolicy has the key service decide whether the caller may have files in a directory made under
// a KMS key, and adds the key to the volume's.
func (o *operation) admitPolicy(call keys.Call, in *inode, key string) error {
	dir, err := o.pin(in)
	if err != nil {
		return err
	}
	defer dir.release()
	record, err := o.directoryRecord(in)
	if err != nil {
		return err
	}
	if err := checkOwner(call, record); err != nil {
		return err
	}
	if err := o.denyIfLocked(); err != nil {
		return err
	}
	owner, err := disk.OwnerOf(dir.fd)
	if err != nil {
		return err
	}
	header := envelope.Header{Path: in.path(), Owner: owner}
	arn, err := o.mayGenerate(call, keys.Wrap{Key: key, Context: header.Context(o.sealed.ID())})
	if err != nil {
		return err
	}
	return o.allow(arn)
}

// setCompression sets, or with "" removes, the compression of a directory's policy.
func (o *operation) setCompression(call keys.Call, in *inode, text string) error {
	compression, ok := compressionNames[text]
	if !ok && text != "" {
		return unix.EINVAL
	}
	return o.run(changing, func() error {
		return o.setPolicy(call, in, func(d *envelope.Directory) { d.Compression = compression })
	})
}

// controlErrno is the error number of what came of such an attribute.
func (n *node) controlErrno(err error, op string) syscall.Errno {
	for _, usual := range []syscall.Errno{unix.ENODATA, unix.EOPNOTSUPP, unix.EPERM, unix.EINVAL, unix.ENOENT} {
		if errors.Is(err, usual) {
			return usual
		}
	}
	return n.v.errnoOf(err, op, n.in)
}
