package envelope_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"kmsfs/envelope"
)

// vector is a file of testdata/vectors (FORMAT.md, section 10).
type vector struct {
	About          string            `json:"about"`
	Kind           string            `json:"kind"`
	VolumeID       string            `json:"volumeID"`
	MetadataKey    string            `json:"metadataKey"`
	PlaintextNames bool              `json:"plaintextNames"`
	Input          map[string]string `json:"input"`
	Expect         map[string]string `json:"expect"`
}

const vectorDirectory = "testdata/vectors"

// readVectors returns all vectors by the names of their files.
func readVectors(t *testing.T) map[string]vector {
	t.Helper()
	files, err := filepath.Glob(vectorDirectory + "/*.json")
	if err != nil || len(files) < 50 {
		t.Fatalf("%d vectors, %v", len(files), err)
	}
	vectors := map[string]vector{}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		decoder := json.NewDecoder(bytes.NewReader(b))
		decoder.DisallowUnknownFields()
		var v vector
		if err := decoder.Decode(&v); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		vectors[strings.TrimSuffix(filepath.Base(file), ".json")] = v
	}
	return vectors
}

// check compares what a reader got with all that the vector expects.
func (v vector) check(t *testing.T, got map[string]string) {
	t.Helper()
	if maps.Equal(got, v.Expect) {
		return
	}
	for name := range got {
		if _, ok := v.Expect[name]; !ok {
			t.Errorf("%s: %.200s, want none", name, got[name])
		}
	}
	for name, want := range v.Expect {
		if got, ok := got[name]; !ok || got != want {
			t.Errorf("%s: %.200q, want %.200q", name, got, want)
		}
	}
}

// TestVectors reads the vectors with the package, as TestFormat does without.
func TestVectors(t *testing.T) {
	for name, v := range readVectors(t) {
		t.Run(name, func(t *testing.T) { v.check(t, v.read(t)) })
	}
}

func (v vector) in(t *testing.T, name string) []byte {
	t.Helper()
	return unhex(t, v.Input[name])
}

// open returns the volume in which the vector lies.
func (v vector) open(t *testing.T) *envelope.Volume {
	t.Helper()
	key := unhex(t, v.MetadataKey)
	c := newConfig()
	c.VolumeID, c.PlaintextNames = envelope.VolumeID(unhex(t, v.VolumeID)), v.PlaintextNames
	b, err := c.Marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	volume, err := envelope.OpenVolume(b, key)
	if err != nil {
		t.Fatal(err)
	}
	return volume
}

// read returns what the package makes of a vector.
func (v vector) read(t *testing.T) map[string]string {
	t.Helper()
	var got map[string]string
	var err error
	switch v.Kind {
	case "keys":
		got = v.readKeys(t)
	case "configuration":
		got, err = v.readConfiguration(t)
	case "name":
		var name string
		name, err = v.open(t).DecryptName(envelope.DirectoryID(v.in(t, "directory")), string(v.in(t, "entry")), string(v.in(t, "long")))
		got = map[string]string{"name": hex.EncodeToString([]byte(name))}
	case "symlink":
		var target string
		target, err = v.open(t).OpenTarget(string(v.in(t, "target")))
		got = map[string]string{"target": hex.EncodeToString([]byte(target))}
	case "attribute":
		got, err = v.readAttribute(t)
	case "directory":
		got, err = v.readDirectory(t)
	case "mark":
		var m envelope.Mark
		m, err = v.open(t).OpenMark(v.in(t, "file"))
		got = map[string]string{"time": fmt.Sprint(m.Time.UnixNano()), "bootID": hex.EncodeToString(m.BootID[:])}
	case "file":
		got, err = v.readFile(t)
	default:
		t.Fatalf("kind %q", v.Kind)
	}
	if err == nil {
		got["result"] = "opens"
		return got
	}
	if !isRefused(err) {
		t.Fatal(err)
	}
	corrupt, ok := errors.AsType[*envelope.CorruptError](err)
	switch {
	case !ok:
		return map[string]string{"result": "refused"}
	case corrupt.Block == -1:
		return map[string]string{"result": "header"}
	case corrupt.Block == -2:
		return map[string]string{"result": "size"}
	}
	return map[string]string{"result": "block", "block": strconv.FormatInt(corrupt.Block, 10)}
}

