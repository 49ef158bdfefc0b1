package kms

// Event is something that the file system found or did of itself.
type Event struct {
	// Name is letters: "ContextMismatch", "UncleanShutdownFound", "VolumeMounted", "VolumeUnmounted", "BlockRepaired", "Rewrapped", ...
	Name string
	// KeyARN and EncryptionContext are those of the file concerned, if there is one.
	KeyARN            string            `json:",omitempty"`
	EncryptionContext map[string]string `json:",omitempty"`
	// Details are further facts, such as the two places of a ContextMismatch.
	Details map[string]string `json:",omitempty"`
	// ErrorCode and ErrorMessage say what was refused because of it; empty if nothing was.
	ErrorCode    string `json:",omitempty"`
	ErrorMessage string `json:",omitempty"`
}

// RecordEventOutput is empty.
type RecordEventOutput struct{}

// RecordEvent writes an event of the file system's own into the audit log. It is for the home's owner
// and for mounts. kmsfs's own.
var RecordEvent = newForMounts[Event, RecordEventOutput]("RecordEvent", "kmsfs:RecordEvent")
