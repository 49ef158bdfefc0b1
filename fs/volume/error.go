package volume

import "errors"

// What can be wrong with a volume, wrapped with its path.
var (
	ErrNotVolume = errors.New("not a kmsfs volume")
	ErrInUse     = errors.New("the volume is mounted already")
	ErrDamaged   = errors.New("the volume's configuration is damaged")
	ErrNotEmpty  = errors.New("the directory is not empty")
)

// ErrMismatch says that a file or directory lies elsewhere, or has another owner, than its
// authenticated header or record says.
var ErrMismatch = errors.New("lies elsewhere, or has another owner, than its header says")
