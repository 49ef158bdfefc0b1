package envelope_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"kmsfs/envelope"
)

func newDirectory() *envelope.Directory {
	return &envelope.Directory{
		ID: directoryID, Owners: []uint32{1000}, Locations: []envelope.Location{{Directory: otherDirectoryID, Name: "name"}}, Key: "alias/some",
		Compression: envelope.CompressionNone,
	}
}

// sealRecord seals what may be no record's plaintext.
func sealRecord(t fatalf, plain []byte) []byte {
	t.Helper()
	record := make([]byte, 32, page)
	copy(record, "kmsfd\r\n\x1a\x00\x01")
	binary.BigEndian.PutUint32(record[12:], uint32(len(plain)+16))
	copy(record[16:], pattern(9, 16))
	return append(record, metadataSIV(t, "kmsfs/1 directory").seal(plain, append(volumeID[:], record...))...)[:page]
}

func TestDirectory(t *testing.T) {
	long := strings.Repeat("n", 255)
	for _, plaintextNames := range []bool{false, true} {
		v := newVolume(t, plaintextNames)
		for name, d := range map[string]*envelope.Directory{
			"root":          {ID: directoryID, Owners: []uint32{0}, Locations: []envelope.Location{{}}},
			"one location":  newDirectory(),
			"two locations": {ID: directoryID, Owners: []uint32{1000, 1<<32 - 2}, Locations: []envelope.Location{{Directory: otherDirectoryID, Name: long}, {Directory: directoryID, Name: "€"}}},
			"longest": {
				ID: directoryID, Owners: []uint32{1, 2}, Locations: []envelope.Location{{Directory: otherDirectoryID, Name: long}, {Directory: directoryID, Name: long}},
				Key: strings.Repeat("k", 4048-16-1-2*4-1-2*(16+1+255)-2-1),
			},
		} {
			record, err := v.SealDirectory(d)
			if err != nil || len(record) != envelope.DirectorySize {
				t.Fatalf("%s: %d bytes: %v", name, len(record), err)
			}
			got, err := v.OpenDirectory(record)
			if err != nil || !reflect.DeepEqual(got, d) {
				t.Errorf("%s: opened %+v, want %+v: %v", name, got, d, err)
			}
			if again, err := v.SealDirectory(d); err != nil || bytes.Equal(again, record) {
				t.Errorf("%s: sealed twice in the same way: %v", name, err)
			}
			for _, uid := range d.Owners {
				if !got.OwnedBy(uid) || got.OwnedBy(uid+3) {
					t.Errorf("%s: is owned by %d: %t, by %d: %t", name, uid, got.OwnedBy(uid), uid+3, got.OwnedBy(uid+3))
				}
			}
			for _, l := range d.Locations {
				if !got.LiesAt(l) {
					t.Errorf("%s: does not lie at %v", name, l)
				}
				if l.Name += "x"; got.LiesAt(l) {
					t.Errorf("%s: lies at %v", name, l)
				}
			}
		}
	}
}

func TestDirectoryTampered(t *testing.T) {
	v := newVolume(t, false)
	record, err := v.SealDirectory(newDirectory())
	if err != nil {
		t.Fatal(err)
	}
	for bit := range 8 * len(record) {
		record[bit/8] ^= 1 << (bit % 8)
		if d, err := v.OpenDirectory(record); !isRefused(err) || d != nil {
			t.Fatalf("bit %d: opened %+v: %v", bit, d, err)
		}
		record[bit/8] ^= 1 << (bit % 8)
	}
	for _, b := range [][]byte{nil, {}, record[:32], record[:page-1], append(bytes.Clone(record), 0), make([]byte, page)} {
		if d, err := v.OpenDirectory(b); !errors.Is(err, envelope.ErrFormat) {
			t.Errorf("%d bytes: opened %+v: %v", len(b), d, err)
		}
	}
	other, err := v.SealDirectory(newDirectory())
	if err != nil {
		t.Fatal(err)
	}
	if d, err := v.OpenDirectory(append(bytes.Clone(record[:32]), other[32:]...)); !errors.Is(err, envelope.ErrAuthentication) {
		t.Errorf("another record's sealed part: opened %+v: %v", d, err)
	}
	c := v.Config()
	c.VolumeID[0]++
	b, err := c.Marshal(newKey(7))
	if err != nil {
		t.Fatal(err)
	}
	w, err := envelope.OpenVolume(b, newKey(7))
	if err != nil {
		t.Fatal(err)
	}
	if d, err := w.OpenDirectory(record); !errors.Is(err, envelope.ErrAuthentication) {
		t.Errorf("in another volume: opened %+v: %v", d, err)
	}
}

