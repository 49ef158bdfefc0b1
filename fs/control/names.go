// Package control is how programs speak to a mount of kmsfs, and how they find one.
//
// A mount takes its orders as extended attributes of its directories: names.go has their names,
// which package fs answers to. The rest is the programs' side:
//
//   - mounts.go: the mount table, and which mount a path lies on
//   - directory.go: a directory on a mount, whose attributes are read and set
//   - walk.go: an order for all files beneath a directory
package control

// Prefix begins the names of all attributes that mounts keep for themselves. No list shows them, so
// that programs that copy attributes leave them alone.
const Prefix = "user.kmsfs."

// The attributes that a mount answers to.
const (
	// Key is the KMS key of a directory's policy. On a file, it shows the file's key and is
	// read-only.
	Key = Prefix + "key"
	// EffectiveKey shows the KMS key for files made in a directory, inherited or not. Read-only.
	EffectiveKey = Prefix + "effective.key"

	// Compression and EffectiveCompression are the same for compression: "none" or "zstd".
	Compression          = Prefix + "compression"
	EffectiveCompression = Prefix + "effective.compression"

	// Rewrap, set on a directory to the name of a file in it, wraps the file's data key anew. Set
	// on the root to the empty string, it wraps the volume's metadata key anew.
	Rewrap = Prefix + "rewrap"
	// Adopt, set on a directory to the name of an entry, accepts the entry's place and owner.
	Adopt = Prefix + "adopt"

	// Locked, on the root, is Yes while the mount is locked. Setting it locks, removing it unlocks.
	Locked = Prefix + "locked"
)

// Yes is the value of Locked.
const Yes = "1"
