package envelope

import (
	"github.com/tink-crypto/tink-go/v2/daead/subtle"
)

// Volume is an opened volume: its configuration and the keys derived from its metadata key. It is safe for
// concurrent use.
type Volume struct {
	config Config

	name, details, directory, symlink, attribute *subtle.AESSIV

	locationKey, markKey, configurationKey []byte
}
