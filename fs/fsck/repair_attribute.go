package fsck

import (
	"bytes"
	"encoding/json"

	"kmsfs/envelope"
	"kmsfs/fs/volume"

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
	fd, err := unix.Openat(e.dir, e.entry.Name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return outcome{err: err}
	}
	defer unix.Close(fd)
	object, err := e.object(fd)
	if err != nil {
		return outcome{err: err}
	}
	bad := e.badAttributes(fd, object)
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
	return outcome{what, e.moveAttributesTo(lost, name, fd, bad)}
}

func (e *entryRepair) moveAttributesTo(lost *lostDirectory, name lostName, fd int, bad []badAttribute) error {
	var text bytes.Buffer
	for _, a := range bad {
		value, err := readAttribute(fd, a.name)
		if err != nil {
			return err
		}
		if err := json.NewEncoder(&text).Encode(lostAttribute{e.path, a.name, value}); err != nil {
			return err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	err := e.createLost(lost, name, e.Sealed.Config().KeyARN, st, func(f *envelope.File) error {
		_, err := f.WriteAt(text.Bytes(), 0)
		return err
	})
	for _, a := range bad {
		if err == nil {
			err = unix.Fremovexattr(fd, a.name)
		}
	}
	return err
}

// object returns the ID that the attributes of an open file or directory are sealed with.
func (e *entryRepair) object(fd int) (id [envelope.IDSize]byte, err error) {
	if e.entry.Kind == unix.DT_DIR {
		record, err := e.ReadDirectory(fd)
		if err != nil {
			return id, err
		}
		return record.ID, nil
	}
	header, err := e.Sealed.ReadHeader(&volume.Storage{FD: fd}, false)
	if err != nil {
		return id, err
	}
	return header.FileID, nil
}