// TestDirectoryRefused has records that are sealed, but are none, and tries to seal such.
func TestDirectoryRefused(t *testing.T) {
	v := newVolume(t, false)
	owner := "\x01\x00\x00\x03\xe8"
	id, parent := string(directoryID[:])+owner, string(otherDirectoryID[:])
	good := id + "\x01" + parent + "\x04name" + "\x00\x03key" + "\x01"
	if d, err := v.OpenDirectory(sealRecord(t, []byte(good))); err != nil || d.Key != "key" {
		t.Fatalf("opened %+v: %v", d, err)
	}
	zero := strings.Repeat("\x00", 16)
	for name, plain := range map[string]string{
		"nothing":              "",
		"ID alone":             id[:16],
		"no owner":             id[:16] + "\x00" + good[21:],
		"three owners":         id[:16] + "\x03" + strings.Repeat("\x00\x00\x03\xe8", 3) + good[21:],
		"owners without end":   id[:16] + "\xff" + good[17:],
		"ID and owner":         id,
		"zero ID":              zero + good[16:],
		"no location":          id + "\x00" + "\x00\x00\x00",
		"three locations":      id + "\x03" + strings.Repeat(parent+"\x01n", 3) + "\x00\x00\x00",
		"empty name":           id + "\x01" + parent + "\x00" + "\x00\x00\x00",
		"root with a name":     id + "\x01" + zero + "\x01n" + "\x00\x00\x00",
		"root and more":        id + "\x02" + zero + "\x00" + parent + "\x01n" + "\x00\x00\x00",
		"name with a slash":    id + "\x01" + parent + "\x03a/b" + "\x00\x00\x00",
		"name ..":              id + "\x01" + parent + "\x02.." + "\x00\x00\x00",
		"unknown compression":  good[:len(good)-1] + "\x03",
		"one byte more":        good + "\x00",
		"location without end": id + "\x01" + parent + "\xffname",
		"key without end":      id + "\x01" + parent + "\x04name" + "\xff\xffkey",
	} {
		if d, err := v.OpenDirectory(sealRecord(t, []byte(plain))); !errors.Is(err, envelope.ErrFormat) || d != nil {
			t.Errorf("%s: opened %+v: %v", name, d, err)
		}
	}
	for n := range good {
		if d, err := v.OpenDirectory(sealRecord(t, []byte(good[:n]))); !errors.Is(err, envelope.ErrFormat) {
			t.Errorf("%d bytes: opened %+v: %v", n, d, err)
		}
	}
	location := newDirectory().Locations[0]
	for name, c := range map[string]struct {
		change func(d *envelope.Directory)
		want   error
	}{
		"zero ID":         {func(d *envelope.Directory) { d.ID = envelope.DirectoryID{} }, envelope.ErrFormat},
		"no location":     {func(d *envelope.Directory) { d.Locations = nil }, envelope.ErrFormat},
		"three locations": {func(d *envelope.Directory) { d.Locations = []envelope.Location{location, location, location} }, envelope.ErrFormat},
		"no owner":        {func(d *envelope.Directory) { d.Owners = nil }, envelope.ErrFormat},
		"three owners":    {func(d *envelope.Directory) { d.Owners = []uint32{1, 2, 3} }, envelope.ErrFormat},
		"root and more":   {func(d *envelope.Directory) { d.Locations = []envelope.Location{location, {}} }, envelope.ErrFormat},
		"no name":         {func(d *envelope.Directory) { d.Locations[0].Name = "" }, envelope.ErrFormat},
		"no parent":       {func(d *envelope.Directory) { d.Locations[0].Directory = envelope.DirectoryID{} }, envelope.ErrFormat},
		"long name":       {func(d *envelope.Directory) { d.Locations[0].Name = strings.Repeat("n", 256) }, envelope.ErrFormat},
		"compression":     {func(d *envelope.Directory) { d.Compression = 3 }, envelope.ErrFormat},
		"long key":        {func(d *envelope.Directory) { d.Key = strings.Repeat("k", 4010) }, envelope.ErrTooLong},
		"very long key":   {func(d *envelope.Directory) { d.Key = strings.Repeat("k", 1<<16) }, envelope.ErrTooLong},
	} {
		d := newDirectory()
		c.change(d)
		if _, err := v.SealDirectory(d); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestDirectoryRoundTrip(t *testing.T) {
	v := newVolume(t, false)
	id := rapid.Custom(func(t *rapid.T) envelope.DirectoryID {
		id := envelope.DirectoryID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "ID"))
		id[0] |= 1
		return id
	})
	location := rapid.Custom(func(t *rapid.T) envelope.Location {
		return envelope.Location{Directory: id.Draw(t, "parent"), Name: drawName(t)}
	})
	rapid.Check(t, func(t *rapid.T) {
		d := &envelope.Directory{
			ID:          id.Draw(t, "ID"),
			Owners:      rapid.SliceOfN(rapid.Uint32(), 1, 2).Draw(t, "owners"),
			Locations:   rapid.SliceOfN(location, 1, 2).Draw(t, "locations"),
			Key:         rapid.StringN(0, -1, 2048).Draw(t, "key"),
			Compression: rapid.SampledFrom([]envelope.Compression{envelope.CompressionInherited, envelope.CompressionNone, envelope.CompressionZstd}).Draw(t, "compression"),
		}
		record, err := v.SealDirectory(d)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := v.OpenDirectory(record); err != nil || !reflect.DeepEqual(got, d) {
			t.Fatalf("opened %+v: %v", got, err)
		}
	})
}

