package memory

import "slices"

// event is one change, as it is on its way to the disk.
type event struct {
	// apply makes the change of metadata in a tree; nil for the write of a page.
	apply func(t *tree)
	// touched are the nodes that the change concerns.
	touched []uint64
	// data says that fdatasync(2) makes the change durable: it decides what the content of
	// touched[0] is.
	data bool
	// gone are the pages of touched[0] that the change takes away: what is written to them later
	// can't be on the disk before the change.
	gone pageRange

	// For the write of a page: the file is touched[0].
	index   int64
	content *page
	end     int64 // the file's size after the write

	durable bool
}

// pageRange is a range of pages of a file.
type pageRange struct{ from, to int64 }

// allPages are those of a file that is new.
var allPages = pageRange{0, 1 << 62}

func (r pageRange) has(i int64) bool { return r.from <= i && i < r.to }

// journal is what may not be on the disk yet.
type journal struct {
	disk   *tree // all that came before events
	events []event
	single bool // Options.SingleSync
}

func (j *journal) add(e event) { j.events = append(j.events, e) }

// syncAll makes everything durable.
func (j *journal) syncAll(live *tree) {
	j.disk, j.events = live.clone(), nil
	j.disk.open = nil
}

// sync makes a node durable, as fsync(2) does; with dataOnly, as fdatasync(2).
func (j *journal) sync(ino uint64, dataOnly bool) {
	for i := range j.events {
		e := &j.events[i]
		own := slices.Contains(e.touched, ino)
		switch {
		case e.content != nil:
			if own {
				e.durable = true
			}
		case dataOnly && e.data && e.touched[0] == ino, !dataOnly && own:
			j.force(i)
		case !dataOnly && !j.single:
			e.durable = true
		}
	}
}

// force makes a change of metadata durable, with those before it that it depends on.
func (j *journal) force(i int) {
	if j.events[i].durable {
		return
	}
	j.events[i].durable = true
	for k := i - 1; k >= 0; k-- {
		e := &j.events[k]
		if e.content == nil && !e.durable && slices.ContainsFunc(e.touched, func(ino uint64) bool {
			return slices.Contains(j.events[i].touched, ino)
		}) {
			j.force(k)
		}
	}
}

// crash returns what the disk holds.
func (j *journal) crash(c *chooser) *tree {
	t := j.disk.clone()
	missing := map[uint64][]pageRange{} // by file: pages that are taken away later, as the disk has it
	metadata := 0
	for _, e := range j.events {
		if e.content != nil {
			j.writeBack(t, e, missing[e.touched[0]], c)
			continue
		}
		metadata++
		if e.durable || metadata <= c.prefix {
			e.apply(t)
		} else if e.gone.to > 0 {
			missing[e.touched[0]] = append(missing[e.touched[0]], e.gone)
		}
	}
	t.dropOrphans()
	return t
}

// writeBack puts a page on the disk if it is chosen, and if what it lies in is there.
func (j *journal) writeBack(t *tree, e event, missing []pageRange, c *chooser) {
	n := t.nodes[e.touched[0]]
	if n == nil || slices.ContainsFunc(missing, func(r pageRange) bool { return r.has(e.index) }) {
		return
	}
	if page, size := c.choose(e); e.durable || page {
		n.pages[e.index] = e.content
		n.size = max(n.size, min(e.end, (e.index+1)*pageSize))
	} else if size {
		n.size = max(n.size, e.end)
	}
}

// metadata is the number of changes of metadata that are not on the disk for sure.
func (j *journal) metadata() (n int) {
	for _, e := range j.events {
		if e.content == nil {
			n++
		}
	}
	return n
}

// dropOrphans removes nodes without a name, as the recovery of a file system does.
func (t *tree) dropOrphans() {
	reached := map[uint64]bool{}
	var visit func(ino uint64)
	visit = func(ino uint64) {
		if reached[ino] {
			return
		}
		reached[ino] = true
		for _, child := range t.nodes[ino].names {
			visit(child)
		}
	}
	visit(t.root)
	for ino := range t.nodes {
		if !reached[ino] {
			delete(t.nodes, ino)
		}
	}
}