// readKeys returns those of the expected keys that the package's are equal to.
func (v vector) readKeys(t *testing.T) map[string]string {
	t.Helper()
	volume, got := v.open(t), map[string]string{}
	for label, text := range v.Expect {
		if label == "result" {
			continue
		}
		want := unhex(t, text)
		var have []byte
		var err error
		switch label {
		case "header", "content":
			have, err = envelope.FileUnderKey(label, v.in(t, "dataKey"), envelope.FileID(v.in(t, "fileID")))
		default:
			have, err = volume.UnderKey(label)
		}
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case label == "content":
			block, err := aes.NewCipher(want)
			if err != nil {
				t.Fatal(err)
			}
			gcm, err := cipher.NewGCM(block)
			if err != nil {
				t.Fatal(err)
			}
			want = gcm.Seal(nil, make([]byte, 12), nil, nil)
		case len(want) == 64:
			want = newSIV(t, want).seal(nil, nil)
		}
		if bytes.Equal(have, want) {
			got[label] = text
		}
	}
	return got
}

func (v vector) readConfiguration(t *testing.T) (map[string]string, error) {
	t.Helper()
	volume, err := envelope.OpenVolume(v.in(t, "file"), unhex(t, v.MetadataKey))
	if err != nil {
		return nil, err
	}
	c := volume.Config()
	return map[string]string{
		"volumeID": c.VolumeID.String(), "plaintextNames": strconv.FormatBool(c.PlaintextNames), "owner": fmt.Sprint(c.Owner),
		"keyARN": c.KeyARN, "keyARNs": strings.Join(c.KeyARNs, " "), "metadataKeyARN": c.MetadataKeyARN,
		"metadataKey": hex.EncodeToString(c.MetadataKey),
	}, nil
}

func (v vector) readAttribute(t *testing.T) (map[string]string, error) {
	t.Helper()
	volume, object := v.open(t), [envelope.IDSize]byte(v.in(t, "object"))
	name, err := volume.OpenAttributeName(object, string(v.in(t, "name")))
	if err != nil {
		return nil, err
	}
	value, err := volume.OpenAttribute(object, name, v.in(t, "value"))
	return map[string]string{"name": hex.EncodeToString([]byte(name)), "value": hex.EncodeToString(value)}, err
}

// parseLocation reads a location as vectors have it.
func parseLocation(t *testing.T, s string) envelope.Location {
	t.Helper()
	directory, name, ok := strings.Cut(s, ":")
	if !ok {
		t.Fatalf("location %q", s)
	}
	return envelope.Location{Directory: envelope.DirectoryID(unhex(t, directory)), Name: string(unhex(t, name))}
}

func textLocations(locations ...envelope.Location) string {
	var texts []string
	for _, l := range locations {
		texts = append(texts, fmt.Sprintf("%s:%x", l.Directory, l.Name))
	}
	return strings.Join(texts, " ")
}

func (v vector) readDirectory(t *testing.T) (map[string]string, error) {
	t.Helper()
	d, err := v.open(t).OpenDirectory(v.in(t, "record"))
	if err != nil {
		return nil, err
	}
	return map[string]string{
		"ID": d.ID.String(), "locations": textLocations(d.Locations...), "key": d.Key, "compression": fmt.Sprint(d.Compression),
		"accepted": strconv.FormatBool(d.LiesAt(parseLocation(t, v.Input["at"]))),
	}, nil
}

func (v vector) readFile(t *testing.T) (map[string]string, error) {
	t.Helper()
	volume, st := v.open(t), &memory{}
	st.write(v.in(t, "file"), 0)
	if value, ok := v.Input["overflow"]; ok {
		st.overflow = unhex(t, value)
	}
	f, err := open(volume, st, v.in(t, "dataKey"), envelope.FileOptions{ReadOnly: true})
	if err != nil {
		return nil, err
	}
	content, err := readAll(f)
	if err != nil {
		return nil, err
	}
	h := f.Header()
	var digests []string
	for _, d := range h.LinkDigests {
		digests = append(digests, hex.EncodeToString(d[:]))
	}
	got := map[string]string{
		"fileID": h.FileID.String(), "wrappedKey": hex.EncodeToString(h.WrappedKey), "sparse": strconv.FormatBool(h.Sparse),
		"sealed": fmt.Sprint(h.Sealed), "keyARN": h.KeyARN, "owner": fmt.Sprint(h.Owner), "path": hex.EncodeToString([]byte(h.Path)),
		"locations": textLocations(h.Locations...), "digests": strings.Join(digests, " "),
		"accepted": strconv.FormatBool(volume.LiesAt(&h, parseLocation(t, v.Input["at"]))),
		"size":     strconv.Itoa(len(content)), "SHA-256": fmt.Sprintf("%x", sha256.Sum256(content)),
	}
	if h.NextOwner != nil {
		got["nextOwner"] = fmt.Sprint(*h.NextOwner)
	}
	return got, nil
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
