package home

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"kmsfs/keyservice/material"
	"kmsfs/keyservice/sealer"
)

// rootKeyVersion is that of the root key file's format.
const rootKeyVersion = 1

// sealedRootKey is what the root key file holds, as JSON.
type sealedRootKey struct {
	Version int `json:"version"`
	// Sealer is the kind of sealer.
	Sealer string `json:"sealer"`
	Sealed []byte `json:"sealed"`
}

func (d *Dir) readRootKey() (*sealedRootKey, error) {
	text, err := d.readFile(rootKeyFile, maxRootKeyFile)
	if err != nil {
		return nil, err
	}
	root, err := parseRootKey(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, filepath.Join(d.Name(), rootKeyFile), err)
	}
	return root, nil
}

func parseRootKey(text []byte) (*sealedRootKey, error) {
	var root sealedRootKey
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&root); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something is behind the sealed root key")
	}
	if root.Version != rootKeyVersion {
		return nil, fmt.Errorf("version %d: want %d", root.Version, rootKeyVersion)
	}
	switch root.Sealer {
	case sealer.KindPassphrase, sealer.KindKeyFile, sealer.KindCredential:
		return &root, nil
	}
	return nil, fmt.Errorf("unknown kind of sealer %q", root.Sealer)
}

// unseal returns the root key, which the caller wipes.
func (r *sealedRootKey) unseal(s sealer.Sealer) ([]byte, error) {
	if s == nil {
		return nil, fmt.Errorf("%w: it needs a %s, and nothing is given", ErrSealerMismatch, r.Sealer)
	}
	if s.Kind() != r.Sealer {
		return nil, fmt.Errorf("%w: it needs a %s, and a %s is given", ErrSealerMismatch, r.Sealer, s.Kind())
	}
	rootKey, err := s.Open(r.Sealed)
	if err != nil {
		return nil, AsError(err)
	}
	if len(rootKey) != material.RootKeySize {
		clear(rootKey)
		return nil, fmt.Errorf("%w: root key of %d bytes: want %d", ErrDamaged, len(rootKey), material.RootKeySize)
	}
	return rootKey, nil
}

// encodeRootKey seals a root key for its file.
func encodeRootKey(s sealer.Sealer, rootKey []byte) ([]byte, error) {
	sealed, err := s.Seal(rootKey)
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(sealedRootKey{rootKeyVersion, s.Kind(), sealed})
	return append(text, '\n'), err
}
