package audit

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"
)

// VerifyOptions say what a log is verified against.
type VerifyOptions struct {
	// Open is the name of the open segment.
	Open string
	// Key is the public half of the audit key.
	Key ed25519.PublicKey
	// Head, if not nil, is what the store knows of the log: as of a moment that lies before the
	// verification.
	Head *Head
	// Exported, if not nil, is where digests were exported to: each of them has to be the log's.
	Exported fs.FS
	// From and To, where they are not zero, bound the time of the segments whose records are read;
	// the chain of digests is verified whole.
	From, To time.Time
}

// Report is what a verification found.
type Report struct {
	// Records are the log's, and Signed those in closed segments.
	Records, Signed uint64
	// Pruned are the records that were removed, as signed statements say; Skipped those that lie
	// out of the time asked for.
	Pruned, Skipped uint64
	// Segments are the closed ones, and Exported those whose digests were compared with exported
	// ones.
	Segments, Exported int
}

// Fault is the first thing that is wrong with a log.
type Fault struct {
	// Sequence is the number of the record concerned, and File where it should be.
	Sequence uint64
	File     string
	Reason   string
}

// Error says where and what.
func (f *Fault) Error() string { return fmt.Sprintf("%s: record %d: %s", f.File, f.Sequence, f.Reason) }

// Verify goes through a log. It returns a *Fault if the log isn't what was written. The log may be
// in use.
func Verify(dir fs.FS, o VerifyOptions) (Report, error) {
	for {
		before, err := fileNames(dir)
		if err != nil {
			return Report{}, err
		}
		report, err := verify(dir, o)
		if err == nil {
			return report, nil
		}
		// A segment that was closed meanwhile is not where it was looked for.
		after, listErr := fileNames(dir)
		if listErr != nil || slices.Equal(before, after) {
			return report, err
		}
	}
}

func verify(dir fs.FS, o VerifyOptions) (Report, error) {
	v := &verification{dir: dir, o: o}
	digests, err := list(dir, digestSuffix)
	if err != nil {
		return v.report, err
	}
	for _, first := range digests {
		if err := v.closed(first); err != nil {
			return v.report, err
		}
	}
	if err := v.exported(); err != nil {
		return v.report, err
	}
	if err := v.unsigned(); err != nil {
		return v.report, err
	}
	if o.Head != nil && o.Head.Sequence > v.end.Sequence {
		return v.report, v.fault(v.end.Sequence+1, fmt.Sprintf("cut off: there were records up to %d", o.Head.Sequence))
	}
	return v.report, nil
}

// verification is under way.
type verification struct {
	dir      fs.FS
	o        VerifyOptions
	report   Report
	end      Position // of what has been verified
	previous string   // the hash of the last digest
	log      string
	file     string // being verified
}

func (v *verification) fault(sequence uint64, reason string) error {
	return &Fault{Sequence: sequence, File: v.file, Reason: reason}
}

// closed verifies a closed segment.
func (v *verification) closed(first uint64) error {
	v.file = segmentName(first, digestSuffix)
	next := v.end.Sequence + 1
	d, hash, err := openDigest(v.dir, first, v.o.Key)
	if err != nil {
		return v.fault(next, err.Error())
	}
	switch {
	case v.log != "" && d.Log != v.log:
		return v.fault(next, "the digest is that of another log, "+d.Log)
	case first != next:
		return v.fault(next, fmt.Sprintf("records %d to %d, and their digest, are missing", next, first-1))
	case d.PreviousDigest != v.previous:
		return v.fault(next, "the digest doesn't follow the one before it")
	case d.PreviousRecordHash != hex.EncodeToString(v.end.Hash[:]):
		return v.fault(next, "the segment doesn't follow the one before it")
	}
	v.log, v.previous = d.Log, hash
	if err := v.content(d); err != nil {
		return err
	}
	v.end.Sequence = d.LastSequence
	_, err = hex.Decode(v.end.Hash[:], []byte(d.LastRecordHash))
	v.report.Segments++
	v.report.Records += d.LastSequence - first + 1
	v.report.Signed = v.report.Records
	return err
}

// exported compares the log's digests with those that were exported.
func (v *verification) exported() error {
	if v.o.Exported == nil {
		return nil
	}
	segments, err := list(v.o.Exported, digestSuffix)
	for _, first := range segments {
		v.file = segmentName(first, digestSuffix)
		was, err := readLimited(v.o.Exported, v.file, maxDigest)
		if err != nil {
			return err
		}
		is, err := readLimited(v.dir, v.file, maxDigest)
		if errors.Is(err, fs.ErrNotExist) {
			return v.fault(first, "the digest that was exported is missing in the log")
		}
		if err != nil {
			return err
		}
		if !bytes.Equal(was, is) {
			return v.fault(first, "rewritten: the digest isn't the one that was exported")
		}
		v.report.Exported++
	}
	return err
}

