package envelope_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/cryptotest"
	"time"

	"github.com/klauspost/compress/zstd"

	"kmsfs/envelope"
)

// vector is a file of testdata/vectors; FORMAT.md, section 11, says what is in it.
type vector struct {
	About  string
	Kind   string
	Expect string
	Given  given
	Want   any `json:",omitempty"`
}

// raw is bytes, in hex.
type raw []byte

func (r raw) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, r), nil }

func (r *raw) UnmarshalText(b []byte) (err error) {
	*r, err = hex.DecodeString(string(b))
	return err
}

type location struct{ Directory, Name raw }

// given is what a reader is given; only the fields that a kind of vector needs are there.
type given struct {
	MetadataKey    raw        `json:",omitempty"`
	VolumeID       raw        `json:",omitempty"`
	PlaintextNames bool       `json:",omitempty"`
	DataKey        raw        `json:",omitempty"`
	FileID         raw        `json:",omitempty"`
	DirectoryID    raw        `json:",omitempty"`
	Object         raw        `json:",omitempty"`
	Entry          raw        `json:",omitempty"`
	Long           raw        `json:",omitempty"`
	Backing        raw        `json:",omitempty"`
	Sealed         raw        `json:",omitempty"`
	Overflow       raw        `json:",omitempty"`
	Links          []location `json:",omitempty"`
}

// What a reader finds.
type (
	wantKeys          map[string]raw
	wantConfiguration struct {
		Format         int
		VolumeID       raw
		PlaintextNames bool
		Owner          uint32
		KeyARN         raw
		KeyARNs        []raw
		MetadataKeyARN raw
		MetadataKey    raw
	}
	wantName    struct{ Name raw }
	wantSymlink struct {
		Target raw
		Size   int64
	}
	wantAttribute struct{ Name, Value raw }
	wantDirectory struct {
		ID          raw
		Owners      []uint32
		Locations   []location
		Key         raw
		Compression int
	}
	wantMark struct {
		Time   uint64
		BootID raw
	}
	wantFile struct {
		FileID      raw
		Sparse      bool
		Compressed  bool `json:",omitempty"`
		Sealed      uint32
		KeyARN      raw
		WrappedKey  raw
		Owner       uint32
		NextOwner   *uint32 `json:",omitempty"`
		Path        raw
		Locations   []location `json:",omitempty"`
		LinkDigests []raw      `json:",omitempty"`
		Lies        []bool     `json:",omitempty"` // of each of the links that are given, whether the file lies there
		Size        int64
		SHA256      raw
	}
	wantBlock struct{ Block int64 } // the one that is refused
)

const formatVectors = "testdata/vectors"

var update = flag.Bool("update", false, "write the vectors in testdata anew")

// TestFormat reads the vectors twice: with the package, and with a reader made from FORMAT.md's text.
func TestFormat(t *testing.T) {
	makeFormatVectors(t)
	names, err := filepath.Glob(formatVectors + "/*.json")
	if err != nil || len(names) < 40 {
		t.Fatalf("%d vectors, %v", len(names), err)
	}
	for _, name := range names {
		t.Run(strings.TrimSuffix(filepath.Base(name), ".json"), func(t *testing.T) {
			x, want := readFormatVector(t, name)
			check := func(reader string, got any, err error) {
				t.Helper()
				expect, found := result(t, got, err)
				if expect != x.Expect {
					t.Fatalf("%s: %s (%v), want %s", reader, expect, err, x.Expect)
				}
				if b, err := json.Marshal(found); err != nil || string(b) != want {
					t.Errorf("%s: %s, want %s: %v", reader, b, want, err)
				}
			}
			got, err := x.readByText()
			check("reader made from the text", got, err)
			if x.Kind != "keys" { // the package doesn't tell its keys: TestKeys
				got, err = x.readByPackage(t)
				check("package", got, err)
			}
		})
	}
}

// TestKeys compares the keys that the vectors have with the package's, which doesn't tell them.
func TestKeys(t *testing.T) {
	seen := 0
	for _, name := range []string{"keys-data", "keys-metadata"} {
		x, want := readFormatVector(t, formatVectors+"/"+name+".json")
		var keys wantKeys
		must(t, 0, json.Unmarshal([]byte(want), &keys))
		for label, key := range keys {
			var have, expected []byte
			var err error
			if seen++; strings.HasPrefix(label, "file ") {
				have, err = envelope.FileUnderKey(label, x.Given.DataKey, envelope.FileID(x.Given.FileID))
			} else {
				have, err = newVolume(t, false).UnderKey(label)
			}
			must(t, have, err)
			switch {
			case label == "file content":
				block, err := aes.NewCipher(key)
				gcm, err := cipher.NewGCM(must(t, block, err))
				expected = must(t, gcm, err).Seal(nil, make([]byte, 12), nil, nil)
			case len(key) == 64:
				expected = newSIV(t, key).seal(nil, nil)
			default:
				expected = key
			}
			if !bytes.Equal(have, expected) {
				t.Errorf("%s key is another", label)
			}
		}
	}
	if seen != 10 {
		t.Errorf("%d keys", seen)
	}
}

// readFormatVector returns a vector, and its Want without white space.
func readFormatVector(t *testing.T, name string) (x vector, want string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	indented := json.RawMessage("null")
	x.Want = &indented
	decoder := json.NewDecoder(bytes.NewReader(b))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&x); err != nil {
		t.Fatal(err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, indented); err != nil {
		t.Fatal(err)
	}
	return x, compact.String()
}

