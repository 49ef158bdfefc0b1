package fs

import (
	"strings"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	disk "kmsfs/fs/volume"
	"kmsfs/fs/volume/backing"
)

// effectivePolicy holds for the files that are made in a directory.
type effectivePolicy struct {
	// key is the KMS key: an ID, alias or ARN.
	key         string
	compression envelope.Compression
}

// effective finds the policy that holds in a directory: its own, or that of the nearest directory
// above it that has one, else the configuration's. The caller holds volume.tree.
func (o *resolver) effective(in *inode) (p effectivePolicy, err error) {
	for in != nil && (p.key == "" || p.compression == envelope.CompressionInherited) {
		record, err := o.directoryRecord(in)
		if err != nil {
			return p, err
		}
		if p.key == "" {
			p.key = record.Key
		}
		if p.compression == envelope.CompressionInherited {
			p.compression = record.Compression
		}
		l, ok := in.link()
		if !ok {
			break
		}
		in = l.parent
	}
	if p.key == "" {
		p.key = o.sealed.Config().KeyARN
	}
	if p.compression == envelope.CompressionInherited {
		p.compression = envelope.CompressionNone
	}
	return p, nil
}

// directoryRecord returns a directory's record. The caller holds volume.tree.
func (o *resolver) directoryRecord(in *inode) (*envelope.Directory, error) {
	if o.shared() {
		in.dropRecord() // another mount may have set a policy
	} else if record := in.knownRecord(); record != nil {
		return record, nil
	}
	dir, err := o.pin(in)
	if err != nil {
		return nil, err
	}
	defer dir.release()
	return dir.record, nil
}

// resolveKey returns the ARN of a KMS key that a policy names.
func (o *resolver) resolveKey(key string, at link) (arn string, err error) {
	if strings.Contains(key, ":key/") {
		return key, nil
	}
	header := envelope.Header{Path: at.path()}
	return o.mayGenerate(keys.Self("resolve"), keys.Wrap{Key: key, Context: header.Context(o.sealed.ID())})
}

// sameKey says whether files made in two directories get the same KMS key, and returns the policy
// that holds in the second one if they aren't the same directory. The caller holds volume.tree.
func (o *resolver) sameKey(a, b link) (same bool, under effectivePolicy, err error) {
	if a.parent == b.parent {
		return true, effectivePolicy{}, nil
	}
	from, err := o.effective(a.parent)
	if err != nil {
		return false, effectivePolicy{}, err
	}
	to, err := o.effective(b.parent)
	if err != nil || from.key == to.key {
		return true, to, err
	}
	first, err := o.resolveKey(from.key, a)
	if err != nil {
		return false, to, err
	}
	second, err := o.resolveKey(to.key, b)
	return first == second, to, err
}

// checkOwner denies a caller that a directory doesn't belong to by its record.
func checkOwner(call keys.Call, record *envelope.Directory) error {
	if !record.OwnedBy(call.Caller.UID) && call.Caller.UID != 0 {
		return unix.EPERM
	}
	return nil
}

// replaceRecord gives a directory another record, durably. The caller holds volume.tree for
// changing.
func (o *operation) replaceRecord(dir dirRef, next *envelope.Directory) error {
	dir.in.recordMu.Lock()
	defer dir.in.recordMu.Unlock()
	if err := o.disk.WriteDirectory(backing.FromDescriptor(dir.fd), next, true); err != nil {
		return err
	}
	dir.in.record = next
	return disk.SyncControl(backing.FromDescriptor(dir.fd), envelope.DirectoryName)
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
