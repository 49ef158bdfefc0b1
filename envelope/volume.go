package envelope

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
	"slices"
	"sync/atomic"

	"github.com/tink-crypto/tink-go/v2/daead/subtle"
)

// Volume is an opened volume: its configuration and the keys derived from its metadata key. It is safe for
// concurrent use.
type Volume struct {
	config Config
	// current is the configuration as it is now: its KMS keys may differ from config's.
	current atomic.Pointer[Config]

	name, details, directory, symlink, attribute *subtle.AESSIV

	locationKey, markKey, configurationKey []byte
}

// OpenVolume opens a volume's configuration, the content of its file, with the metadata key, 32 bytes. The error wraps
// ErrFormat or ErrAuthentication.
func OpenVolume(configuration, metadataKey []byte) (*Volume, error) {
	config, err := ParseConfig(configuration)
	if err != nil {
		return nil, err
	}
	v := &Volume{config: *config}
	if err := v.deriveKeys(metadataKey); err != nil {
		return nil, err
	}
	if err := v.verifyConfig(configuration); err != nil {
		v.Close()
		return nil, err
	}
	v.current.Store(config)
	return v, nil
}

func (v *Volume) verifyConfig(configuration []byte) error {
	line, code, err := splitConfig(configuration)
	if err != nil {
		return err
	}
	if !hmac.Equal(code, mac(v.configurationKey, line)) {
		return fmt.Errorf("configuration: %w", ErrAuthentication)
	}
	return nil
}

// Reconfigure takes another configuration of the same volume, the content of its file, for the present one. The error wraps ErrFormat or ErrAuthentication.
func (v *Volume) Reconfigure(configuration []byte) error {
	config, err := ParseConfig(configuration)
	if err != nil {
		return err
	}
	if err := v.verifyConfig(configuration); err != nil {
		return err
	}
	if config.VolumeID != v.config.VolumeID || config.PlaintextNames != v.config.PlaintextNames {
		return fmt.Errorf("configuration is another volume's: %w", ErrAuthentication)
	}
	v.current.Store(config)
	return nil
}

// MarshalConfig returns the content of the configuration's file for another configuration of the volume, which keeps its ID and kind of names. The metadata
// key that it wraps must be the volume's.
func (v *Volume) MarshalConfig(c *Config) ([]byte, error) { return c.marshal(v.configurationKey) }

func (v *Volume) deriveKeys(metadataKey []byte) (err error) {
	salt := v.config.VolumeID[:]
	for label, siv := range map[string]**subtle.AESSIV{
		"kmsfs/1 name": &v.name, "kmsfs/1 details": &v.details, "kmsfs/1 directory": &v.directory,
		"kmsfs/1 symlink": &v.symlink, "kmsfs/1 attribute": &v.attribute,
	} {
		if *siv, err = newSIV(metadataKey, salt, label); err != nil {
			return fmt.Errorf("metadata key: %w", err)
		}
	}
	for label, key := range map[string]*[]byte{
		"kmsfs/1 location": &v.locationKey, "kmsfs/1 mark": &v.markKey, "kmsfs/1 configuration": &v.configurationKey,
	} {
		if *key, err = derive(metadataKey, salt, label, sha256.Size); err != nil {
			return fmt.Errorf("metadata key: %w", err)
		}
	}
	return nil
}

// Config returns a copy of the volume's present configuration.
func (v *Volume) Config() Config {
	c := *v.current.Load()
	c.KeyARNs, c.MetadataKey = slices.Clone(c.KeyARNs), slices.Clone(c.MetadataKey)
	return c
}

// ID returns the volume's ID.
func (v *Volume) ID() VolumeID { return v.config.VolumeID }

// Allows says whether files may be wrapped under that KMS key.
func (v *Volume) Allows(keyARN string) bool { return slices.Contains(v.current.Load().KeyARNs, keyARN) }

// Close forgets those keys that can be overwritten. The volume must not be used after it.
func (v *Volume) Close() {
	clear(v.locationKey)
	clear(v.markKey)
	clear(v.configurationKey)
	v.name, v.details, v.directory, v.symlink, v.attribute = nil, nil, nil, nil, nil
}

// mac is MAC of FORMAT.md, section 1, over the parts in order.
func mac(key []byte, parts ...[]byte) []byte {
	m := hmac.New(sha256.New, key)
	for _, p := range parts {
		m.Write(p)
	}
	return m.Sum(nil)
}
