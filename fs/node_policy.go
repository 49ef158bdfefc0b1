package fs

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/control"
	"kmsfs/fs/keys"
	disk "kmsfs/fs/volume"
	"kmsfs/fs/volume/backing"
)

// maxKeyName bounds the name of a KMS key, in bytes: AWS's bound of identifiers.
const maxKeyName = 2048

// controls are the attributes of an inode by which programs speak to the mount.
type controls struct {
	*operation
	in *inode
}

// get reads an attribute by which programs speak to the mount.
func (p controls) get(name string) (value string, err error) {
	if name == control.Locked && p.in == p.root && p.revocation.locked.Load() {
		return control.Yes, nil
	}
	err = p.run(resolving, func() (err error) {
		if p.in.kind == unix.S_IFDIR {
			value, err = p.ofDirectory(name)
		} else if name == control.Key && p.in.kind == unix.S_IFREG {
			value, err = p.fileKey()
		}
		return err
	})
	if err == nil && value == "" {
		err = unix.ENODATA
	}
	return value, err
}

// ofDirectory reads a directory's own policy, or the effective one.
func (p controls) ofDirectory(name string) (string, error) {
	switch name {
	case control.Key, control.Compression:
		record, err := p.directoryRecord(p.in)
		if err != nil {
			return "", err
		}
		if name == control.Compression {
			return compressionName(record.Compression), nil
		}
		return record.Key, nil
	case control.EffectiveKey, control.EffectiveCompression:
		policy, err := p.effective(p.in)
		if err != nil {
			return "", err
		}
		if name == control.EffectiveCompression {
			return compressionName(policy.compression), nil
		}
		return policy.key, nil
	}
	return "", nil
}

// fileKey returns the ARN of the KMS key that a file's header names. The caller holds volume.tree.
func (p controls) fileKey() (string, error) {
	h, err := p.readHeader(p.in)
	if err != nil {
		return "", err
	}
	return h.KeyARN, nil
}

// set sets one of them; nil removes it.
func (p controls) set(ctx context.Context, name string, value []byte) error {
	if p.in.kind != unix.S_IFDIR || p.readOnly {
		return unix.EOPNOTSUPP
	}
	text := string(value)
	switch {
	case name == control.Key:
		return p.setKey(callOf(ctx, "set policy"), text)
	case name == control.Compression:
		return p.setCompression(callOf(ctx, "set policy"), text)
	case name == control.Rewrap && value != nil:
		return rewrap{p.operation, callOf(ctx, "rewrap"), p.in}.named(text)
	case name == control.Adopt && value != nil:
		return adoption{p.operation, callOf(ctx, "adopt")}.adopt(p.in, text)
	case name == control.Locked && p.in == p.root:
		return p.revocation.lockByHand(ctx, callOf(ctx, "lock"), value != nil)
	}
	return unix.EOPNOTSUPP
}

// setKey sets, or with "" removes, the KMS key of a directory's policy. Only a caller that may make
// files under the key there may set it.
func (p controls) setKey(call keys.Call, key string) error {
	if len(key) > maxKeyName || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return unix.EINVAL
	}
	return p.run(changing, func() error {
		if key != "" {
			if err := p.admit(call, key); err != nil {
				return err
			}
		}
		return p.setPolicy(call, func(d *envelope.Directory) { d.Key = key })
	})
}

// admit has the key service decide whether the caller may have files in a directory made under
// a KMS key, and adds the key to the volume's.
func (p controls) admit(call keys.Call, key string) error {
	dir, err := p.pin(p.in)
	if err != nil {
		return err
	}
	defer dir.release()
	record, err := p.directoryRecord(p.in)
	if err != nil {
		return err
	}
	if err := checkOwner(call, record); err != nil {
		return err
	}
	if err := p.denyIfLocked(); err != nil {
		return err
	}
	owner, err := disk.OwnerOf(backing.FromDescriptor(dir.fd))
	if err != nil {
		return err
	}
	header := envelope.Header{Path: p.in.path(), Owner: owner}
	arn, err := p.mayGenerate(call, keys.Wrap{Key: key, Context: header.Context(p.sealed.ID())})
	if err != nil {
		return err
	}
	return p.allow(arn)
}

// setCompression sets, or with "" removes, the compression of a directory's policy.
func (p controls) setCompression(call keys.Call, text string) error {
	compression, ok := compressionNames[text]
	if !ok && text != "" {
		return unix.EINVAL
	}
	return p.run(changing, func() error {
		return p.setPolicy(call, func(d *envelope.Directory) { d.Compression = compression })
	})
}

// setPolicy changes a directory's policy by edit, durably, for its owner or root.
func (p controls) setPolicy(call keys.Call, edit func(d *envelope.Directory)) error {
	dir, err := p.pin(p.in)
	if err != nil {
		return err
	}
	defer dir.release()
	present, err := p.directoryRecord(p.in)
	if err != nil {
		return err
	}
	if err := checkOwner(call, present); err != nil {
		return err
	}
	next := *present
	edit(&next)
	event := keys.Event{Name: keys.EventPolicySet, Details: map[string]string{
		"path": p.in.path(), "key": next.Key, "compression": compressionName(next.Compression), "uid": fmt.Sprint(call.Caller.UID),
	}}
	if err := p.record(call.ForRecord(), event); err != nil {
		return err
	}
	return p.replaceRecord(dir, &next)
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
