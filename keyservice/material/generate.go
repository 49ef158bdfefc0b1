package material

import (
	"context"
	"runtime"

	"kmsfs/keyservice/keyspec"
	"kmsfs/keyservice/store"
)

// Plain is key material in the clear that is not in the store yet.
type Plain struct {
	Key    store.KeyID
	ID     store.MaterialID
	Secret []byte
}

// Wipe clears the secret.
func (m *Plain) Wipe() {
	if m != nil {
		clear(m.Secret)
	}
}

// Generator makes key material: only as many key pairs at a time as there are processors.
type Generator struct{ places chan struct{} }

// NewGenerator returns a generator.
func NewGenerator() Generator { return Generator{make(chan struct{}, runtime.GOMAXPROCS(0))} }

// Generate makes a spec's key material, which the caller wipes.
func (g Generator) Generate(ctx context.Context, spec *keyspec.Spec) (secret []byte, err error) {
	if spec.Asymmetric() {
		select {
		case g.places <- struct{}{}:
			defer func() { <-g.places }()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	erasing(func() { secret, err = spec.Generate() })
	return secret, err
}

// GeneratePair makes a key pair; the caller wipes the private key.
func (g Generator) GeneratePair(ctx context.Context, spec *keyspec.Spec) (private, public []byte, err error) {
	if private, err = g.Generate(ctx, spec); err != nil {
		return nil, nil, err
	}
	if public, err = spec.PublicKey(private); err != nil {
		clear(private)
		return nil, nil, err
	}
	return private, public, nil
}

// UnwrapImport is imported key material in the clear, which the caller wipes. It is checked against the spec.
func UnwrapImport(spec *keyspec.Spec, algorithm string, private, encrypted []byte) (secret []byte, err error) {
	erasing(func() {
		secret, err = keyspec.UnwrapImport(algorithm, private, encrypted)
		if err == nil {
			err = spec.Check(secret)
		}
	})
	if err != nil {
		clear(secret)
		return nil, err
	}
	return secret, nil
}
