package store

import (
	"time"
)

// MarkerID names a marker of a volume.
type MarkerID = [32]byte

// Marker is a mount that changes a volume, or has not ended cleanly.
type Marker struct {
	ID     MarkerID  `json:"-"`
	Time   time.Time `json:"time"`
	BootID [16]byte  `json:"bootID"`
}

// markerPrefix is what the keys of a volume's markers begin with.
func markerPrefix(volume string) []byte { return join([]byte(volume), []byte{'/'}) }

// PutMarker stores a marker of a volume.
func (t *Tx) PutMarker(volume string, m *Marker) error {
	return t.put(markerBucket, join(markerPrefix(volume), m.ID[:]), m)
}

// DeleteMarker removes a marker of a volume, if there is one of the ID.
func (t *Tx) DeleteMarker(volume string, id MarkerID) error {
	return t.bucket(markerBucket).Delete(join(markerPrefix(volume), id[:]))
}

// Markers returns the markers of a volume.
func (t *Tx) Markers(volume string) (all []Marker, err error) {
	prefix := markerPrefix(volume)
	err = t.within(markerBucket, prefix, nil, func(rest, _ []byte) (bool, error) {
		m := Marker{}
		if copy(m.ID[:], rest) != len(rest) {
			return true, nil // another volume's
		}
		ok, err := t.get(markerBucket, join(prefix, rest), &m)
		if ok {
			all = append(all, m)
		}
		return true, err
	})
	return all, err
}
