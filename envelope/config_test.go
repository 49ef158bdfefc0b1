package envelope_test

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"kmsfs/envelope"
)

const exampleConfig = `{"Format":1,"VolumeID":"01010101010101010101010101010101","PlaintextNames":false,"Owner":1000,` +
	`"KeyARN":"arn:a","KeyARNs":["arn:a","arn:b"],"MetadataKeyARN":"arn:c","MetadataKey":"d3JhcHBlZA=="}` + "\n"

func newConfig() *envelope.Config {
	return &envelope.Config{
		Format: 1, VolumeID: volumeID, Owner: 1000, KeyARN: "arn:a", KeyARNs: []string{"arn:a", "arn:b"},
		MetadataKeyARN: "arn:c", MetadataKey: []byte("wrapped"),
	}
}

// signConfig appends the second line to a first.
func signConfig(t fatalf, line string) []byte {
	t.Helper()
	key, err := deriveKey(newKey(7), volumeID[:], "kmsfs/1 configuration", 32)
	if err != nil {
		t.Fatalf("%v", err)
	}
	m := hmac.New(sha256.New, key)
	m.Write([]byte(line))
	return []byte(line + hex.EncodeToString(m.Sum(nil)) + "\n")
}

func TestConfig(t *testing.T) {
	want := signConfig(t, exampleConfig)
	got, err := newConfig().Marshal(newKey(7))
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%s, want %s: %v", got, want, err)
	}
	c, err := envelope.ParseConfig(got)
	if err != nil || !reflect.DeepEqual(c, newConfig()) {
		t.Fatalf("parsed %+v: %v", c, err)
	}
	wantContext := map[string]string{"kmsfs:volume": volumeID.String(), "kmsfs:path": "/", "kmsfs:owner": "uid:1000"}
	if got := c.Context(); !maps.Equal(got, wantContext) {
		t.Errorf("context %v, want %v", got, wantContext)
	}
	v, err := envelope.OpenVolume(got, newKey(7))
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if v.ID() != volumeID || !v.Allows("arn:a") || !v.Allows("arn:b") || v.Allows("arn:c") || v.Allows("") {
		t.Error("volume is not what its configuration says")
	}
	mine := v.Config()
	mine.KeyARNs[0], mine.MetadataKey[0] = "changed", 'x'
	if again := v.Config(); !reflect.DeepEqual(&again, newConfig()) {
		t.Error("a copy of the configuration can change the volume's")
	}
	for _, key := range [][]byte{newKey(8), nil, newKey(7)[1:], append(newKey(7), 0)} {
		_, err := envelope.OpenVolume(got, key)
		if err == nil || len(key) == envelope.KeySize && !errors.Is(err, envelope.ErrAuthentication) {
			t.Errorf("key of %d bytes: %v", len(key), err)
		}
		if _, err := newConfig().Marshal(key); err == nil && len(key) != envelope.KeySize {
			t.Errorf("key of %d bytes authenticates", len(key))
		}
	}
	for bit := range 8 * len(got) {
		got[bit/8] ^= 1 << (bit % 8)
		if _, err := envelope.OpenVolume(got, newKey(7)); !errors.Is(err, envelope.ErrAuthentication) && !errors.Is(err, envelope.ErrFormat) {
			t.Fatalf("bit %d: %v", bit, err)
		}
		got[bit/8] ^= 1 << (bit % 8)
	}
	for n := range got {
		if _, err := envelope.ParseConfig(got[:n]); !errors.Is(err, envelope.ErrFormat) {
			t.Fatalf("%d bytes of it: %v", n, err)
		}
	}
}

