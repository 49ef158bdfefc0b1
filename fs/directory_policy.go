package fs

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	disk "kmsfs/fs/volume"
)

// governing is what holds for the files that are made in a directory.
type governing struct {
	// key is the KMS key: an ID, alias or ARN.
	key         string
	compression envelope.Compression
}

// governing finds the directory's own policy, or the nearest one above it; without any, the volume's configuration says. The caller holds volume.tree.
func (v *volume) governing(in *inode) (g governing, err error) {
	for in != nil && (g.key == "" || g.compression == envelope.CompressionInherited) {
		record, err := v.record(in)
		if err != nil {
			return g, err
		}
		if g.key == "" {
			g.key = record.Key
		}
		if g.compression == envelope.CompressionInherited {
			g.compression = record.Compression
		}
		l, ok := in.link()
		if !ok {
			break
		}
		in = l.parent
	}
	if g.key == "" {
		g.key = v.sealed.Config().KeyARN
	}
	if g.compression == envelope.CompressionInherited {
		g.compression = envelope.CompressionNone
	}
	return g, nil
}

// record returns a directory's record. The caller holds volume.tree.
func (v *volume) record(in *inode) (*envelope.Directory, error) {
	in.dirMu.Lock()
	record := in.record
	in.dirMu.Unlock()
	if record != nil && !v.shared() {
		return record, nil
	}
	if v.shared() {
		in.dropRecord() // another mount may have set a policy
	}
	u, err := v.use(in)
	if err != nil {
		return nil, err
	}
	defer u.release()
	return v.recordOf(in, u.fd)
}

// resolve returns the ARN of a KMS key that a policy names.
func (v *volume) resolve(key string, at link) (arn string, err error) {
	if strings.Contains(key, ":key/") {
		return key, nil
	}
	header := envelope.Header{Path: at.path()}
	made, err := v.keys.GenerateDataKey(context.Background(), keys.Self("resolve"), key, header.Context(v.sealed.ID()))
	clear(made.Plaintext)
	return made.KeyARN, err
}

// sameKey says whether files made in two directories get the same KMS key. The caller holds volume.tree.
func (v *volume) sameKey(a, b link) (same bool, under governing, err error) {
	if a.parent == b.parent {
		return true, governing{}, nil
	}
	from, err := v.governing(a.parent)
	if err != nil {
		return false, governing{}, err
	}
	to, err := v.governing(b.parent)
	if err != nil || from.key == to.key {
		return true, to, err
	}
	first, err := v.resolve(from.key, a)
	if err != nil {
		return false, to, err
	}
	second, err := v.resolve(to.key, b)
	return first == second, to, err
}

// setPolicy changes a directory's policy by edit, durably, on behalf of its owner or of root.
func (v *volume) setPolicy(call keys.Call, in *inode, edit func(d *envelope.Directory)) error {
	u, err := v.use(in)
	if err != nil {
		return err
	}
	defer u.release()
	present, err := v.record(in)
	if err != nil {
		return err
	}
	if err := checkOwner(call, present); err != nil {
		return err
	}
	next := *present
	edit(&next)
	event := keys.Event{Name: keys.EventPolicySet, Details: map[string]string{
		"path": in.path(), "key": next.Key, "compression": compressionName(next.Compression), "uid": fmt.Sprint(call.Caller.UID),
	}}
	if err := v.keys.Record(context.Background(), call.ForRecord(), event); err != nil {
		return err
	}
	return v.replaceRecord(u, &next)
}

// checkOwner refuses a caller to whom a directory doesn't belong by its record.
func checkOwner(call keys.Call, record *envelope.Directory) error {
	if !record.OwnedBy(call.Caller.UID) && call.Caller.UID != 0 {
		return unix.EPERM
	}
	return nil
}

// replaceRecord gives a directory another record, durably. The caller holds volume.tree for writing.
func (v *volume) replaceRecord(u use, next *envelope.Directory) error {
	u.in.dirMu.Lock()
	defer u.in.dirMu.Unlock()
	if err := v.disk.WriteDirectory(u.fd, next, true); err != nil {
		return err
	}
	u.in.record = next
	return disk.SyncControl(u.fd, envelope.DirectoryName)
}

// compressionNames are how users write compressions. A policy that inherits has none.
var compressionNames = map[string]envelope.Compression{"none": envelope.CompressionNone, "zstd": envelope.CompressionZstd}

func compressionName(c envelope.Compression) string {
	for name, named := range compressionNames {
		if named == c {
			return name
		}
	}
	return ""
}
