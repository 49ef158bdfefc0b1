package store

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"

	"go.etcd.io/bbolt"
)

// The parts of a bbolt page, in bytes, all numbers in the machine's own byte order: id 8, flags 2, count of elements 2, number of further
// pages 4. The elements follow; a branch's: where its key begins 4, size of the key 4, page 8; a leaf's: flags 4, where its key and then its
// value begin, counted from the element's begin, 4, size of the key 4, size of the value 4.
const (
	pageHeader = 16
	branchFlag = 0x01
	leafFlag   = 0x02
	element    = 16
	// bucketFlag is that of elements whose values are buckets: 8 bytes for the bucket's first page and 8 that nobody uses here.
	bucketFlag   = 0x01
	bucketHeader = 16
	// mostLevels is how many branches can lie above a bucket: each has two pages or more below it.
	mostLevels = 4
)

// check refuses files of another layout, and those whose damage bbolt would follow out of its memory.
func check(tx *bbolt.Tx, file io.ReaderAt) error {
	if err := checkPages(tx); err != nil {
		return err
	}
	if err := checkRoot(tx, file); err != nil {
		return err
	}
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

// checkPages refuses pages whose headers are impossible: bbolt believes them, and would do endless work for a wrong one.
func checkPages(tx *bbolt.Tx) error {
	end := int(tx.Size()) / tx.DB().Info().PageSize
	for id := 0; id < end; id++ {
		page, err := tx.Page(id)
		if page == nil || err != nil {
			return err
		}
		switch {
		case page.Type == "free":
			continue
		case id+page.OverflowCount >= end || strings.HasPrefix(page.Type, "unknown"):
			return fmt.Errorf("%w: page %d, %s, overflows by %d of %d", ErrDamaged, id, page.Type, page.OverflowCount, end)
		}
		id += page.OverflowCount
	}
	return nil
}

// checkRoot refuses impossible buckets. The small ones are pages that lie in the root's pages: bbolt copies them, and would read what lies
// behind the copies. (Behind other pages it finds the file's mapping or its end, where guard catches it.)
func checkRoot(tx *bbolt.Tx, file io.ReaderAt) error {
	return checkBuckets(tx, file, uint64(tx.Cursor().Bucket().Root()), mostLevels)
}

// checkBuckets does it for a page of the root's and those below it.
func checkBuckets(tx *bbolt.Tx, file io.ReaderAt, id uint64, levels int) error {
	page, err := readPage(tx, file, id)
	if err != nil {
		return err
	}
	if binary.NativeEndian.Uint16(page[8:]) != branchFlag {
		return leaf(page, checkBucket)
	}
	children := page[pageHeader:]
	count := int(binary.NativeEndian.Uint16(page[10:]))
	if count > len(buckets) || len(children) < count*element || levels == 0 {
		return fmt.Errorf("%w: more pages of buckets than there are buckets", ErrDamaged)
	}
	for i := range count {
		if err := checkBuckets(tx, file, binary.NativeEndian.Uint64(children[i*element+8:]), levels-1); err != nil {
			return err
		}
	}
	return nil
}

// readPage reads a page with those that it flows over into, which checkPages has found to be in the file.
func readPage(tx *bbolt.Tx, file io.ReaderAt, id uint64) ([]byte, error) {
	size := tx.DB().Info().PageSize
	if id > uint64(tx.Size())/uint64(size) {
		return nil, fmt.Errorf("%w: no page %d", ErrDamaged, id)
	}
	info, err := tx.Page(int(id))
	if err != nil {
		return nil, err
	}
	if info == nil {
		return nil, fmt.Errorf("%w: no page %d", ErrDamaged, id)
	}
	page := make([]byte, (1+info.OverflowCount)*size)
	if _, err := file.ReadAt(page, int64(id)*int64(size)); err != nil {
		return nil, fmt.Errorf("%w: page %d: %w", ErrDamaged, id, err)
	}
	return page, nil
}

func checkBucket(flags uint32, value []byte) error {
	if flags != bucketFlag || len(value) < bucketHeader {
		return fmt.Errorf("%w: something among the buckets that is none", ErrDamaged)
	}
	if binary.NativeEndian.Uint64(value) != 0 { // it has pages of its own
		return nil
	}
	return leaf(value[bucketHeader:], func(uint32, []byte) error { return nil })
}

// leaf goes through a leaf page's elements.
func leaf(page []byte, each func(flags uint32, value []byte) error) error {
	if len(page) < pageHeader || binary.NativeEndian.Uint16(page[8:]) != leafFlag {
		return fmt.Errorf("%w: the buckets' page isn't a leaf", ErrDamaged)
	}
	count := int(binary.NativeEndian.Uint16(page[10:]))
	elements := page[pageHeader:]
	if len(elements) < count*element {
		return fmt.Errorf("%w: %d elements in a page of %d bytes", ErrDamaged, count, len(page))
	}
	for i := range count {
		e := elements[i*element:]
		pos, key, value := binary.NativeEndian.Uint32(e[4:]), binary.NativeEndian.Uint32(e[8:]), binary.NativeEndian.Uint32(e[12:])
		begin := uint64(pos) + uint64(key)
		if uint64(pos) < uint64((count-i)*element) || begin+uint64(value) > uint64(len(e)) {
			return fmt.Errorf("%w: an element that isn't in its page", ErrDamaged)
		}
		if err := each(binary.NativeEndian.Uint32(e), e[begin:begin+uint64(value)]); err != nil {
			return err
		}
	}
	return nil
}
