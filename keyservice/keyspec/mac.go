package keyspec

import (
	"crypto"
	"crypto/hmac"
)

var macHashes = map[string]crypto.Hash{
	"HMAC_SHA_224": crypto.SHA224, "HMAC_SHA_256": crypto.SHA256, "HMAC_SHA_384": crypto.SHA384, "HMAC_SHA_512": crypto.SHA512,
}

// GenerateMAC makes the MAC of a message.
func (s *Spec) GenerateMAC(algorithm string, material, message []byte) ([]byte, error) {
	if err := s.admit(algorithm, s.MacAlgorithms, "HMAC_SHA_224", "HMAC_SHA_256", "HMAC_SHA_384", "HMAC_SHA_512"); err != nil {
		return nil, err
	}
	if err := s.Check(material); err != nil {
		return nil, err
	}
	h := hmac.New(macHashes[algorithm].New, material)
	h.Write(message)
	return h.Sum(nil), nil
}

// VerifyMAC says whether the MAC is the key's for the message; if it isn't, that is ErrMAC.
func (s *Spec) VerifyMAC(algorithm string, material, message, mac []byte) error {
	want, err := s.GenerateMAC(algorithm, material, message)
	if err != nil {
		return err
	}
	if !hmac.Equal(mac, want) {
		return ErrMAC
	}
	return nil
}
