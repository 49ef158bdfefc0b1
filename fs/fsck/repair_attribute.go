package fsck

import (
	"bytes"
	"encoding/json"

	"kmsfs/envelope"
	"kmsfs/fs/volume/backing"

	"golang.org/x/sys/unix"
)

// lostAttribute is what a file in lost+found says of an attribute that didn't open.
type lostAttribute struct {
	Path      string `json:"path"`
	Attribute string `json:"attribute"` // its name in the volume
	Value     []byte `json:"value"`
}

// moveAttributes moves all attributes of the entry that don't open into a file in lost+found.
func (e *entryRepair) moveAttributes() outcome {
	n, err := e.dir.Lookup(e.entry.Name)
	if err != nil {
		return outcome{err: err}
	}
	defer n.Close()
	object, err := e.object()
	if err != nil {
		return outcome{err: err}
	}
	bad := e.badAttributes(n, object)
	if len(bad) == 0 {
		return outcome{what: "moved with the one before"}
	}
	lost, err := e.openLost()
	if err != nil {
		return outcome{err: err}
	}
	name, err := lost.freeName(e.base() + ".attributes")
	if err != nil {
		return outcome{err: err}
	}
	what := "moved to the file " + name.path
	if err := e.note(FaultAttribute, what); err != nil {
		return outcome{err: err}
	}
	return outcome{what, e.moveAttributesTo(lost, name, n, bad)}
}

func (e *entryRepair) moveAttributesTo(lost *lostDirectory, name lostName, n backing.Node, bad []badAttribute) error {
	var text bytes.Buffer
	for _, a := range bad {
		value, err := readAttribute(n, a.name)
		if err != nil {
			return err
		}
		if err := json.NewEncoder(&text).Encode(lostAttribute{e.path, a.name, value}); err != nil {
			return err
		}
	}
	st, err := n.Stat()
	if err != nil {
		return err
	}
	err = e.createLost(lost, name, e.Sealed.Config().KeyARN, st, func(f *envelope.File) error {
		_, err := f.WriteAt(text.Bytes(), 0)
		return err
	})
	for _, a := range bad {
		if err == nil {
			err = n.Removexattr(a.name)
		}
	}
	return err
}

// object returns the ID that the entry's attributes are sealed with.
func (e *entryRepair) object() (id [envelope.IDSize]byte, err error) {
	if e.entry.Kind == unix.DT_DIR {
		record, err := e.record(e.dir, e.entry.Name)
		if err != nil {
			return id, err
		}
		return record.ID, nil
	}
	header, err := e.header(e.dir, e.entry.Name)
	if err != nil {
		return id, err
	}
	return header.FileID, nil
}