// TestFormatDamaged changes the vectors, byte by byte: both readers refuse the same ones, and read the others alike.
func TestFormatDamaged(t *testing.T) {
	names, err := filepath.Glob(formatVectors + "/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		x, _ := readFormatVector(t, name)
		if x.Kind == "keys" || x.Expect != "opens" {
			continue
		}
		verdict := func(got any, err error) string {
			expect, found := result(t, got, err)
			b, err := json.Marshal(found)
			return expect + " " + string(must(t, b, err))
		}
		for what, p := range map[string]*raw{
			"Entry": &x.Given.Entry, "Long": &x.Given.Long, "Backing": &x.Given.Backing, "Sealed": &x.Given.Sealed, "Overflow": &x.Given.Overflow,
		} {
			right := bytes.Clone(*p)
			for at := 0; at < len(right); at += 1 + at/100*rarely() {
				for _, bit := range []int{0, 5} {
					*p = bytes.Clone(right)
					(*p)[at] ^= 1 << bit
					if x.Kind == "file" && what == "Sealed" && at < 1024 {
						resign(t, *p)
					}
					text := verdict(x.readByText())
					if pkg := verdict(x.readByPackage(t)); text != pkg {
						t.Errorf("%s, %s, bit %d of byte %d: the package finds %s; a reader made from the text %s", filepath.Base(name), what, bit, at, pkg, text)
					}
				}
			}
			*p = right
		}
	}
}

// rarely is how much more sparsely what takes long is tested.
func rarely() int {
	if *soak {
		return 1
	}
	return 8
}

// result returns a vector's Expect and Want.
func result(t *testing.T, got any, err error) (string, any) {
	r, ok := asRefusal(err)
	switch {
	case err == nil:
		return "opens", got
	case !ok:
		t.Fatal(err)
	case r.part == "":
		return "refused", nil
	case r.part == "block":
		return "refused block", wantBlock{r.block}
	}
	return "refused " + r.part, nil
}

// makeFormatVectors makes the vectors anew and, without -update, compares them with those that are there: what can't be made any more would rot.
func makeFormatVectors(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1)) // goroutines would draw random bytes in any order
	for name, scenario := range formatScenarios() {
		h := fnv.New64a()
		h.Write([]byte(name))
		cryptotest.SetGlobalRandom(t, h.Sum64()) // the same nonces each time
		x := scenario(t)
		var got any
		var err error
		if x.Kind == "keys" {
			got = x.Given.keys()
		} else {
			got, err = x.readByPackage(t)
		}
		expect, want := result(t, got, err)
		if expect != x.Expect {
			t.Fatalf("%s: %s (%v), want %s", name, expect, err, x.Expect)
		}
		x.Want = want
		b, err := json.MarshalIndent(x, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, '\n')
		path := filepath.Join(formatVectors, name+".json")
		if *update {
			must(t, 0, os.WriteFile(path, b, 0o644))
		} else if known, err := os.ReadFile(path); err != nil || !bytes.Equal(known, b) {
			t.Errorf("%s is not what is made now: if that is right, write it anew with -update: %v", path, err)
		}
	}
}

// readByPackage reads a vector with the package; of what can be sealed in one way only it checks that it is sealed so.
func (x *vector) readByPackage(t *testing.T) (any, error) {
	g := &x.Given
	if x.Kind == "configuration" {
		return g.packageConfiguration(t)
	}
	v := newVolume(t, g.PlaintextNames)
	if id := v.ID(); !bytes.Equal(g.VolumeID, id[:]) || !bytes.Equal(g.MetadataKey, newKey(7)) {
		t.Fatal("vector is of another volume")
	}
	switch x.Kind {
	case "name":
		name, err := v.DecryptName(envelope.DirectoryID(g.DirectoryID), string(g.Entry), string(g.Long))
		if err != nil {
			return nil, refused(t, err)
		}
		if b, err := v.EncryptName(envelope.DirectoryID(g.DirectoryID), name); err != nil || b.Entry != string(g.Entry) || b.Long != string(g.Long) {
			t.Errorf("sealed %q and %q: %v", b.Entry, b.Long, err)
		}
		return &wantName{raw(name)}, nil
	case "symlink":
		target, err := v.OpenTarget(string(g.Sealed))
		return &wantSymlink{raw(target), envelope.TargetSize(int64(len(g.Sealed)))}, refused(t, err)
	case "attribute":
		name, err := v.OpenAttributeName([16]byte(g.Object), string(g.Backing))
		if err != nil {
			return nil, refused(t, err)
		}
		if b, err := v.SealAttributeName([16]byte(g.Object), name); err != nil || b != string(g.Backing) {
			t.Errorf("sealed %q: %v", b, err)
		}
		value, err := v.OpenAttribute([16]byte(g.Object), name, g.Sealed)
		return &wantAttribute{raw(name), value}, refused(t, err)
	case "directory":
		d, err := v.OpenDirectory(g.Sealed)
		if err != nil {
			return nil, refused(t, err)
		}
		return &wantDirectory{d.ID[:], d.Owners, locations(d.Locations), raw(d.Key), int(d.Compression)}, nil
	case "mark":
		m, err := v.OpenMark(g.Sealed)
		if err != nil {
			return nil, refused(t, err)
		}
		if !bytes.Equal(v.SealMark(m), g.Sealed) {
			t.Error("sealed otherwise")
		}
		return &wantMark{uint64(m.Time.UnixNano()), m.BootID[:]}, nil
	case "file":
		return g.packageFile(v)
	}
	return nil, fmt.Errorf("kind %q is unknown", x.Kind)
}

