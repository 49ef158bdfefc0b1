// Package sealer protects a key service's root key at rest: under a passphrase, a key file or a systemd credential.
//
// What a sealer returns is specified in keyservice/FORMAT.md.
package sealer

import (
	"errors"
)

// Sealer seals root keys. Implementations are safe for concurrent use.
type Sealer interface {
	// Kind is one of the Kind constants.
	Kind() string
	// Seal returns the root key in a form that only Open of a sealer with the same secret opens.
	Seal(rootKey []byte) (sealed []byte, err error)
	// Open returns the root key, which the caller wipes. The error is ErrWrongSecret or ErrMalformed, or says why the
	// secret can't be had.
	Open(sealed []byte) (rootKey []byte, err error)
}

// The kinds of sealers.
const (
	KindPassphrase = "passphrase"
	KindKeyFile    = "key-file"
	KindCredential = "systemd-credential"
)

var (
	// ErrWrongSecret says that the passphrase, key file or credential is not the one that the root key was sealed with,
	// or that the sealed root key was tampered with, which can't be told apart.
	ErrWrongSecret = errors.New("wrong passphrase or key")
	// ErrMalformed says that what should be a sealed root key is not one that this kind of sealer made.
	ErrMalformed = errors.New("malformed sealed root key")
	// ErrBadSecret says that the passphrase, key file or credential can't be used: empty, too short, too long, readable by others.
	ErrBadSecret = errors.New("unusable secret")
)
