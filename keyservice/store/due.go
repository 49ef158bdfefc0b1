package store

import (
	"encoding/binary"
	"fmt"
	"time"
)

// Kinds of what falls due.
const (
	DueDeletion = iota + 1 // of a key
	DueExpiry              // of imported material
	DueRotation            // of a key
	DueGrantExpiry
)

// Due is something that falls due. It only reminds: whether it still holds is to be seen from the
// key or grant.
type Due struct {
	Time time.Time
	Kind byte
	Key  KeyID
	// Grant is for DueGrantExpiry only.
	Grant GrantID
}

const dueSize = 8 + 1 + 16 + 32 // bytes

func (d *Due) encode() []byte {
	b := binary.BigEndian.AppendUint64(make([]byte, 0, dueSize), uint64(d.Time.UnixMilli()))
	b = append(b, d.Kind)
	b = append(b, d.Key[:]...)
	return append(b, d.Grant[:]...)
}

func decodeDue(b []byte) (Due, error) {
	if len(b) != dueSize {
		return Due{}, fmt.Errorf("%w: due entry of %d bytes", ErrDamaged, len(b))
	}
	d := Due{Time: time.UnixMilli(int64(binary.BigEndian.Uint64(b))).UTC(), Kind: b[8]}
	copy(d.Key[:], b[9:])
	copy(d.Grant[:], b[9+len(d.Key):])
	return d, nil
}

// Remind notes something for the time when it falls due.
func (t *Tx) Remind(d Due) error { return t.bucket(dueBucket).Put(d.encode(), nil) }

// Forget removes a note.
func (t *Tx) Forget(d Due) error { return t.bucket(dueBucket).Delete(d.encode()) }

// Next returns the note that falls due first; false if there is none.
func (t *Tx) Next() (Due, bool, error) {
	k, _ := t.bucket(dueBucket).Cursor().First()
	if k == nil {
		return Due{}, false, nil
	}
	d, err := decodeDue(k)
	return d, err == nil, err
}
