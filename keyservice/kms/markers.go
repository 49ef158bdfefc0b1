package kms

import "time"

// The operations on markers keep what is known of the mounts of volumes where nobody who writes a
// volume can change it. A marker is open from before a mount changes the volume until the mount has
// ended cleanly. Whoever may decrypt the volume's metadata key may call them. kmsfs's own.
var (
	OpenMarker   = newMarkerChange[OpenMarkerInput, OpenMarkerOutput]("OpenMarker")
	GetMarkers   = newForMounts[VolumeKey, GetMarkersOutput]("GetMarkers", "kms:Decrypt")
	CloseMarkers = newMarkerChange[CloseMarkersInput, CloseMarkersOutput]("CloseMarkers")
)

func newMarkerChange[I, O any](name string) *Operation[I, O] {
	o := newForMounts[I, O](name, "kms:Decrypt")
	o.Changes = true
	return o
}

// VolumeKey is a volume's wrapped metadata key, which shows the right to the volume and names it.
type VolumeKey struct {
	KeyId             string
	CiphertextBlob    []byte
	EncryptionContext map[string]string
}

// MarkerID is the SHA-256 of a marker's file.
type MarkerID [32]byte

// Marker is a mount that changes a volume.
type Marker struct {
	ID MarkerID
	// Time is when the mount began, and BootID the kernel's boot ID then.
	Time   time.Time
	BootID [16]byte
}

// OpenMarkerInput opens a marker of a volume.
type OpenMarkerInput struct {
	Volume VolumeKey
	Marker Marker
}

// OpenMarkerOutput is empty.
type OpenMarkerOutput struct{}

// GetMarkersOutput has the markers of a volume that are open.
type GetMarkersOutput struct {
	Markers []Marker `json:",omitempty"`
}

// CloseMarkersInput closes markers of a volume. Those that aren't open make no difference.
type CloseMarkersInput struct {
	Volume VolumeKey
	IDs    []MarkerID
}

// CloseMarkersOutput is empty.
type CloseMarkersOutput struct{}

// MaxMarkers bounds the markers of a volume that are open at once.
const MaxMarkers = 1000

// VolumeID is the ID of the volume whose metadata key it is; empty if it is none.
func (v *VolumeKey) VolumeID() string {
	if v.EncryptionContext["kmsfs:path"] != "/" { // files' keys have other paths
		return ""
	}
	return v.EncryptionContext["kmsfs:volume"]
}
