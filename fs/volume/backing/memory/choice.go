package memory

import "math/rand/v2"

// chooser decides what a crash leaves on the disk. A choice depends on the seed, the file, the page
// and how many writes of that page came before, and on nothing else: it stays when other steps of a
// history go.
type chooser struct {
	prefix int // so many changes of metadata are on the disk, and the durable ones
	seed   uint64
	share  float64 // of the pages that are on the disk
	// sizeFirst lets the end of a file be on the disk although the page is not.
	sizeFirst bool
	writes    map[[2]uint64]uint64 // of each file's page: how many writes were decided
}

// These keep the choices that one seed makes apart.
const (
	chooseShare = iota
	choosePage
	chooseSize
)

func newChooser(prefix int, seed uint64, sizeFirst bool) *chooser {
	c := &chooser{prefix: prefix, seed: seed, sizeFirst: sizeFirst, writes: map[[2]uint64]uint64{}}
	c.share = c.draw(chooseShare, 0, 0, 0) // so that crashes with few and with many pages are as likely
	return c
}

// choose says of the next write of a page whether it is on the disk, and if not, whether the file's
// end is.
func (c *chooser) choose(e event) (page, size bool) {
	file, index := e.touched[0], uint64(e.index)
	write := c.writes[[2]uint64{file, index}]
	c.writes[[2]uint64{file, index}]++
	page = c.draw(choosePage, file, index, write) < c.share
	size = c.sizeFirst && c.draw(chooseSize, file, index, write) < c.share
	return page, size
}

// draw returns a number from 0 to 1 that depends on the seed and the arguments only.
func (c *chooser) draw(what, file, index, write uint64) float64 {
	seed := c.seed
	for _, v := range []uint64{what, file, index, write} {
		seed = rand.NewPCG(seed, v).Uint64()
	}
	return rand.New(rand.NewPCG(seed, 0)).Float64()
}
