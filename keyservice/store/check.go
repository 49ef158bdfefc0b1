package store

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"os"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// What bbolt has in its file, in bytes, all numbers in the machine's own byte order. A page begins
// with its number 8, flags 2, count of elements 2, number of further pages 4. The elements follow;
// a branch's: where its key begins, counted from the element's begin, 4, size of the key 4, page 8;
// a leaf's: flags 4, where its key and then its value begin, counted so too, 4, size of the key 4,
// size of the value 4. The first two pages are metas: behind the page's header magic 4, version 4,
// page size 4, flags 4, first page of the root bucket 8 and 8 that nobody uses here, page of the
// freelist 8, number of pages 8, transaction 8, FNV-1a of what stands before it 8. The one with the
// later transaction holds.
const (
	pageHeader   = 16
	branchFlag   = 0x01
	leafFlag     = 0x02
	freelistFlag = 0x10
	element      = 16
	// bucketFlag is that of elements whose values are buckets: 8 bytes for the bucket's first page,
	// 0 if that follows in the value, and 8 that nobody uses here.
	bucketFlag   = 0x01
	bucketHeader = 16

	metaMagic   = 0xed0cdaed
	metaVersion = 2
	metaSize    = 64
	// manyFree as a freelist's count says that the first of the numbers is the count.
	manyFree = 0xffff

	leastPage, mostPage = 1 << 10, 1 << 16
	// mostLevels is how deep a tree of pages may be; one of the 2^48 pages that there can be is
	// less deep.
	mostLevels = 64
)

// structure is a store's file, whose pages are checked before bbolt reads them. bbolt believes them:
// it would follow wrong ones out of its memory, in circles, or into buffers of any size, and some of
// that ends the process. bbolt's own check, Tx.Check, comes too late: it follows them too, in a
// goroutine whose faults nobody can catch. Of 375 damaged files, bbolt without a check ended the
// process on 13, and with Tx.Check on 9, and 15 took more than a minute. This check refuses those.
type structure struct {
	file     []byte
	pageSize uint64
	pages    uint64
	seen     []uint64 // a bit for each page that something leads to
}

// checkStructure refuses a file that bbolt could not be let loose on.
func checkStructure(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() < 2*leastPage {
		return fmt.Errorf("%w: %d bytes are too few", ErrDamaged, info.Size())
	}
	mapped, err := unix.Mmap(int(f.Fd()), 0, int(info.Size()), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("map the key store: %w", err)
	}
	defer func() { _ = unix.Munmap(mapped) }()
	s := &structure{file: mapped}
	meta, err := s.meta()
	if err != nil {
		return err
	}
	s.pages = binary.NativeEndian.Uint64(meta[40:])
	if s.pages > uint64(len(mapped))/s.pageSize {
		return fmt.Errorf("%w: %d pages in %d bytes", ErrDamaged, s.pages, len(mapped))
	}
	s.seen = make([]uint64, (s.pages+63)/64)
	if err := s.freelist(binary.NativeEndian.Uint64(meta[32:])); err != nil {
		return err
	}
	return s.tree(binary.NativeEndian.Uint64(meta[16:]), mostLevels, s.bucket)
}

// meta finds the page size and the meta that holds.
func (s *structure) meta() ([]byte, error) {
	var found []byte
	var at uint64
	for _, place := range s.metaPlaces() {
		meta, ok := s.metaAt(place)
		if ok && (found == nil || binary.NativeEndian.Uint64(meta[48:]) > binary.NativeEndian.Uint64(found[48:])) {
			found, at = meta, place
		}
	}
	if found == nil {
		return nil, fmt.Errorf("%w: it begins like something else", ErrDamaged)
	}
	s.pageSize = uint64(binary.NativeEndian.Uint32(found[8:]))
	if at != 0 && at != s.pageSize || s.pageSize < leastPage || s.pageSize > mostPage || s.pageSize&(s.pageSize-1) != 0 {
		return nil, fmt.Errorf("%w: pages of %d bytes", ErrDamaged, s.pageSize)
	}
	return found, nil
}

// metaPlaces are where metas may be: at the begin, and behind a page of whatever size.
func (s *structure) metaPlaces() []uint64 {
	if meta, ok := s.metaAt(0); ok {
		return []uint64{0, uint64(binary.NativeEndian.Uint32(meta[8:]))}
	}
	var places []uint64
	for size := uint64(leastPage); size <= mostPage; size *= 2 {
		places = append(places, size)
	}
	return places
}

func (s *structure) metaAt(at uint64) (meta []byte, ok bool) {
	if uint64(len(s.file)) < at+pageHeader+metaSize {
		return nil, false
	}
	meta = s.file[at+pageHeader:][:metaSize]
	sum := fnv.New64a()
	_, _ = sum.Write(meta[:metaSize-8])
	return meta, binary.NativeEndian.Uint32(meta) == metaMagic && binary.NativeEndian.Uint32(meta[4:]) == metaVersion &&
		binary.NativeEndian.Uint64(meta[metaSize-8:]) == sum.Sum64()
}