// refused makes a refusal of an error that says that something was not sealed so.
func refused(t *testing.T, err error) error {
	if err == nil {
		return nil
	}
	if !isRefused(err) {
		t.Errorf("error is of no known kind: %v", err)
	}
	return errPart
}

func (g *given) packageConfiguration(t *testing.T) (any, error) {
	v, err := envelope.OpenVolume(g.Sealed, g.MetadataKey)
	if err != nil {
		return nil, refused(t, err)
	}
	c := v.Config()
	if b, err := c.Marshal(g.MetadataKey); err != nil || !bytes.Equal(b, g.Sealed) {
		t.Errorf("written %q: %v", b, err)
	}
	w := &wantConfiguration{c.Format, c.VolumeID[:], c.PlaintextNames, c.Owner, raw(c.KeyARN), nil, raw(c.MetadataKeyARN), c.MetadataKey}
	for _, arn := range c.KeyARNs {
		w.KeyARNs = append(w.KeyARNs, raw(arn))
	}
	return w, nil
}

func (g *given) packageFile(v *envelope.Volume) (any, error) {
	st := newDisk()
	st.put(g.Sealed, 0)
	if len(g.Overflow) > 0 {
		st.setOverflow(g.Overflow)
	}
	var content []byte
	f, err := open(v, st, g.DataKey, envelope.FileOptions{ReadOnly: true})
	if err == nil {
		content, err = readAll(f)
	}
	if corrupt, ok := errors.AsType[*envelope.CorruptError](err); ok {
		switch corrupt.Part.Kind {
		case envelope.PartHeader, envelope.PartOverflow:
			return nil, errHeader
		case envelope.PartSize:
			return nil, errSize
		default:
			return nil, &refusal{"block", corrupt.Part.Block}
		}
	} else if err != nil {
		return nil, err
	}
	h, hash := f.Header(), sha256.Sum256(content)
	w := &wantFile{
		FileID: h.FileID[:], Sparse: h.Sparse, Compressed: h.Compression == envelope.CompressionZstd, Sealed: h.Sealed, KeyARN: raw(h.KeyARN), WrappedKey: h.WrappedKey, Owner: h.Owner,
		NextOwner: h.NextOwner, Path: raw(h.Path), Locations: locations(h.Locations), Size: int64(len(content)), SHA256: hash[:],
	}
	for _, d := range h.LinkDigests {
		w.LinkDigests = append(w.LinkDigests, d[:])
	}
	for _, l := range g.Links {
		w.Lies = append(w.Lies, v.LiesAt(&h, envelope.Location{Directory: envelope.DirectoryID(l.Directory), Name: string(l.Name)}))
	}
	return w, nil
}

func locations(of []envelope.Location) (ls []location) {
	for _, l := range of {
		ls = append(ls, location{l.Directory[:], raw(l.Name)})
	}
	return ls
}

type scenario func(t *testing.T) vector

// formatScenarios returns what makes the vectors, under their names.
func formatScenarios() map[string]scenario {
	all := map[string]scenario{
		"keys-data": func(t *testing.T) vector {
			return vector{About: "the keys under a file's data key", Kind: "keys", Expect: "opens", Given: given{DataKey: newKey(1), FileID: pattern(5, 16)}}
		},
		"keys-metadata": func(t *testing.T) vector {
			return vector{About: "the keys under a volume's metadata key", Kind: "keys", Expect: "opens", Given: given{MetadataKey: newKey(7), VolumeID: volumeID[:]}}
		},
	}
	for _, add := range []func(map[string]scenario){
		configurationScenarios, nameScenarios, symlinkScenarios, attributeScenarios, directoryScenarios, markScenarios, fileScenarios,
		compressionScenarios,
		illegalNameScenarios,
	} {
		add(all)
	}
	return all
}

