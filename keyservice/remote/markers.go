package remote

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"kmsfs/keyservice/kms"
)

// A service elsewhere keeps no markers. This host keeps those of its own mounts beside its journal:
// markers of other hosts are unknown here.

// markersPrefix begins the names of the files that hold the open markers of a volume, in JSON.
const markersPrefix = "markers."

// getMarkers returns the markers of a volume that are open on this host.
func (s *Service) getMarkers(v *kms.VolumeKey) (out *kms.GetMarkersOutput, err error) {
	out = &kms.GetMarkersOutput{}
	err = s.journal.withMarkers(v, func(all []kms.Marker) ([]kms.Marker, bool) {
		out.Markers = all
		return nil, false
	})
	return out, err
}

func (s *Service) openMarker(in *kms.OpenMarkerInput) (*kms.OpenMarkerOutput, error) {
	return &kms.OpenMarkerOutput{}, s.journal.withMarkers(&in.Volume, func(all []kms.Marker) ([]kms.Marker, bool) {
		return append(all, in.Marker), true
	})
}

func (s *Service) closeMarkers(in *kms.CloseMarkersInput) (*kms.CloseMarkersOutput, error) {
	return &kms.CloseMarkersOutput{}, s.journal.withMarkers(&in.Volume, func(all []kms.Marker) ([]kms.Marker, bool) {
		rest := slices.DeleteFunc(slices.Clone(all), func(m kms.Marker) bool { return slices.Contains(in.IDs, m.ID) })
		return rest, len(rest) < len(all)
	})
}

// withMarkers has edit see a volume's markers, and makes what it returns durable if it says so.
// Other processes wait meanwhile.
func (j *journal) withMarkers(v *kms.VolumeKey, edit func([]kms.Marker) ([]kms.Marker, bool)) (err error) {
	id, err := hex.DecodeString(v.VolumeID())
	if err != nil || len(id) != 16 {
		return kms.Invalid("encryptionContext", "", "Member must be that of a volume's metadata key")
	}
	lock, err := unix.Openat(int(j.dir.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(lock)
	if err := unix.Flock(lock, unix.LOCK_EX); err != nil {
		return fmt.Errorf("locking %s: %w", j.dir.Name(), err)
	}
	name := markersPrefix + hex.EncodeToString(id)
	all, err := j.readMarkers(name)
	if err != nil {
		return fmt.Errorf("%s/%s: %w", j.dir.Name(), name, err)
	}
	next, changed := edit(all)
	if !changed {
		return nil
	}
	if err := j.writeMarkers(name, next); err != nil {
		return fmt.Errorf("%s/%s: %w", j.dir.Name(), name, err)
	}
	return nil
}

func (j *journal) readMarkers(name string) (all []kms.Marker, err error) {
	fd, err := unix.Openat(int(j.dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	content, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	return all, json.Unmarshal(content, &all)
}

// writeMarkers replaces the file, durably.
func (j *journal) writeMarkers(name string, all []kms.Marker) error {
	content, err := json.Marshal(all)
	if err != nil {
		return err
	}
	temp := name + ".new"
	fd, err := unix.Openat(int(j.dir.Fd()), temp, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), temp)
	_, err = f.Write(content)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := unix.Renameat(int(j.dir.Fd()), temp, int(j.dir.Fd()), name); err != nil {
		return err
	}
	return j.dir.Sync()
}
