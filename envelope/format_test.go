package envelope_test

import (
	"bytes"
	"cmp"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// This file is a reader made from FORMAT.md alone, with nothing of package envelope: that the vectors come out right says that the
// text suffices. It is written for that, not for speed.

// refusal is what the reader panics with: the part that it refuses.
type refusal struct{ part, block string }

// refuseUnless refuses that part unless ok.
func refuseUnless(ok bool, part string) {
	if !ok {
		panic(refusal{part: part})
	}
}

// formatReader reads a volume with that metadata key and ID.
type formatReader struct {
	t                     *testing.T
	metadataKey, volumeID []byte
	plaintextNames        bool
}

func TestFormat(t *testing.T) {
	for name, v := range readVectors(t) {
		t.Run(name, func(t *testing.T) {
			r := formatReader{t, unhex(t, v.MetadataKey), unhex(t, v.VolumeID), v.PlaintextNames}
			v.check(t, r.read(v))
		})
	}
}

func (r formatReader) read(v vector) (got map[string]string) {
	defer func() {
		if what := recover(); what != nil {
			refused, ok := what.(refusal)
			if !ok {
				panic(what)
			}
			got = map[string]string{"result": refused.part}
			if refused.part == "block" {
				got["block"] = refused.block
			}
		}
	}()
	in := func(name string) []byte { return unhex(r.t, v.Input[name]) }
	switch v.Kind {
	case "keys":
		got = r.keys(in("dataKey"), in("fileID"))
	case "configuration":
		got = r.configuration(in("file"))
	case "name":
		got = r.name(in("directory"), string(in("entry")), in("long"))
	case "symlink":
		got = r.symlink(in("target"))
	case "attribute":
		got = r.attribute(in("object"), string(in("name")), in("value"))
	case "directory":
		got = r.directory(in("record"), v.Input["at"])
	case "mark":
		got = r.mark(in("file"))
	case "file":
		got = r.file(in("file"), in("overflow"), in("dataKey"), v.Input["at"])
	default:
		r.t.Fatalf("kind %q", v.Kind)
	}
	got["result"] = "opens"
	return got
}

// Section 1.

func (r formatReader) kdf(secret, salt []byte, label string, n int) []byte {
	key, err := hkdf.Key(sha256.New, secret, salt, label, n)
	if err != nil {
		r.t.Fatal(err)
	}
	return key
}

func (r formatReader) metadata(label string, n int) []byte {
	return r.kdf(r.metadataKey, r.volumeID, "kmsfs/1 "+label, n)
}

func macOf(key, x []byte) []byte {
	m := hmac.New(sha256.New, key)
	m.Write(x)
	return m.Sum(nil)
}

// openSIV opens what is sealed under the metadata key's SIV key of that label.
func (r formatReader) openSIV(label string, sealed []byte, part string, associated ...[]byte) []byte {
	refuseUnless(len(sealed) >= 16, part)
	s := newSIV(r.t, r.metadata(label, 64))
	counter := bytes.Clone(sealed[:16])
	counter[8] &= 0x7f
	counter[12] &= 0x7f
	plaintext := make([]byte, len(sealed)-16)
	cipher.NewCTR(s.ctr, counter).XORKeyStream(plaintext, sealed[16:])
	refuseUnless(bytes.Equal(s.seal(plaintext, bytes.Join(associated, nil)), sealed), part)
	return plaintext
}

func unb64(s, part string) []byte {
	b, err := base64.RawURLEncoding.DecodeString(s)
	refuseUnless(err == nil && base64.RawURLEncoding.EncodeToString(b) == s, part)
	return b
}

func (r formatReader) keys(dataKey, fileID []byte) map[string]string {
	got := map[string]string{
		"content": hex.EncodeToString(r.kdf(dataKey, fileID, "kmsfs/1 file content", 32)),
		"header":  hex.EncodeToString(r.kdf(dataKey, fileID, "kmsfs/1 file header", 32)),
	}
	for label, n := range map[string]int{
		"configuration": 32, "mark": 32, "location": 32, "name": 64, "details": 64, "directory": 64, "symlink": 64, "attribute": 64,
	} {
		got[label] = hex.EncodeToString(r.metadata(label, n))
	}
	return got
}

// taker takes fields off the front of b.
type taker struct {
	b    []byte
	part string
}

func (k *taker) take(n int) []byte {
	refuseUnless(n <= len(k.b), k.part)
	taken := k.b[:n]
	k.b = k.b[n:]
	return taken
}

func (k *taker) u8() int       { return int(k.take(1)[0]) }
func (k *taker) u16() int      { return int(binary.BigEndian.Uint16(k.take(2))) }
func (k *taker) u32() uint32   { return binary.BigEndian.Uint32(k.take(4)) }
func (k *taker) len8() []byte  { return k.take(k.u8()) }
func (k *taker) len16() []byte { return k.take(k.u16()) }

// location is directory ID || len8(name).
func (k *taker) location() (directory, name []byte) {
	directory = k.take(16)
	return directory, k.len8()
}

func zero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

// Section 3.

func (r formatReader) configuration(file []byte) map[string]string {
	lines := strings.SplitAfter(string(file), "\n")
	refuseUnless(len(file) <= 65536 && len(lines) == 3 && lines[2] == "" && len(lines[1]) == 65, "refused")
	var c struct {
		Format         *int
		VolumeID       *string
		PlaintextNames *bool
		Owner          *uint32
		KeyARN         *string
		KeyARNs        []string
		MetadataKeyARN *string
		MetadataKey    *string
	}
	refuseUnless(json.Unmarshal([]byte(lines[0]), &c) == nil, "refused")
	refuseUnless(c.Format != nil && c.VolumeID != nil && c.PlaintextNames != nil && c.Owner != nil && c.KeyARN != nil &&
		c.MetadataKeyARN != nil && c.MetadataKey != nil, "refused")
	text := func(s string) string { return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"` }
	var quoted []string
	for _, arn := range append(slices.Clone(c.KeyARNs), *c.MetadataKeyARN, *c.KeyARN) {
		refuseUnless(!strings.ContainsFunc(arn, func(r rune) bool { return r < ' ' || r > '~' }), "refused")
		quoted = append(quoted, text(arn))
	}
	again := fmt.Sprintf(`{"Format":%d,"VolumeID":"%s","PlaintextNames":%t,"Owner":%d,"KeyARN":%s,"KeyARNs":[%s],"MetadataKeyARN":%s,"MetadataKey":"%s"}`+"\n",
		*c.Format, *c.VolumeID, *c.PlaintextNames, *c.Owner, text(*c.KeyARN), strings.Join(quoted[:len(c.KeyARNs)], ","), text(*c.MetadataKeyARN), *c.MetadataKey)
	id, err := hex.DecodeString(*c.VolumeID)
	refuseUnless(err == nil && len(id) == 16 && !zero(id) && hex.EncodeToString(id) == *c.VolumeID, "refused")
	key, err := base64.StdEncoding.DecodeString(*c.MetadataKey)
	refuseUnless(err == nil && len(key) > 0 && base64.StdEncoding.EncodeToString(key) == *c.MetadataKey, "refused")
	refuseUnless(again == lines[0] && *c.Format == 1 && *c.KeyARN != "" && *c.MetadataKeyARN != "" && slices.Contains(c.KeyARNs, *c.KeyARN), "refused")
	r.volumeID = id
	refuseUnless(hex.EncodeToString(macOf(r.metadata("configuration", 32), []byte(lines[0])))+"\n" == lines[1], "refused")
	return map[string]string{
		"volumeID": *c.VolumeID, "plaintextNames": strconv.FormatBool(*c.PlaintextNames), "owner": fmt.Sprint(*c.Owner), "keyARN": *c.KeyARN,
		"keyARNs": strings.Join(c.KeyARNs, " "), "metadataKeyARN": *c.MetadataKeyARN, "metadataKey": hex.EncodeToString(key),
	}
}

// Section 6.

func isName(name []byte) bool {
	s := string(name)
	return len(s) >= 1 && len(s) <= 255 && s != "." && s != ".." && !strings.ContainsAny(s, "/\x00")
}

func (r formatReader) name(directory []byte, entry string, long []byte) map[string]string {
	s := entry
	if rest, ok := strings.CutPrefix(entry, "kmsfs.long."); ok {
		hash := sha256.Sum256(long)
		s = string(long)
		refuseUnless(rest == base64.RawURLEncoding.EncodeToString(hash[:]) && len(s) > 255, "refused")
	} else {
		refuseUnless(len(s) <= 255, "refused")
	}
	var name []byte
	if r.plaintextNames {
		rest, moved := strings.CutPrefix(s, "kmsfs.=")
		refuseUnless(moved == strings.HasPrefix(rest, "kmsfs."), "refused")
		name = []byte(rest)
	} else {
		name = r.openSIV("name", unb64(s, "refused"), "refused", directory)
	}
	refuseUnless(isName(name), "refused")
	return map[string]string{"name": hex.EncodeToString(name)}
}

func (r formatReader) symlink(target []byte) map[string]string {
	b := unb64(string(target), "refused")
	refuseUnless(len(b) >= 16+16+1 && len(b) <= 16+16+3039, "refused")
	opened := r.openSIV("symlink", b[16:], "refused", b[:16])
	refuseUnless(!bytes.Contains(opened, []byte{0}), "refused")
	return map[string]string{"target": hex.EncodeToString(opened)}
}

// Section 7.

func (r formatReader) directory(page []byte, at string) map[string]string {
	refuseUnless(len(page) == 4096 && string(page[:8]) == "kmsfd\r\n\x1a" && bytes.Equal(page[8:12], []byte{0, 1, 0, 0}), "refused")
	n := binary.BigEndian.Uint32(page[12:])
	refuseUnless(n >= 16 && n <= 4064 && zero(page[32+n:]), "refused")
	k := taker{r.openSIV("directory", page[32:32+n], "refused", r.volumeID, page[:32]), "refused"}
	id := k.take(16)
	count := k.u8()
	refuseUnless(!zero(id) && count >= 1 && count <= 2, "refused")
	var locations []string
	for range count {
		parent, name := k.location()
		root := zero(parent) && len(name) == 0
		refuseUnless(root && count == 1 || !root && !zero(parent) && isName(name), "refused")
		locations = append(locations, fmt.Sprintf("%x:%x", parent, name))
	}
	key, compression := k.len16(), k.u8()
	refuseUnless(compression <= 1 && len(k.b) == 0, "refused")
	return map[string]string{
		"ID": hex.EncodeToString(id), "locations": strings.Join(locations, " "), "key": string(key), "compression": strconv.Itoa(compression),
		"accepted": strconv.FormatBool(slices.Contains(locations, at)),
	}
}

// Section 8.

func (r formatReader) attribute(object []byte, backing string, value []byte) map[string]string {
	encoded, ok := strings.CutPrefix(backing, "user.kmsfs.x.")
	refuseUnless(ok && len(backing) <= 255 && len(value) >= 32, "refused")
	name := r.openSIV("attribute", unb64(encoded, "refused"), "refused", []byte("n"), object)
	opened := r.openSIV("attribute", value[16:], "refused", []byte("v"), object, value[:16], name)
	return map[string]string{"name": hex.EncodeToString(name), "value": hex.EncodeToString(opened)}
}

// Section 9.

func (r formatReader) mark(file []byte) map[string]string {
	refuseUnless(len(file) == 64 && string(file[:8]) == "kmsfm\r\n\x1a", "refused")
	refuseUnless(hmac.Equal(macOf(r.metadata("mark", 32), append(bytes.Clone(r.volumeID), file[:32]...)), file[32:]), "refused")
	return map[string]string{"time": fmt.Sprint(binary.BigEndian.Uint64(file[8:])), "bootID": hex.EncodeToString(file[16:32])}
}

// Sections 4 and 5.

func (r formatReader) file(file, overflow, dataKey []byte, at string) map[string]string {
	refuseUnless(len(file) >= 1024, "size")
	k := taker{file[:1024], "header"}
	refuseUnless(string(k.take(8)) == "kmsfs\r\n\x1a" && k.u16() == 1, "header")
	flags := k.u16()
	refuseUnless(flags < 8 && flags&2 != 0 != r.plaintextNames, "header")
	refuseUnless(k.u8() == 1 && k.u8() == 0, "header")
	id := k.take(16)
	sealed := k.u32()
	refuseUnless(!zero(id) && zero(k.take(6)), "header")
	w, d := k.u16(), k.u16()
	refuseUnless(zero(k.take(4)) && w >= 1 && w <= 512 && d <= 944-w, "header")
	wrapped, details := k.take(w), k.take(d)
	refuseUnless(zero(k.take(944-w-d)), "header")
	refuseUnless(hmac.Equal(macOf(r.kdf(dataKey, id, "kmsfs/1 file header", 32), file[:992]), file[992:1024]), "header")

	got := r.details(details, wrapped, id, overflow, at)
	got["fileID"], got["wrappedKey"] = hex.EncodeToString(id), hex.EncodeToString(wrapped)
	got["sparse"], got["sealed"] = strconv.FormatBool(flags&1 != 0), fmt.Sprint(sealed)

	refuseUnless(flags&4 != 0 == (len(file) > 1024), "size")
	content := r.content(file, r.kdf(dataKey, id, "kmsfs/1 file content", 32), id, flags&1 != 0)
	hash := sha256.Sum256(content)
	got["size"], got["SHA-256"] = strconv.Itoa(len(content)), hex.EncodeToString(hash[:])
	return got
}

func (r formatReader) details(details, wrapped, id, overflow []byte, at string) map[string]string {
	room := 944 - len(wrapped)
	if !r.plaintextNames {
		details = r.openSIV("details", details, "header", []byte("kmsfs/1 header"), r.volumeID, id, wrapped)
		room -= 16
	}
	k := taker{details, "header"}
	got := map[string]string{"keyARN": string(k.len16()), "owner": fmt.Sprint(k.u32())}
	hasNext, next := k.u8(), k.u32()
	refuseUnless(hasNext == 1 || hasNext == 0 && next == 0, "header")
	if hasNext == 1 {
		got["nextOwner"] = fmt.Sprint(next)
	}
	form := k.u8()
	room -= len(details) - len(k.b)
	var path, hash []byte
	refuseUnless(form <= 1, "header")
	if form == 1 {
		hash = k.take(32)
	}
	tail := k.len16()
	left := len(k.b)
	count := k.u8()
	refuseUnless(count <= 2, "header")
	var locations []string
	for range count {
		directory, name := k.location()
		refuseUnless(len(name) > 0, "header")
		locations = append(locations, fmt.Sprintf("%x:%x", directory, name))
	}
	room -= left - len(k.b) + 1 + 2*32
	digests := k.u8()
	refuseUnless(digests <= 2, "header")
	sum, found := sha256.Sum256(overflow), digests == 0
	for range digests {
		found = bytes.Equal(k.take(32), sum[:]) || found
	}
	refuseUnless(found && len(k.b) == 0, "header")
	var paths, links [][]byte
	if digests > 0 {
		paths, links = r.overflow(overflow, id)
	}

	if form == 0 {
		path = tail
		refuseUnless(2+len(path) <= room, "header")
	} else {
		for _, p := range paths {
			if sum := sha256.Sum256(p); bytes.Equal(sum[:], hash) {
				path = p
			}
		}
		refuseUnless(2+len(path) > room && room >= 34 && len(tail) == min(room-34, len(path)) && bytes.HasSuffix(path, tail), "header")
	}
	refuseUnless(bytes.HasPrefix(path, []byte("/")), "header")
	got["path"], got["locations"] = hex.EncodeToString(path), strings.Join(locations, " ")

	directory, name, _ := strings.Cut(at, ":")
	digest := macOf(r.metadata("location", 32), slices.Concat(id, unhex(r.t, directory), unhex(r.t, name)))[:8]
	accepted := slices.Contains(locations, at)
	var texts []string
	for _, l := range links {
		texts = append(texts, hex.EncodeToString(l))
		accepted = accepted || bytes.Equal(l, digest)
	}
	got["digests"], got["accepted"] = strings.Join(texts, " "), strconv.FormatBool(accepted)
	return got
}

func (r formatReader) overflow(value, id []byte) (paths, digests [][]byte) {
	if !r.plaintextNames {
		value = r.openSIV("details", value, "header", []byte("kmsfs/1 overflow"), r.volumeID, id)
	}
	k := taker{value, "header"}
	count := k.u8()
	refuseUnless(count <= 2, "header")
	for range count {
		paths = append(paths, k.len16())
	}
	for range k.u16() {
		digests = append(digests, k.take(8))
	}
	ascending := func(b [][]byte) bool {
		return slices.IsSortedFunc(b, func(x, y []byte) int { return cmp.Or(bytes.Compare(x, y), -1) })
	}
	refuseUnless(len(k.b) == 0 && ascending(paths) && ascending(digests), "header")
	return paths, digests
}

func (r formatReader) content(file, key, id []byte, sparse bool) (content []byte) {
	c := len(file)
	if c == 1024 {
		return nil
	}
	p := (c - 1) / 4096
	rest := c - 4096*p
	refuseUnless(p == 0 && rest >= 1053 || p > 0 && rest >= 29, "size")
	block, err := aes.NewCipher(key)
	if err != nil {
		r.t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		r.t.Fatal(err)
	}
	for i := range p + 1 {
		page, last := file[4096*i:min(4096*i+4096, c)], byte(0)
		if i == 0 {
			page = page[1024:]
		}
		if i == p {
			last = 1
		}
		if sparse && i > 0 && last == 0 && zero(page) {
			content = append(content, make([]byte, 4068)...)
			continue
		}
		aad := append(binary.BigEndian.AppendUint64(bytes.Clone(id), uint64(i)), last)
		opened, err := gcm.Open(nil, page[:12], page[12:], aad)
		if err != nil {
			panic(refusal{"block", strconv.Itoa(i)})
		}
		content = append(content, opened...)
	}
	return content
}
