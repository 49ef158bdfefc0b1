package envelope

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The control files of a volume (FORMAT.md, section 2).
const (
	ConfigName    = "kmsfs.volume"
	MarkName      = "kmsfs.mark"
	LockName      = "kmsfs.lock"
	TempName      = "kmsfs.temp"
	DirectoryName = "kmsfs.dir"
)

// MaxConfigSize bounds the configuration, in bytes.
const MaxConfigSize = 65536

// Config is a volume's configuration (FORMAT.md, section 3). The order of its members is that of the file.
type Config struct {
	// Format is 1.
	Format         int
	VolumeID       VolumeID
	PlaintextNames bool
	// Owner is the uid that the metadata key's encryption context names.
	Owner uint32
	// KeyARN is the KMS key for new files; KeyARNs are those under which files may be wrapped.
	KeyARN  string
	KeyARNs []string
	// MetadataKeyARN is the KMS key that wraps MetadataKey.
	MetadataKeyARN string
	MetadataKey    []byte
}

// MarshalText is the ID's text form.
func (id VolumeID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText is ParseVolumeID.
func (id *VolumeID) UnmarshalText(text []byte) (err error) {
	*id, err = ParseVolumeID(string(text))
	return err
}

// Context returns the encryption context of the metadata key.
func (c *Config) Context() map[string]string {
	return map[string]string{
		"kmsfs:volume": c.VolumeID.String(),
		"kmsfs:path":   "/",
		"kmsfs:owner":  "uid:" + strconv.FormatUint(uint64(c.Owner), 10),
	}
}

// ParseConfig reads a configuration, the content of its file, without authenticating it. The error wraps ErrFormat. What it
// accepts is just what Marshal writes.
func ParseConfig(b []byte) (*Config, error) {
	line, _, err := splitConfig(b)
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(line))
	decoder.DisallowUnknownFields()
	c := new(Config)
	if err := decoder.Decode(c); err != nil {
		return nil, fmt.Errorf("configuration: %w: %w", ErrFormat, err)
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	if again, err := c.line(); err != nil || !bytes.Equal(again, line) {
		return nil, fmt.Errorf("configuration has another form than it should: %w", ErrFormat)
	}
	return c, nil
}

func (c *Config) check() error {
	switch {
	case c.Format != 1:
		return fmt.Errorf("configuration: format %d is unknown: %w", c.Format, ErrFormat)
	case c.VolumeID == VolumeID{}:
		return fmt.Errorf("configuration: volume ID is zero: %w", ErrFormat)
	case c.KeyARN == "" || c.MetadataKeyARN == "" || len(c.MetadataKey) == 0:
		return fmt.Errorf("configuration: a key is missing: %w", ErrFormat)
	case !slices.Contains(c.KeyARNs, c.KeyARN):
		return fmt.Errorf("configuration: KeyARN is not among KeyARNs: %w", ErrFormat)
	}
	for _, arn := range append(slices.Clone(c.KeyARNs), c.MetadataKeyARN) {
		if strings.ContainsFunc(arn, func(r rune) bool { return r < ' ' || r > '~' }) {
			return fmt.Errorf("configuration: a key's ARN is not printable ASCII: %w", ErrFormat)
		}
	}
	return nil
}

// line is the configuration's first line.
func (c *Config) line() ([]byte, error) {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(c); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return b.Bytes(), nil
}

// Marshal returns the content of the configuration's file, authenticated under the metadata key, 32 bytes.
func (c *Config) Marshal(metadataKey []byte) ([]byte, error) {
	key, err := derive(metadataKey, c.VolumeID[:], "kmsfs/1 configuration", KeySize)
	if err != nil {
		return nil, fmt.Errorf("metadata key: %w", err)
	}
	defer clear(key)
	return c.marshal(key)
}

// marshal is Marshal, with the configuration key.
func (c *Config) marshal(key []byte) ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	line, err := c.line()
	if err != nil {
		return nil, err
	}
	b := append(line, hex.EncodeToString(mac(key, line))+"\n"...)
	if len(b) > MaxConfigSize {
		return nil, fmt.Errorf("configuration has %d bytes, at most %d fit: %w", len(b), MaxConfigSize, ErrTooLong)
	}
	return b, nil
}

// splitConfig returns the first line, with its line feed, and the MAC.
func splitConfig(b []byte) (line, code []byte, err error) {
	const codeLine = 2*32 + 1 // hex digits and a line feed
	if len(b) > MaxConfigSize || len(b) <= codeLine || bytes.Count(b, []byte("\n")) != 2 {
		return nil, nil, fmt.Errorf("configuration is not two lines of at most %d bytes: %w", MaxConfigSize, ErrFormat)
	}
	line, second := b[:len(b)-codeLine], b[len(b)-codeLine:]
	code, err = hex.DecodeString(string(second[:codeLine-1]))
	if err != nil || line[len(line)-1] != '\n' || second[codeLine-1] != '\n' || hex.EncodeToString(code)+"\n" != string(second) {
		return nil, nil, fmt.Errorf("configuration's second line is no MAC: %w", ErrFormat)
	}
	return line, code, nil
}
