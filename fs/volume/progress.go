package volume

import (
	"context"
	"sync"
	"sync/atomic"

	"kmsfs/fs/volume/backing"

	"golang.org/x/sys/unix"
)

// Progress is how far work on a volume has come. It can be read while the work goes on.
type Progress struct {
	// Files and Bytes are what has been done: entries that are no directories, and bytes in the
	// volume.
	Files, Bytes atomic.Int64
	// AllFiles and AllBytes are what has been counted, and all there is once Counted is set.
	AllFiles, AllBytes atomic.Int64
	Counted            atomic.Bool
}

// Count counts all there is, until the context ends. The caller waits for it.
func (p *Progress) Count(ctx context.Context, root backing.Dir, done *sync.WaitGroup) {
	done.Go(func() {
		Walk(ctx, root, &countedDirectory{p, root})
		p.Counted.Store(ctx.Err() == nil)
	})
}

// countedDirectory is the branch of a walk that counts.
type countedDirectory struct {
	p   *Progress
	dir backing.Dir
}

func (d *countedDirectory) Enter(dir backing.Dir, _ backing.Entry) Branch {
	return &countedDirectory{d.p, dir}
}

func (d *countedDirectory) See(e backing.Entry) {
	d.p.AllFiles.Add(1)
	if e.Kind != unix.DT_REG {
		return
	}
	if st, err := d.dir.StatAt(e.Name); err == nil {
		d.p.AllBytes.Add(st.Size)
	}
}

// Failed leaves it to the work itself to say what can't be read.
func (d *countedDirectory) Failed(backing.Entry, error) {}

// fileCost is the work that a file makes besides its content, in bytes that take as long.
const fileCost = 100_000

// Part says how much of all has been done, from 0 to 1, once all is counted.
func (p *Progress) Part() float64 {
	all := p.AllBytes.Load() + fileCost*p.AllFiles.Load()
	if all == 0 {
		return 1
	}
	return min(float64(p.Bytes.Load()+fileCost*p.Files.Load())/float64(all), 1)
}
