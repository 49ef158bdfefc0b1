package home

import (
	"errors"
	"fmt"

	"kmsfs/keyservice/sealer"
	"kmsfs/keyservice/store"
)

// Why a home can't be opened or made. Errors wrap one of these and say more.
var (
	// ErrMissing says that there is no home: the directory is missing or empty.
	ErrMissing = errors.New("no key service home")
	// ErrExists says that a home can't be made where something is already.
	ErrExists = errors.New("something is there already")
	// ErrLocked says that another process has the home open.
	ErrLocked = errors.New("another process has the key service home open")
	// ErrWrongSecret says that the passphrase or key is not the home's.
	ErrWrongSecret = sealer.ErrWrongSecret
	// ErrSealerMismatch says that the home needs another kind of secret than was given.
	ErrSealerMismatch = errors.New("the key service home is sealed by something else")
	// ErrDamaged says that the directory is no home, or not one that is whole.
	ErrDamaged = errors.New("not an intact key service home")
	// ErrNotServed says that no process serves a home.
	ErrNotServed = errors.New("no process serves the key service home")
	// ErrUnsafe says that users other than the home's owner could have changed it.
	ErrUnsafe = errors.New("unsafe key service home")
)

// AsError returns an error of what lies in a home as one that says what it means for the home.
func AsError(err error) error {
	if errors.Is(err, store.ErrDamaged) || errors.Is(err, sealer.ErrMalformed) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}