// content verifies the records that a digest signs for, if they are there and asked for.
func (v *verification) content(d *Digest) error {
	records := d.LastSequence - d.FirstSequence + 1
	compressed, err := openSegment(v.dir, segmentName(d.FirstSequence, compressedSuffix), true)
	if errors.Is(err, fs.ErrNotExist) {
		pruned, err := isPruned(v.dir, d, v.o.Key)
		if err != nil {
			return v.fault(d.FirstSequence, err.Error())
		}
		if !pruned {
			v.file = segmentName(d.FirstSequence, compressedSuffix)
			return v.fault(d.FirstSequence, fmt.Sprintf("the segment is missing, with records up to %d", d.LastSequence))
		}
		v.report.Pruned += records
		return nil
	}
	if err != nil {
		return err
	}
	if !v.o.From.IsZero() && d.LastTime.Before(v.o.From) || !v.o.To.IsZero() && d.FirstTime.After(v.o.To) {
		v.report.Skipped += records
		return compressed.Close()
	}
	v.file = segmentName(d.FirstSequence, compressedSuffix)
	return errors.Join(v.signed(d, compressed), compressed.Close())
}

// seen is what there is to be known of a line.
type seen struct {
	// before is the position behind which it says that it is, if it does: ok.
	before Position
	ok     bool
	hash   [sha256.Size]byte
}

// eachLine calls check with what is to be known of each line of r, until that returns an error,
// which it returns; or what ended the lines.
func eachLine(r io.Reader, check func(seen) error) error {
	return inBatches(r, func(lines []byte) []seen {
		all := make([]seen, 0, len(lines)/512)
		for line := range bytes.Lines(lines) {
			before, ok := parseLink(line)
			all = append(all, seen{before, ok, hashOf(line)})
		}
		return all
	}, func(all []seen) error {
		for _, line := range all {
			if err := check(line); err != nil {
				return err
			}
		}
		return nil
	})
}

// signed verifies a segment against its digest.
func (v *verification) signed(d *Digest, content io.Reader) error {
	end := v.end
	err := eachLine(content, func(line seen) error {
		index := end.Sequence + 1 - d.FirstSequence
		if end.Sequence >= d.LastSequence || string(line.hash[:shortHash]) != string(d.RecordHashes[index*shortHash:][:shortHash]) || !line.ok || line.before != end {
			return v.wrong(d, end.Sequence+1, line)
		}
		end = Position{Sequence: end.Sequence + 1, Hash: line.hash}
		return nil
	})
	if _, isFault := errors.AsType[*Fault](err); isFault {
		return err
	}
	if !errors.Is(err, io.EOF) {
		return v.fault(end.Sequence+1, err.Error())
	}
	if end.Sequence < d.LastSequence {
		return v.fault(end.Sequence+1, fmt.Sprintf("cut off: there were records up to %d", d.LastSequence))
	}
	if hex.EncodeToString(end.Hash[:]) != d.LastRecordHash {
		return v.fault(end.Sequence, "edited")
	}
	return nil
}

// wrong says what is wrong with what stands in the place of a record.
func (v *verification) wrong(d *Digest, sequence uint64, line seen) error {
	found := line.before.Sequence + 1
	switch {
	case sequence > d.LastSequence:
		return v.fault(sequence, "inserted")
	case !line.ok || found == sequence:
		return v.fault(sequence, "edited")
	case found > sequence && found <= d.LastSequence && string(d.RecordHashes[(found-d.FirstSequence)*shortHash:][:shortHash]) == string(line.hash[:shortHash]):
		return v.fault(sequence, fmt.Sprintf("dropped, or moved: record %d stands in its place", found))
	}
	return v.fault(sequence, "another was inserted in its place")
}

// unsigned verifies the segments that aren't closed yet.
func (v *verification) unsigned() error {
	plain, err := list(v.dir, plainSuffix)
	if err != nil {
		return err
	}
	names := []string{}
	for _, first := range plain {
		if first > v.end.Sequence {
			names = append(names, segmentName(first, plainSuffix))
		}
	}
	for _, name := range append(names, v.o.Open) {
		v.file = name
		if err := v.chain(name); err != nil {
			return err
		}
	}
	return nil
}

// chain verifies a segment by its records alone.
func (v *verification) chain(name string) error {
	content, err := openSegment(v.dir, name, false)
	if errors.Is(err, fs.ErrNotExist) {
		return v.fault(v.end.Sequence+1, "the segment is missing")
	}
	if err != nil {
		return err
	}
	err = eachLine(content, func(line seen) error {
		before, next := line.before, v.end.Sequence+1
		switch {
		case !line.ok:
			return v.fault(next, "edited: it isn't chained to the one before it")
		case before.Sequence+1 > next:
			return v.fault(next, fmt.Sprintf("dropped, or moved: record %d stands in its place", before.Sequence+1))
		case before.Sequence+1 < next:
			return v.fault(next, fmt.Sprintf("record %d was inserted, or moved, into its place", before.Sequence+1))
		case before.Hash != v.end.Hash:
			return v.fault(v.end.Sequence, "edited: the record behind it is chained to another")
		}
		v.end = Position{Sequence: next, Hash: line.hash}
		v.report.Records++
		if v.o.Head != nil && v.o.Head.Sequence == next && v.o.Head.Hash != line.hash {
			return v.fault(next, "edited, or one before it that isn't signed yet: the store knows another")
		}
		return nil
	})
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) && name == v.o.Open { // a record is just being written
		err = nil
	} else if _, isFault := errors.AsType[*Fault](err); !isFault {
		err = v.fault(v.end.Sequence+1, err.Error())
	}
	return errors.Join(err, content.Close())
}
