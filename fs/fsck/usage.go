package fsck

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	"kmsfs/fs/volume"
	"kmsfs/fs/volume/backing"
)

// UsageOptions say what uses of a KMS key to count, and where.
type UsageOptions struct {
	Volume string
	Keys   keys.Service
	// IsKey says whether a name (an ARN, an ID or an alias) is that of the key.
	IsKey func(name string) bool
	// Progress, if not nil, is kept up to date.
	Progress *volume.Progress
}

// KeyUsage is what in a volume depends on a KMS key. Its JSON names are stable.
type KeyUsage struct {
	Volume string `json:"volume"`
	// Files are wrapped under the key; Directories name it for what is made beneath.
	Files       int64 `json:"files"`
	Directories int64 `json:"directories"`
	// Metadata says that the volume's metadata key is wrapped under it, without which nothing in
	// the volume can be opened; NewFiles that files are made under it where no directory says
	// otherwise.
	Metadata bool `json:"metadata"`
	NewFiles bool `json:"newFiles"`
	// Listed says that the volume's configuration names the key: where it doesn't, no file is under
	// it that opens.
	Listed bool `json:"listed"`
	// Unknown are files and directories that don't tell, as their headers or records can't be read.
	Unknown int64 `json:"unknown"`
}

// CountKeyUsage counts what depends on a KMS key, for which no file's data key is needed. If the
// volume can't be opened, it returns an error, and what the volume's configuration says, which is
// not authenticated then.
func CountKeyUsage(ctx context.Context, o UsageOptions) (KeyUsage, error) {
	usage := KeyUsage{Volume: o.Volume}
	b, err := volume.Open(o.Volume, o.Keys, "key usage")
	if err != nil {
		if config, readErr := volume.ReadConfig(o.Volume); readErr == nil {
			usage.configured(config, o.IsKey)
		}
		return usage, err
	}
	defer b.Close()
	config := b.Sealed.Config()
	usage.configured(&config, o.IsKey)
	ctx, stop := context.WithCancel(ctx)
	var counting sync.WaitGroup
	defer counting.Wait()
	defer stop()
	if o.Progress != nil {
		o.Progress.Count(ctx, b.Root, &counting)
	}
	c := &usageCount{Volume: b, options: o, inodes: newLinkedInodes()}
	root := &usageDirectory{c, b.Root}
	root.record()
	volume.Walk(ctx, b.Root, root)
	usage.Files, usage.Directories, usage.Unknown = c.files.Load(), c.directories.Load(), c.unknown.Load()
	return usage, ctx.Err()
}

func (u *KeyUsage) configured(c *envelope.Config, isKey func(string) bool) {
	u.Metadata, u.NewFiles = isKey(c.MetadataKeyARN), isKey(c.KeyARN)
	u.Listed = u.Metadata || slices.ContainsFunc(c.KeyARNs, isKey)
}

// usageCount is a count under way.
type usageCount struct {
	*volume.Volume
	options                     UsageOptions
	inodes                      linkedInodes
	files, directories, unknown atomic.Int64
}

// usageDirectory is the branch of a count's walk.
type usageDirectory struct {
	c   *usageCount
	dir backing.Dir
}

func (d *usageDirectory) Failed(_ backing.Entry, err error) {
	if !errors.Is(err, unix.ENOENT) {
		d.c.unknown.Add(1)
	}
}

func (d *usageDirectory) Enter(dir backing.Dir, e backing.Entry) volume.Branch {
	if d.c.IsControl(e.Name) {
		return nil
	}
	in := &usageDirectory{d.c, dir}
	in.record()
	return in
}

// record looks at the directory's policy.
func (d *usageDirectory) record() {
	record, err := d.c.ReadDirectory(d.dir)
	switch {
	case err != nil:
		d.c.unknown.Add(1)
	case d.c.options.IsKey(record.Key):
		d.c.directories.Add(1)
	}
}

func (d *usageDirectory) See(e backing.Entry) {
	c := d.c
	if c.IsControl(e.Name) {
		return
	}
	var size int64
	if e.Kind == unix.DT_REG {
		size = d.file(e)
	}
	if c.options.Progress != nil {
		c.options.Progress.Files.Add(1)
		c.options.Progress.Bytes.Add(size)
	}
}

// file counts a file, once for all of its links, and returns its size in the volume.
func (d *usageDirectory) file(e backing.Entry) (size int64) {
	c := d.c
	f, err := d.dir.OpenFile(e.Name, unix.O_RDONLY, 0)
	if err != nil {
		d.Failed(e, err)
		return 0
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Nlink > 1 && !c.inodes.visit(st).mine {
		return st.Size
	}
	header, err := c.Sealed.ReadHeader(volume.NewStorage(f), false)
	switch {
	case err != nil:
		c.unknown.Add(1)
	case c.options.IsKey(header.KeyARN):
		c.files.Add(1)
	}
	return st.Size
}
