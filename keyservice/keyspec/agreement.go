package keyspec

import (
	"crypto/ecdsa"
	"fmt"
)

// DeriveSharedSecret is ECDH's secret of a key and somebody else's public key: the x coordinate, as long as the curve's field elements.
// Only NIST's curves are for it, as in AWS. The caller wipes it.
func (s *Spec) DeriveSharedSecret(material, peerSPKI []byte) ([]byte, error) {
	if err := s.admit("ECDH", s.KeyAgreementAlgorithms, "ECDH"); err != nil {
		return nil, err
	}
	peer, err := s.public(peerSPKI)
	if err != nil {
		return nil, err
	}
	point, err := peer.(*ecdsa.PublicKey).ECDH()
	if err != nil {
		return nil, fmt.Errorf("%w of %s: %w", ErrPublicKey, s.Name, err)
	}
	key, err := s.private(material)
	if err != nil {
		return nil, err
	}
	scalar, err := key.(*ecdsa.PrivateKey).ECDH()
	if err != nil {
		return nil, fmt.Errorf("%w of %s: %w", ErrMaterial, s.Name, err)
	}
	return scalar.ECDH(point)
}