// TestConfigForm has configurations that are authentic, but not of the one form that there is.
func TestConfigForm(t *testing.T) {
	edit := func(old, new string) []byte {
		if strings.Count(exampleConfig, old) == 0 {
			t.Fatalf("no %q in the example", old)
		}
		return signConfig(t, strings.Replace(exampleConfig, old, new, 1))
	}
	for name, b := range map[string][]byte{
		"nothing":                 nil,
		"no first line":           signConfig(t, ""),
		"empty first line":        signConfig(t, "\n"),
		"not an object":           signConfig(t, "null\n"),
		"empty object":            signConfig(t, "{}\n"),
		"white space":             edit(`,"Owner`, `, "Owner`),
		"white space in front":    edit(`{`, ` {`),
		"white space behind":      edit("}\n", "} \n"),
		"carriage return":         edit("}\n", "}\r\n"),
		"third line":              edit("}\n", "}\n\n"),
		"no line feed":            edit("}\n", "}"),
		"two objects":             edit("}\n", "}{}\n"),
		"format 0":                edit(`"Format":1`, `"Format":0`),
		"format 2":                edit(`"Format":1`, `"Format":2`),
		"format 1.0":              edit(`"Format":1`, `"Format":1.0`),
		"format as text":          edit(`"Format":1`, `"Format":"1"`),
		"member's case":           edit(`"Owner"`, `"owner"`),
		"escaped member":          edit(`"Owner"`, `"\u004fwner"`),
		"escaped value":           edit(`"arn:c"`, `"arn\u003ac"`),
		"unknown member":          edit(`"Owner"`, `"More":1,"Owner"`),
		"member twice":            edit(`"Owner"`, `"Owner":1000,"Owner"`),
		"order":                   edit(`"PlaintextNames":false,"Owner":1000`, `"Owner":1000,"PlaintextNames":false`),
		"missing member":          edit(`"Owner":1000,`, ``),
		"upper-case ID":           edit(`"0101`, `"0A01`),
		"zero ID":                 edit(volumeID.String(), strings.Repeat("0", 32)),
		"short ID":                edit(volumeID.String(), volumeID.String()[2:]),
		"ID null":                 edit(`"`+volumeID.String()+`"`, `null`),
		"owner -1":                edit(`1000`, `-1`),
		"owner 2^32":              edit(`1000`, `4294967296`),
		"owner with exponent":     edit(`1000`, `1e3`),
		"owner null":              edit(`1000`, `null`),
		"names null":              edit(`false`, `null`),
		"no keys":                 edit(`["arn:a","arn:b"]`, `[]`),
		"keys null":               edit(`["arn:a","arn:b"]`, `null`),
		"key is not among them":   edit(`["arn:a",`, `[`),
		"empty key":               edit(`"KeyARN":"arn:a"`, `"KeyARN":""`),
		"empty metadata key ARN":  edit(`arn:c`, ``),
		"not ASCII":               edit(`arn:c`, `arn:é`),
		"not ASCII, nor UTF-8":    edit(`arn:c`, "arn:\xff"),
		"control character":       edit(`arn:c`, `arn:\u0001`),
		"empty metadata key":      edit(`d3JhcHBlZA==`, ``),
		"metadata key, no pad":    edit(`d3JhcHBlZA==`, `d3JhcHBlZA`),
		"metadata key, spare bit": edit(`d3JhcHBlZA==`, `d3JhcHBlZB==`),
		"metadata key, line feed": edit(`d3JhcHBlZA==`, `d3Jh\ncHBlZA==`),
		"upper-case MAC":          append([]byte(exampleConfig), bytes.ToUpper(signConfig(t, exampleConfig)[len(exampleConfig):])...),
		"much too long":           edit(`arn:c`, strings.Repeat("c", envelope.MaxConfigSize)),
	} {
		if c, err := envelope.ParseConfig(b); !errors.Is(err, envelope.ErrFormat) {
			t.Errorf("%s: parsed %+v: %v", name, c, err)
		}
		if _, err := envelope.OpenVolume(b, newKey(7)); !errors.Is(err, envelope.ErrFormat) {
			t.Errorf("%s: opened: %v", name, err)
		}
	}
}