// FuzzOpenDirectory opens pages that nobody wrote, and what is sealed but may be no record: one that is accepted is written as it was.
func FuzzOpenDirectory(f *testing.F) {
	v := newVolume(f, false)
	record, err := v.SealDirectory(newDirectory())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(record)
	f.Add([]byte(string(directoryID[:]) + "\x01\x00\x00\x03\xe8\x01" + string(otherDirectoryID[:]) + "\x04name" + "\x00\x03key" + "\x01"))
	f.Add([]byte(string(directoryID[:]) + "\x01\x00\x00\x03\xe8\x01" + strings.Repeat("\x00", 17) + "\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, err := v.OpenDirectory(b); err == nil {
			if !bytes.Equal(b, record) && !reflect.DeepEqual(d, newDirectory()) {
				t.Fatalf("opened %+v", d)
			}
		} else if !isRefused(err) {
			t.Fatal(err)
		}
		if len(b) > page-32-16 {
			return
		}
		d, err := v.OpenDirectory(sealRecord(t, b))
		if err != nil {
			if !errors.Is(err, envelope.ErrFormat) {
				t.Fatal(err)
			}
			return
		}
		again, err := v.SealDirectory(d)
		if err != nil {
			t.Fatal(err)
		}
		want := metadataSIV(t, "kmsfs/1 directory").seal(b, append(volumeID[:], again[:32]...))
		if n := binary.BigEndian.Uint32(again[12:]); int(n) != len(want) || !bytes.Equal(again[32:32+n], want) {
			t.Fatalf("%x opens to %+v, and is written otherwise", b, d)
		}
	})
}