// page returns a page with those that it flows over into, to which nothing else leads.
func (s *structure) page(id uint64) ([]byte, error) {
	if id < 2 || id >= s.pages {
		return nil, fmt.Errorf("%w: no page %d", ErrDamaged, id)
	}
	page := s.file[id*s.pageSize:]
	more := uint64(binary.NativeEndian.Uint32(page[12:]))
	if binary.NativeEndian.Uint64(page) != id || id+more >= s.pages {
		return nil, fmt.Errorf("%w: page %d says that it is page %d, and %d more", ErrDamaged, id, binary.NativeEndian.Uint64(page), more)
	}
	for i := id; i <= id+more; i++ {
		if err := s.see(i); err != nil {
			return nil, err
		}
	}
	return page[:(1+more)*s.pageSize], nil
}

func (s *structure) see(id uint64) error {
	if s.seen[id/64]>>(id%64)&1 != 0 {
		return fmt.Errorf("%w: page %d is used twice", ErrDamaged, id)
	}
	s.seen[id/64] |= 1 << (id % 64)
	return nil
}

// freelist looks at the page that names those which are free.
func (s *structure) freelist(id uint64) error {
	page, err := s.page(id)
	if err != nil {
		return err
	}
	free := page[pageHeader:]
	count := uint64(binary.NativeEndian.Uint16(page[10:]))
	if count == manyFree {
		count, free = binary.NativeEndian.Uint64(free), free[8:]
	}
	if binary.NativeEndian.Uint16(page[8:]) != freelistFlag || count > uint64(len(free))/8 {
		return fmt.Errorf("%w: page %d is no list of free pages", ErrDamaged, id)
	}
	for ; count > 0; count-- {
		id := binary.NativeEndian.Uint64(free)
		if id < 2 || id >= s.pages {
			return fmt.Errorf("%w: there is no page %d to be free", ErrDamaged, id)
		}
		if err := s.see(id); err != nil {
			return err
		}
		free = free[8:]
	}
	return nil
}

// tree looks at a page and all beneath it.
func (s *structure) tree(id uint64, levels int, each func(flags uint32, value []byte) error) error {
	page, err := s.page(id)
	if err != nil {
		return err
	}
	if binary.NativeEndian.Uint16(page[8:]) != branchFlag {
		return leaf(page, each)
	}
	if levels == 0 {
		return fmt.Errorf("%w: page %d lies too deep", ErrDamaged, id)
	}
	count := int(binary.NativeEndian.Uint16(page[10:]))
	if count == 0 {
		return fmt.Errorf("%w: page %d is an empty branch", ErrDamaged, id)
	}
	return elements(page, count, func(e []byte) (size uint64) { return uint64(binary.NativeEndian.Uint32(e[4:])) }, 0, func(e, _ []byte) error {
		return s.tree(binary.NativeEndian.Uint64(e[8:]), levels-1, each)
	})
}

// bucket looks at one of the root's elements.
func (s *structure) bucket(flags uint32, value []byte) error {
	if flags != bucketFlag || len(value) < bucketHeader {
		return fmt.Errorf("%w: something among the buckets that is none", ErrDamaged)
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return s.tree(root, mostLevels, record)
	}
	return leaf(value[bucketHeader:], record)
}

// record looks at an element of a bucket, all of which are records.
func record(flags uint32, _ []byte) error {
	if flags != 0 {
		return fmt.Errorf("%w: something among the records that is none", ErrDamaged)
	}
	return nil
}

// leaf goes through a leaf page's elements.
func leaf(page []byte, each func(flags uint32, value []byte) error) error {
	if len(page) < pageHeader || binary.NativeEndian.Uint16(page[8:]) != leafFlag {
		return fmt.Errorf("%w: a page that isn't a leaf", ErrDamaged)
	}
	size := func(e []byte) uint64 {
		return uint64(binary.NativeEndian.Uint32(e[8:])) + uint64(binary.NativeEndian.Uint32(e[12:]))
	}
	return elements(page, int(binary.NativeEndian.Uint16(page[10:])), size, 4, func(e, data []byte) error {
		return each(binary.NativeEndian.Uint32(e), data[binary.NativeEndian.Uint32(e[8:]):])
	})
}

// elements goes through a page's elements, each with its data, the size of which is known, and
// whose place stands at an offset in the element. The data lie one behind the other, as bbolt
// writes them.
func elements(page []byte, count int, size func(e []byte) uint64, at int, each func(e, data []byte) error) error {
	free := uint64(pageHeader + count*element)
	if free > uint64(len(page)) {
		return fmt.Errorf("%w: %d elements in a page of %d bytes", ErrDamaged, count, len(page))
	}
	for i := range count {
		begin := pageHeader + i*element
		e := page[begin:][:element]
		from := uint64(begin) + uint64(binary.NativeEndian.Uint32(e[at:]))
		to := from + size(e)
		if from < free || to > uint64(len(page)) {
			return fmt.Errorf("%w: an element that isn't in its page, or in another", ErrDamaged)
		}
		if err := each(e, page[from:to]); err != nil {
			return err
		}
		free = to
	}
	return nil
}

// check refuses files of another layout.
func check(tx *bbolt.Tx) error {
	for _, name := range buckets {
		if tx.Bucket([]byte(name)) == nil {
			return fmt.Errorf("%w: no bucket %s", ErrDamaged, name)
		}
	}
	if got := tx.Bucket([]byte(metaBucket)).Get([]byte(versionKey)); len(got) != 1 || got[0] != version {
		return fmt.Errorf("%w: layout version %x, want %x", ErrDamaged, got, version)
	}
	return nil
}