func TestConfigBounds(t *testing.T) {
	// The longest that fits, and one byte more.
	room := envelope.MaxConfigSize - len(signConfig(t, exampleConfig))
	for _, n := range []int{room, room + 1} {
		c := newConfig()
		c.MetadataKeyARN += strings.Repeat("c", n)
		b, err := c.Marshal(newKey(7))
		if n > room {
			if !errors.Is(err, envelope.ErrTooLong) {
				t.Errorf("configuration of %d bytes is written: %v", len(b), err)
			}
			continue
		}
		if err != nil || len(b) != envelope.MaxConfigSize {
			t.Fatalf("%d bytes: %v", len(b), err)
		}
		if _, err := envelope.OpenVolume(b, newKey(7)); err != nil {
			t.Error(err)
		}
	}
	for name, change := range map[string]func(c *envelope.Config){
		"format":           func(c *envelope.Config) { c.Format = 2 },
		"volume":           func(c *envelope.Config) { c.VolumeID = envelope.VolumeID{} },
		"key":              func(c *envelope.Config) { c.KeyARN = "" },
		"keys":             func(c *envelope.Config) { c.KeyARNs = nil },
		"other key":        func(c *envelope.Config) { c.KeyARN = "arn:x" },
		"metadata key":     func(c *envelope.Config) { c.MetadataKey = nil },
		"metadata key ARN": func(c *envelope.Config) { c.MetadataKeyARN = "" },
		"UTF-8":            func(c *envelope.Config) { c.KeyARNs[1] = "\xff" },
		"line feed":        func(c *envelope.Config) { c.KeyARNs[1] = "a\nb" },
	} {
		c := newConfig()
		change(c)
		if _, err := c.Marshal(newKey(7)); !errors.Is(err, envelope.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestConfigRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		arn := rapid.StringMatching(`[ -~]{1,60}`)
		c := &envelope.Config{
			Format:         1,
			VolumeID:       envelope.VolumeID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "volume")),
			PlaintextNames: rapid.Bool().Draw(t, "plaintext names"),
			Owner:          rapid.SampledFrom([]uint32{0, 1000, math.MaxUint32}).Draw(t, "owner"),
			KeyARNs:        rapid.SliceOfN(arn, 1, 4).Draw(t, "keys"),
			MetadataKeyARN: arn.Draw(t, "metadata key ARN"),
			MetadataKey:    rapid.SliceOfN(rapid.Byte(), 1, 300).Draw(t, "metadata key"),
		}
		if c.VolumeID == (envelope.VolumeID{}) {
			return
		}
		c.KeyARN = rapid.SampledFrom(c.KeyARNs).Draw(t, "key")
		b, err := c.Marshal(newKey(7))
		if err != nil {
			t.Fatal(err)
		}
		read, err := envelope.ParseConfig(b)
		if err != nil || !reflect.DeepEqual(read, c) {
			t.Fatalf("read %+v, want %+v: %v", read, c, err)
		}
		if got, want := read.Context()["kmsfs:owner"], fmt.Sprint("uid:", c.Owner); got != want {
			t.Fatalf("owner %s, want %s", got, want)
		}
		if _, err := envelope.OpenVolume(b, newKey(7)); err != nil {
			t.Fatal(err)
		}
	})
}

// FuzzParseConfig checks that what is accepted is what is written.
func FuzzParseConfig(f *testing.F) {
	b, err := newConfig().Marshal(newKey(7))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("{}\n"))
	f.Add(bytes.Replace(b, []byte("arn:c"), []byte(`a\"\\<`), 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := envelope.ParseConfig(b)
		if err != nil {
			if !errors.Is(err, envelope.ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		again, err := c.Marshal(newKey(7))
		if err != nil || len(again) != len(b) || !bytes.Equal(again[:len(b)-65], b[:len(b)-65]) {
			t.Fatalf("read %q, written %q: %v", b, again, err)
		}
	})
}

// FuzzOpenVolume gives first lines that nobody wrote the MAC that they need.
func FuzzOpenVolume(f *testing.F) {
	f.Add(exampleConfig, newKey(7))
	f.Add("{}\n", newKey(8))
	f.Add(exampleConfig, []byte("short"))
	f.Fuzz(func(t *testing.T, line string, key []byte) {
		b := signConfig(t, line)
		v, err := envelope.OpenVolume(b, newKey(7))
		if err == nil {
			c := v.Config()
			if again, err := c.Marshal(newKey(7)); err != nil || !bytes.Equal(again, b) {
				t.Fatalf("read %q, written %q: %v", b, again, err)
			}
		} else if !errors.Is(err, envelope.ErrFormat) && !errors.Is(err, envelope.ErrAuthentication) {
			t.Fatal(err)
		}
		if _, err := envelope.OpenVolume(b, key); err == nil && !bytes.Equal(key, newKey(7)) {
			t.Fatal("another key opens it")
		}
	})
}

// A volume takes another configuration of its own, and no other.
func TestReconfigure(t *testing.T) {
	v := newVolume(t, false)
	config := v.Config()
	config.KeyARNs = append(config.KeyARNs, "arn:new")
	configuration, err := v.MarshalConfig(&config)
	if err != nil {
		t.Fatal(err)
	}
	if v.Allows("arn:new") {
		t.Error("a KMS key is allowed that no configuration names")
	}
	if err := v.Reconfigure(configuration); err != nil || !v.Allows("arn:new") {
		t.Errorf("the KMS key is not allowed: %v", err)
	}
	forged := bytes.Replace(configuration, []byte("arn:new"), []byte("arn:bad"), 1)
	if err := v.Reconfigure(forged); !errors.Is(err, envelope.ErrAuthentication) || v.Allows("arn:bad") {
		t.Errorf("a forged configuration: %v", err)
	}
	config.PlaintextNames = true
	if configuration, err = v.MarshalConfig(&config); err != nil {
		t.Fatal(err)
	}
	if err := v.Reconfigure(configuration); !errors.Is(err, envelope.ErrAuthentication) {
		t.Errorf("a configuration with other names: %v", err)
	}
}