// must returns x.
func must[T any](t testing.TB, x T, err error) T {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

func configurationScenarios(all map[string]scenario) {
	add := func(name, about, expect string, edit func(t *testing.T, b []byte) []byte) {
		all["configuration"+name] = func(t *testing.T) vector {
			sealed := signConfig(t, exampleConfig)
			if edit != nil {
				sealed = edit(t, sealed)
			}
			return vector{About: about, Kind: "configuration", Expect: expect, Given: given{MetadataKey: newKey(7), Sealed: sealed}}
		}
	}
	replace := func(old, new string) func(t *testing.T, b []byte) []byte {
		return func(t *testing.T, b []byte) []byte { return signConfig(t, strings.Replace(exampleConfig, old, new, 1)) }
	}
	add("", "two keys", "opens", nil)
	add("-escapes", "an ARN with a quotation mark, a backslash and what HTML would escape", "opens", replace("arn:c", `arn:\"\\<&>/`))
	add("-bit", "a bit of the first line is not what was authenticated", "refused", func(t *testing.T, b []byte) []byte { return flip(b, 70) })
	add("-mac", "a bit of the MAC is another", "refused", func(t *testing.T, b []byte) []byte { return flip(b, len(b)-2) })
	add("-space", "white space, authenticated", "refused", replace(`,"Owner"`, `, "Owner"`))
	add("-order", "members in another order, authenticated", "refused", replace(`"PlaintextNames":false,"Owner":1000`, `"Owner":1000,"PlaintextNames":false`))
	add("-format-2", "an unknown format, authenticated", "refused", replace(`"Format":1`, `"Format":2`))
	add("-zero-id", "the volume ID of all zeros, authenticated", "refused", replace(strings.Repeat("01", 16), strings.Repeat("00", 16)))
	add("-no-key", "no wrapped metadata key, authenticated", "refused", func(t *testing.T, _ []byte) []byte {
		before, after, _ := strings.Cut(exampleConfig, `"MetadataKey":"`)
		_, after, _ = strings.Cut(after, `"`)
		return signConfig(t, before+`"MetadataKey":"`+`"`+after)
	})
	add("-control-character", "an ARN that is not printable, authenticated", "refused", replace("arn:c", `arn:\u0001`))
	add("-member", "an unknown member, authenticated", "refused", replace(`"Format":1`, `"Format":1,"More":1`))
	add("-third-line", "a third line", "refused", func(t *testing.T, b []byte) []byte { return append(b, '\n') })
	add("-foreign-key", "KeyARN is not among KeyARNs, authenticated", "refused", replace(`["arn:a",`, `[`))
}

func nameScenarios(all map[string]scenario) {
	add := func(name, about, expect string, plaintextNames bool, plain string, edit func(g *given)) {
		all["name-"+name] = func(t *testing.T) vector {
			b, err := newVolume(t, plaintextNames).EncryptName(directoryID, plain)
			must(t, b, err)
			g := given{
				MetadataKey: newKey(7), VolumeID: volumeID[:], PlaintextNames: plaintextNames, DirectoryID: directoryID[:],
				Entry: raw(b.Entry), Long: raw(b.Long),
			}
			if edit != nil {
				edit(&g)
			}
			return vector{About: about, Kind: "name", Expect: expect, Given: g}
		}
	}
	long := strings.Repeat("long name, ", 24)[:255]
	add("one-byte", "a name of one byte", "opens", false, "a", nil)
	add("short", "a name of 175 bytes, the longest short one", "opens", false, long[:175], nil)
	add("long", "a name of 176 bytes, the shortest long one", "opens", false, long[:176], nil)
	add("longest", "a name of 255 bytes", "opens", false, long, nil)
	add("not-utf-8", "names are bytes", "opens", false, "\xff\xfe\n", nil)
	add("plaintext", "plaintext names", "opens", true, "name", nil)
	add("plaintext-reserved", "plaintext names: one that begins as control files do", "opens", true, "kmsfs.dir", nil)
	add("plaintext-reserved-twice", "plaintext names: one that begins as moved ones do", "opens", true, "kmsfs.=kmsfs.dir", nil)
	add("plaintext-long", "plaintext names: one that is too long once it is moved", "opens", true, "kmsfs."+long[:249], nil)
	add("other-directory", "an entry moved to another directory", "refused", false, "name", func(g *given) { g.DirectoryID = otherDirectoryID[:] })
	add("bit", "a bit is another", "refused", false, "name", func(g *given) { g.Entry[3] ^= 1 })
	add("spare-bits", "the same bytes in another base64", "refused", false, "name", func(g *given) { g.Entry[len(g.Entry)-1]++ })
	add("long-hash", "a long name's file is another's", "refused", false, long, func(g *given) { g.Entry[20] ^= 1 })
	add("long-needlessly", "a short name as a long one", "refused", false, "name", func(g *given) {
		g.Long = g.Entry
		g.Entry = raw(longEntry(string(g.Long)))
	})
	add("plaintext-control", "plaintext names: a name that is a control file's", "refused", true, "name", func(g *given) { g.Entry = raw("kmsfs.dir") })
	add("plaintext-moved-needlessly", "plaintext names: moved, without a reason", "refused", true, "name", func(g *given) { g.Entry = raw("kmsfs.=name") })
}

// sealedName is the backing name of what need not be a name.
func sealedName(t *testing.T, name string) raw {
	key := kdf(newKey(7), volumeID[:], "kmsfs/1 name", 64)
	return raw(base64.RawURLEncoding.EncodeToString(newSIV(t, key).seal([]byte(name), directoryID[:])))
}

func illegalNameScenarios(all map[string]scenario) {
	for what, name := range map[string]string{"empty": "", "dot": ".", "dot-dot": "..", "slash": "a/b", "nul": "a\x00b"} {
		all["name-illegal-"+what] = func(t *testing.T) vector {
			return vector{
				About: "what is no name, sealed: " + what, Kind: "name", Expect: "refused",
				Given: given{MetadataKey: newKey(7), VolumeID: volumeID[:], DirectoryID: directoryID[:], Entry: sealedName(t, name)},
			}
		}
		all["directory-illegal-name-"+what] = func(t *testing.T) vector {
			plain := string(directoryID[:]) + "\x01\x00\x00\x03\xe8\x01" + string(otherDirectoryID[:]) + string(rune(len(name))) + name + "\x00\x00\x00"
			return vector{
				About: "a location whose name is none, sealed: " + what, Kind: "directory", Expect: "refused",
				Given: given{MetadataKey: newKey(7), VolumeID: volumeID[:], Sealed: sealRecord(t, []byte(plain))},
			}
		}
	}
}

func symlinkScenarios(all map[string]scenario) {
	add := func(name, about, expect, target string, edit func(b []byte) []byte) {
		all["symlink"+name] = func(t *testing.T) vector {
			s, err := newVolume(t, false).SealTarget(target)
			sealed := []byte(must(t, s, err))
			if edit != nil {
				sealed = edit(sealed)
			}
			return vector{About: about, Kind: "symlink", Expect: expect, Given: given{MetadataKey: newKey(7), VolumeID: volumeID[:], Sealed: sealed}}
		}
	}
	add("", "a target", "opens", "../some/where", nil)
	add("-one-byte", "a target of one byte", "opens", "a", nil)
	add("-longest", "a target of 3039 bytes", "opens", strings.Repeat("/target", 435)[:3039], nil)
	add("-bit", "a bit is another", "refused", "../some/where", func(b []byte) []byte { return flip(b, 30) })
	add("-nothing", "no target", "refused", "a", func(b []byte) []byte { return b[:42] })
}

func attributeScenarios(all map[string]scenario) {
	add := func(name, about, expect string, value []byte, edit func(g *given)) {
		all["attribute"+name] = func(t *testing.T) vector {
			v := newVolume(t, false)
			backing, err := v.SealAttributeName(objectID, "user.mime_type")
			must(t, backing, err)
			sealed, err := v.SealAttribute(objectID, "user.mime_type", value)
			must(t, sealed, err)
			g := given{MetadataKey: newKey(7), VolumeID: volumeID[:], Object: objectID[:], Backing: raw(backing), Sealed: sealed}
			if edit != nil {
				edit(&g)
			}
			return vector{About: about, Kind: "attribute", Expect: expect, Given: g}
		}
	}
	add("", "an attribute", "opens", []byte("text/plain"), nil)
	add("-empty", "an attribute of no bytes", "opens", nil, nil)
	add("-other-object", "on another object", "refused", []byte("text/plain"), func(g *given) { g.Object = otherObjectID[:] })
	add("-bit", "a bit of the value is another", "refused", []byte("text/plain"), func(g *given) { g.Sealed[20] ^= 1 })
}

func directoryScenarios(all map[string]scenario) {
	add := func(name, about, expect string, d *envelope.Directory, edit func(t *testing.T, b []byte) []byte) {
		all["directory"+name] = func(t *testing.T) vector {
			sealed, err := newVolume(t, false).SealDirectory(d)
			must(t, sealed, err)
			if edit != nil {
				sealed = edit(t, sealed)
			}
			return vector{About: about, Kind: "directory", Expect: expect, Given: given{MetadataKey: newKey(7), VolumeID: volumeID[:], Sealed: sealed}}
		}
	}
	d := newDirectory()
	renamed := newDirectory()
	renamed.Locations = append(renamed.Locations, envelope.Location{Directory: directoryID, Name: "new name"})
	renamed.Owners = append(renamed.Owners, 1<<32-2)
	renamed.Key, renamed.Compression = "", envelope.CompressionInherited
	add("", "one location, a key and no compression", "opens", d, nil)
	compressed := newDirectory()
	compressed.Compression = envelope.CompressionZstd
	add("-zstd", "compression by zstd", "opens", compressed, nil)
	add("-root", "the root", "opens", &envelope.Directory{ID: directoryID, Owners: []uint32{0}, Locations: []envelope.Location{{}}}, nil)
	add("-renamed", "two locations and owners; key and compression inherited", "opens", renamed, nil)
	add("-version-2", "an unknown version", "refused", d, func(_ *testing.T, b []byte) []byte { b[9] = 2; return b })
	add("-bit", "a bit of the sealed part is another", "refused", d, func(_ *testing.T, b []byte) []byte { return flip(b, 40) })
	add("-left-over", "a byte behind the sealed part", "refused", d, func(_ *testing.T, b []byte) []byte { return flip(b, 4095) })
	add("-cut", "not a whole page", "refused", d, func(_ *testing.T, b []byte) []byte { return b[:4095] })
	id, owner, there := string(directoryID[:]), "\x01\x00\x00\x03\xe8", string(otherDirectoryID[:])+"\x01n"
	for _, c := range []struct{ name, about, plain string }{
		{"-zero-id", "the ID of all zeros", strings.Repeat("\x00", 16) + owner + "\x01" + there + "\x00\x00\x00"},
		{"-no-owner", "no owner", id + "\x00\x01" + there + "\x00\x00\x00"},
		{"-three-owners", "three owners", id + "\x03" + strings.Repeat("\x00\x00\x03\xe8", 3) + "\x01" + there + "\x00\x00\x00"},
		{"-no-location", "no location", id + owner + "\x00\x00\x00\x00"},
		{"-root-and-more", "the root's location and another", id + owner + "\x02" + strings.Repeat("\x00", 17) + there + "\x00\x00\x00"},
		{"-zero-parent", "a parent of all zeros with a name", id + owner + "\x01" + strings.Repeat("\x00", 16) + "\x01n\x00\x00\x00"},
		{"-compression-3", "an unknown compression", id + owner + "\x01" + there + "\x00\x00\x03"},
		{"-trailing", "a byte behind the last field", id + owner + "\x01" + there + "\x00\x00\x00\x00"},
		{"-short", "a missing field", id + owner + "\x01" + there + "\x00\x00"},
	} {
		add(c.name, c.about+", sealed", "refused", d, func(t *testing.T, _ []byte) []byte { return sealRecord(t, []byte(c.plain)) })
	}
	add("-flag", "an unknown flag", "refused", d, func(_ *testing.T, b []byte) []byte { return flip(b, 11) })
	add("-magic", "another magic", "refused", d, func(_ *testing.T, b []byte) []byte { return flip(b, 4) })
	add("-length", "a length beyond the page", "refused", d, func(_ *testing.T, b []byte) []byte { b[14] = 0x10; return b })
	add("-format", "three locations, sealed", "refused", d, func(t *testing.T, _ []byte) []byte {
		return sealRecord(t, []byte(string(directoryID[:])+"\x01\x00\x00\x03\xe8\x03"+strings.Repeat(string(otherDirectoryID[:])+"\x01n", 3)+"\x00\x00\x00"))
	})
}

func markScenarios(all map[string]scenario) {
	add := func(name, about, expect string, edit func(b []byte) []byte) {
		all["mark"+name] = func(t *testing.T) vector {
			m := newMark()
			m.Time = m.Time.Add(time.Hour)
			sealed := newVolume(t, false).SealMark(m)
			if edit != nil {
				sealed = edit(sealed)
			}
			return vector{About: about, Kind: "mark", Expect: expect, Given: given{MetadataKey: newKey(7), VolumeID: volumeID[:], Sealed: sealed}}
		}
	}
	add("", "a mark", "opens", nil)
	add("-bit", "a bit of the time is another", "refused", func(b []byte) []byte { return flip(b, 15) })
	add("-magic", "another magic", "refused", func(b []byte) []byte { return flip(b, 4) })
	add("-cut", "63 bytes", "refused", func(b []byte) []byte { return b[:63] })
}

func fileScenarios(all map[string]scenario) {
	type edit struct {
		plaintextNames bool
		size           int
		header         func(v *envelope.Volume, h *envelope.Header)
		change         func(f *envelope.File) error
		damage         func(t *testing.T, m *disk)
	}
	add := func(name, about, expect string, e edit) {
		all["file-"+name] = func(t *testing.T) vector {
			v, st, h := newVolume(t, e.plaintextNames), newDisk(), newHeader()
			links := slices.Clone(h.Locations)
			if e.header != nil {
				e.header(v, h)
				for i := range 4 {
					links = append(links, envelope.Location{Directory: directoryID, Name: linkName(i)})
				}
			}
			f, err := v.CreateFile(st, h, newKey(1), envelope.FileOptions{})
			must(t, f, err)
			mustWrite(t, f, pattern(1, e.size), 0)
			if e.change != nil {
				must(t, 0, e.change(f))
			}
			if e.damage != nil {
				e.damage(t, st)
			}
			g := given{
				MetadataKey: newKey(7), VolumeID: volumeID[:], PlaintextNames: e.plaintextNames, DataKey: newKey(1),
				Sealed: st.content(), Overflow: st.overflow(), Links: locations(append(links, envelope.Location{Directory: directoryID, Name: "elsewhere"})),
			}
			return vector{About: about, Kind: "file", Expect: expect, Given: g}
		}
	}
	addLinks := func(v *envelope.Volume, h *envelope.Header) {
		for i := range 4 {
			v.AddLocation(h, envelope.Location{Directory: directoryID, Name: linkName(i)})
		}
	}
	longPath := func(v *envelope.Volume, h *envelope.Header) { h.Path = strings.Repeat("/path", 300) }
	const three = 3044 + 4068 + 100 // bytes, in three blocks

	add("empty", "no bytes", "opens", edit{})
	add("one-byte", "one byte", "opens", edit{size: 1})
	add("full-block", "3044 bytes: block 0 is full", "opens", edit{size: 3044})
	add("two-blocks", "5000 bytes", "opens", edit{size: 5000})
	add("plaintext-names", "5000 bytes in a volume with plaintext names", "opens", edit{size: 5000, plaintextNames: true})
	add("sparse", "block 1 is a hole", "opens", edit{size: three, change: func(f *envelope.File) error { return f.PunchHole(3044, 4068) }})
	add("two-links", "two locations, and a next owner", "opens", edit{size: 1, header: func(v *envelope.Volume, h *envelope.Header) {
		v.AddLocation(h, envelope.Location{Directory: directoryID, Name: linkName(0)})
		next := uint32(1001)
		h.NextOwner = &next
	}})
	add("links", "five locations, in the overflow", "opens", edit{size: 1, header: addLinks})
	add("links-plaintext-names", "five locations, in an overflow that is not sealed", "opens", edit{size: 1, plaintextNames: true, header: addLinks})
	add("long-path", "a path of 1500 bytes, in the overflow", "opens", edit{size: 1, header: longPath})
	add("long-path-links", "a path of 1500 bytes and five locations, in the overflow", "opens", edit{size: 1, header: func(v *envelope.Volume, h *envelope.Header) {
		longPath(v, h)
		addLinks(v, h)
	}})
	add("overflow-missing", "the overflow is missing", "refused header", edit{size: 1, header: addLinks, damage: func(t *testing.T, m *disk) { m.setOverflow(nil) }})
	add("overflow-bit", "a bit of the overflow is another", "refused header", edit{size: 1, header: addLinks, damage: func(t *testing.T, m *disk) {
		overflow := m.overflow()
		overflow[20] ^= 1
		m.setOverflow(overflow)
	}})
	add("header-bit", "a bit of the header is another", "refused header", edit{size: 1, damage: func(t *testing.T, m *disk) { m.edit(func(p []byte) { p[33] ^= 1 }) }})
	for name, at := range map[string]int{"version": 9, "flag": 11, "cipher": 12, "compression": 13, "reserved": 39} {
		add("unknown-"+name, "an unknown "+name+", authenticated", "refused header", edit{size: 1, damage: func(t *testing.T, m *disk) {
			m.edit(func(p []byte) {
				p[at] |= 8
				resign(t, p)
			})
		}})
	}
	add("cut-block", "cut at a block's end", "refused block", edit{size: three, damage: func(t *testing.T, m *disk) { m.resize(4096) }})
	add("cut-header", "cut behind the header", "refused size", edit{size: three, damage: func(t *testing.T, m *disk) { m.resize(1024) }})
	add("cut-tag", "cut where a block would have no byte", "refused size", edit{size: three, damage: func(t *testing.T, m *disk) { m.resize(4096 + 28) }})
	add("cut-hole", "cut behind a hole", "refused block", edit{
		size: three, change: func(f *envelope.File) error { return f.PunchHole(3044, 4068) },
		damage: func(t *testing.T, m *disk) { m.resize(8192) },
	})
	add("cut-nonce", "cut within a nonce", "refused size", edit{size: three, damage: func(t *testing.T, m *disk) { m.resize(4096 + 5) }})
	add("swapped-blocks", "blocks 1 and 2 swapped", "refused block", edit{size: 3044 + 2*4068 + 1, damage: func(t *testing.T, m *disk) {
		m.edit(func(p []byte) { copy(p[4096:], slices.Concat(p[8192:12288], p[4096:8192])) })
	}})
	add("zeroed", "block 1 zeros, in a file without holes", "refused block", edit{size: three, damage: func(t *testing.T, m *disk) { m.edit(func(p []byte) { clear(p[4096:8192]) }) }})
	// details of a file with plaintext names: at 48 + w, len16(ARN), owner, next owner
	details := func(edit func(details []byte)) func(*testing.T, *disk) {
		return func(t *testing.T, m *disk) {
			m.edit(func(p []byte) {
				edit(p[48+int(binary.BigEndian.Uint16(p[40:])):])
				resign(t, p)
			})
		}
	}
	afterARN := func(b []byte) []byte { return b[2+binary.BigEndian.Uint16(b):] }
	field := func(name, about string, at int, value byte) {
		add(name, about+", authenticated", "refused header", edit{damage: func(t *testing.T, m *disk) {
			m.edit(func(p []byte) {
				p[at] = value
				resign(t, p)
			})
		}})
	}
	field("magic", "another magic", 4, 'x')
	field("details-flag", "the flag that details are sealed is missing", 11, 0)
	field("reserved-40", "a reserved byte behind the lengths", 45, 1)
	field("no-wrapped-key", "a wrapped key of no bytes", 41, 0)
	field("long-details", "details that reach into the MAC", 42, 4)
	field("left-over", "a byte behind the details", 990, 1)
	add("next-owner-flag", "a next owner's flag of 2, authenticated", "refused header", edit{
		plaintextNames: true, damage: details(func(b []byte) { afterARN(b)[4] = 2 }),
	})
	add("next-owner-without-flag", "a next owner without the flag, authenticated", "refused header", edit{
		plaintextNames: true, damage: details(func(b []byte) { afterARN(b)[8] = 1 }),
	})
	add("path-form-2", "an unknown form of the path, authenticated", "refused header", edit{
		plaintextNames: true, damage: details(func(b []byte) { afterARN(b)[9] = 2 }),
	})
	add("path-relative", "a path that does not begin with /, authenticated", "refused header", edit{
		plaintextNames: true, damage: details(func(b []byte) { afterARN(b)[12] = 'x' }),
	})
	for name, size := range map[string]int{"size-1023": 1023, "size-1025": 1025, "size-1052": 1052} {
		add(name, "an impossible size", "refused size", edit{
			size: 10, damage: func(_ *testing.T, m *disk) { m.resize(int64(size)) },
		})
	}
	add("next-owner", "a next owner", "opens", edit{header: func(_ *envelope.Volume, h *envelope.Header) {
		next := uint32(1001)
		h.NextOwner = &next
	}})
	add("last-zeroed", "the last block zeros, in a file with holes", "refused block", edit{
		size: three, change: func(f *envelope.File) error { return f.PunchHole(3044, 4068) },
		damage: func(t *testing.T, m *disk) { m.edit(func(p []byte) { clear(p[8192:]) }) },
	})
}

func linkName(i int) string { return fmt.Sprint("link ", i) }

func compressionScenarios(all map[string]scenario) {
	add := func(name, about, expect string, content []byte, change func(t *testing.T, f *envelope.File, st *disk)) {
		all["zstd-"+name] = func(t *testing.T) vector {
			st := newDisk()
			f := mustCreateAs(t, newVolume(t, false), st, envelope.CompressionZstd, envelope.FileOptions{})
			mustWrite(t, f, content, 0)
			if change != nil {
				change(t, f, st)
			}
			g := given{MetadataKey: newKey(7), VolumeID: volumeID[:], DataKey: newKey(1), Sealed: st.content(), Links: locations(newHeader().Locations)}
			return vector{About: about, Kind: "file", Expect: expect, Given: g}
		}
	}
	const six = 3044 + 6*4068 // bytes: block 0, and a chunk of six blocks, of which a version takes two pages
	const whole = 3044 + 65088
	some := text(1, six, 75)
	damage := func(do func(m *disk)) func(*testing.T, *envelope.File, *disk) {
		return func(_ *testing.T, _ *envelope.File, st *disk) { do(st) }
	}
	forge := func(edit func(plain []byte)) func(*testing.T, *envelope.File, *disk) {
		return func(t *testing.T, _ *envelope.File, st *disk) {
			for i := int64(1); i <= 2; i++ {
				forgePage(t, st, i, true, edit)
			}
		}
	}
	add("empty", "no bytes", "opens", nil, nil)
	add("one-block", "3044 bytes: no chunk", "opens", some[:3044], nil)
	add("one-chunk", "a chunk of six blocks in two pages", "opens", some, nil)
	add("blocks", "a chunk that doesn't become smaller", "opens", pattern(1, 3044+4068+10), nil)
	add("two-chunks", "a whole chunk, and a byte", "opens", text(1, whole+1, 95), nil)
	add("hole", "a chunk that is a hole, and a byte", "opens", nil, func(t *testing.T, f *envelope.File, _ *disk) {
		must(t, 0, f.Truncate(3044+65088+1))
		must(t, 0, f.PunchHole(3044, 65088))
	})
	add("replaced", "a chunk with an older version beside it", "opens", text(2, six, 75), func(t *testing.T, f *envelope.File, _ *disk) {
		must(t, 0, f.Sync())
		mustWrite(t, f, some, 0)
	})
	add("remains", "a chunk with the second page of an older version beside it", "opens", text(2, six, 75), func(t *testing.T, f *envelope.File, st *disk) {
		must(t, 0, f.Sync())
		mustWrite(t, f, some, 0)
		st.punch(4096, 4096)
	})
	add("bit", "a bit of a version is another", "refused block", some, damage(func(m *disk) { m.edit(func(p []byte) { p[2*4096+100] ^= 1 }) }))
	add("magic", "a bit of a magic is another", "refused block", some, damage(func(m *disk) { m.edit(func(p []byte) { p[2*4096-1] ^= 1 }) }))
	add("missing", "a page of a version is zeros", "refused block", some, damage(func(m *disk) { m.punch(2*4096, 4096) }))
	add("swapped", "the two pages of a version are swapped", "refused block", some, damage(func(m *disk) {
		m.edit(func(p []byte) { copy(p[4096:], slices.Concat(p[8192:12288], p[4096:8192])) })
	}))
	add("moved", "a version is one page further", "refused block", some, damage(func(m *disk) {
		m.edit(func(p []byte) { copy(p[8192:16384], bytes.Clone(p[4096:12288])) })
		m.punch(4096, 4096)
	}))
	add("zeroed", "a chunk is zeros, in a file without holes", "refused block", text(1, whole+1, 95), damage(func(m *disk) { m.punch(4096, 16*4096) }))
	add("cut", "cut at a chunk's end", "refused block", text(1, whole+1, 95), damage(func(m *disk) { m.resize(17 * 4096) }))
	add("cut-block", "cut at a block's end, behind a version", "refused block", some, damage(func(m *disk) { m.resize(4 * 4096) }))
	add("length", "another length, authenticated", "refused block", some, forge(func(plain []byte) { plain[17]++ }))
	add("no-frame", "what is no frame, authenticated", "refused block", some, forge(func(plain []byte) { plain[22] ^= 1 }))
	frame := func(make func(t *testing.T) []byte) func(*testing.T, *envelope.File, *disk) {
		return func(t *testing.T, _ *envelope.File, st *disk) { forgeFrame(t, st, make(t)) }
	}
	encode := func(t *testing.T, checksum bool) []byte {
		w, err := zstd.NewWriter(nil, zstd.WithEncoderCRC(checksum), zstd.WithEncoderConcurrency(1))
		return must(t, w, err).EncodeAll(some[3044:], nil)
	}
	add("window", "a frame with a window, authenticated", "opens", some, frame(func(t *testing.T) []byte { return encode(t, false) }))
	add("checksum", "a frame with a checksum, authenticated", "refused block", some, frame(func(t *testing.T) []byte { return encode(t, true) }))
	add("no-content-size", "a frame without its content's size, authenticated", "refused block", some, frame(func(t *testing.T) []byte {
		var b bytes.Buffer
		w, err := zstd.NewWriter(&b, zstd.WithEncoderCRC(false), zstd.WithEncoderConcurrency(1))
		must(t, w, err)
		_, err = w.Write(some[3044:])
		must(t, 0, errors.Join(err, w.Flush(), w.Close()))
		return b.Bytes()
	}))
	add("two-frames", "an empty frame behind the frame, authenticated", "refused block", some, frame(func(t *testing.T) []byte {
		return append(encode(t, false), 0x28, 0xb5, 0x2f, 0xfd, 0x20, 0, 1, 0, 0)
	}))
	add("skippable-frame", "a skippable frame before the frame, authenticated", "refused block", some, frame(func(t *testing.T) []byte {
		return append([]byte{0x50, 0x2a, 0x4d, 0x18, 0, 0, 0, 0}, encode(t, false)...)
	}))
	add("left-over", "a byte behind the frame, authenticated", "refused block", some, func(t *testing.T, _ *envelope.File, st *disk) {
		forgePage(t, st, 2, true, func(plain []byte) { plain[4063] = 1 })
	})
}

// forgeFrame replaces the frame of a version of two pages.
func forgeFrame(t testing.TB, st *disk, frame []byte) {
	t.Helper()
	const piece = 4042
	if len(frame) <= piece || len(frame) > 2*piece {
		t.Fatalf("frame of %d bytes, want one for two pages", len(frame))
	}
	for k := range 2 {
		forgePage(t, st, int64(1+k), true, func(plain []byte) {
			binary.BigEndian.PutUint16(plain[18:], uint16(len(frame)))
			clear(plain[22:])
			copy(plain[22:], frame[k*piece:])
		})
	}
}

// forgePage changes what is sealed in a page of a version.
func forgePage(t testing.TB, st *disk, i int64, last bool, edit func(plain []byte)) {
	t.Helper()
	block, err := aes.NewCipher(kdf(newKey(1), st.content()[14:30], "kmsfs/1 file content", 32))
	gcm, err := cipher.NewGCM(must(t, block, err))
	must(t, gcm, err)
	page := st.content()[i*4096:][:4096]
	aad := append(binary.BigEndian.AppendUint64(st.content()[14:30:30], uint64(i)), 0, 1)
	if last {
		aad[24] = 1
	}
	plain, err := gcm.Open(nil, page[:12], page[12:4092], aad)
	must(t, plain, err)
	edit(plain)
	st.put(gcm.Seal(page[:12], page[:12], plain, aad), i*4096)
}
