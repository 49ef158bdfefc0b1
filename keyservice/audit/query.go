package audit

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"
)

// Filter says which records are asked for: those that all of its fields that are not empty apply
// to.
type Filter struct {
	// Key is the ARN or the ID of a KMS key, or an alias.
	Key string
	// Principal is a caller, or whom the file system calls for: an ARN, a user's name, or "uid:"
	// and a number.
	Principal string
	// Path says whether a path of a file, within the volume or as its users see it, is one of those
	// asked for; Literal is a text that such a path has in it.
	Path    func(path string) bool
	Literal string
	// Event is an operation's or an event's name, and Error an error's code; "*" is any error.
	Event, Error string
	// Since and Until are bounds of the time.
	Since, Until time.Time

	// after is the number of a record before those asked for.
	after uint64
	// unreadable counts the records that can't be read.
	unreadable *unreadable
}

// Entry is a record as a reader takes it.
type Entry struct {
	EventTime    time.Time
	EventName    string
	EventType    string
	ReadOnly     bool
	ErrorCode    string
	ErrorMessage string
	UserIdentity struct{ PrincipalId, Arn, UserName, AccessKeyId string }
	Resources    []struct{ ARN string }
	// RequestParameters and ServiceEventDetails hold encryption contexts, keys and aliases.
	RequestParameters, ServiceEventDetails map[string]any
	AdditionalEventData                    struct {
		PID                                 int32
		Executable, FileOperation, FilePath string
		// Behind is the process for which the caller calls, if that is another.
		Behind *struct {
			UID                  uint32
			PID                  int32
			UserName, Executable string
		}
	}
	// SourceIPAddress is where a call came from that a process of this machine didn't make.
	SourceIPAddress string
	Sequence        uint64

	// Line is the whole record, as it was written, without its newline.
	Line []byte `json:"-"`
}

// Paths are the files' paths in the record's encryption contexts.
func (e *Entry) Paths() (paths []string) {
	for _, fields := range []map[string]any{e.RequestParameters, e.ServiceEventDetails} {
		for _, name := range []string{"encryptionContext", "sourceEncryptionContext", "destinationEncryptionContext"} {
			if context, ok := fields[name].(map[string]any); ok {
				if path, ok := context["kmsfs:path"].(string); ok && !slices.Contains(paths, path) {
					paths = append(paths, path)
				}
			}
		}
	}
	return paths
}

// ServiceEvent is the EventType of what the service, or the file system, found or did of itself.
const ServiceEvent = "AwsServiceEvent"

// Principal is the name of who is behind the record, and the program of his process.
func (e *Entry) Principal() (name, executable string) {
	if behind := e.AdditionalEventData.Behind; behind != nil {
		return behind.UserName, behind.Executable
	}
	return cmp.Or(e.UserIdentity.UserName, "unknown"), e.AdditionalEventData.Executable
}

// Query calls found with the records asked for, in their order. It goes through the log as it lies
// there, and doesn't verify it. If records can't be read, it goes on with the others and returns an
// *UnreadableError in the end.
func Query(dir fs.FS, open string, filter Filter, found func(*Entry) error) error {
	// Opened first, it is still what it was when it is closed as a segment meanwhile; and is then
	// not looked at twice.
	last, err := openSegment(dir, open, false)
	if err != nil {
		return err
	}
	filter.unreadable = new(unreadable)
	var passed uint64
	each := func(e *Entry) error {
		passed = e.Sequence
		return found(e)
	}
	err = queryClosed(dir, &filter, each)
	if err == nil {
		err = search(last, filter.behind(passed), each)
	}
	if errors.Is(err, fs.ErrNotExist) { // it was not kept for its readers when it was closed
		filter.unreadable = new(unreadable) // as all closed segments are searched again
		err = queryClosed(dir, filter.behind(passed), each)
	}
	return errors.Join(err, last.Close(), filter.unreadable.take())
}

// queryClosed goes through all segments but the open one, several at a time.
func queryClosed(dir fs.FS, filter *Filter, found func(*Entry) error) error {
	names, err := filter.segments(dir)
	if err != nil {
		return err
	}
	// part is what is found in a segment, and how that ended.
	type part struct {
		found chan *Entry
		err   error
	}
	parts, stop := make(chan *part, max(runtime.GOMAXPROCS(0)-1, 0)), make(chan struct{})
	var readers sync.WaitGroup
	defer readers.Wait()
	defer close(stop)
	readers.Go(func() {
		defer close(parts)
		for _, name := range names {
			p := &part{found: make(chan *Entry, 64)}
			select {
			case parts <- p:
			case <-stop:
				return
			}
			readers.Go(func() {
				defer close(p.found)
				p.err = query(dir, name, filter, func(e *Entry) error {
					select {
					case p.found <- e:
						return nil
					case <-stop:
						return errClosed
					}
				})
			})
		}
	})
	for p := range parts {
		for e := range p.found {
			if err := found(e); err != nil {
				return err
			}
		}
		if p.err != nil {
			return p.err
		}
	}
	return nil
}

// segments are the files of closed segments in which there may be something, in their order.
func (f *Filter) segments(dir fs.FS) (wanted []string, err error) {
	names, err := fileNames(dir)
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		first, suffix, _ := parseSegmentName(name)
		if suffix != plainSuffix && suffix != compressedSuffix {
			continue
		}
		d, err := readDigest(dir, first)
		closed := err == nil
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		if closed && f.excludes(d) || closed != (suffix == compressedSuffix) { // one that is being compressed is there twice
			continue
		}
		wanted = append(wanted, name)
	}
	return wanted, nil
}

// query goes through a closed segment.
func query(dir fs.FS, name string, filter *Filter, found func(*Entry) error) error {
	content, err := openClosed(dir, name)
	if err != nil {
		return err
	}
	if err := errors.Join(search(content, filter, found), content.Close()); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// behind is the filter without the records up to one.
func (f Filter) behind(sequence uint64) *Filter {
	f.after = sequence
	return &f
}

// excludes says that no record of a segment is asked for, to judge by their times.
func (f *Filter) excludes(d *Digest) bool {
	return !f.Since.IsZero() && d.LastTime.Before(f.Since) || !f.Until.IsZero() && d.FirstTime.After(f.Until)
}

// search goes through records, several parts of them at a time.
func search(content io.Reader, filter *Filter, found func(*Entry) error) error {
	err := inBatches(content, filter.search, func(entries []*Entry) error {
		for _, e := range entries {
			if err := found(e); err != nil {
				return err
			}
		}
		return nil
	})
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) { // a record is just being written
		return nil
	}
	return err
}

// search returns the records in lines that are asked for.
func (f *Filter) search(lines []byte) (found []*Entry) {
	needles := f.needles()
	for line := range linesWith(lines, needles[0]) {
		if !containsAll(line, needles[1:]) {
			continue
		}
		e, err := parseEntry(line)
		switch {
		case err != nil:
			f.unreadable.note(err)
		case f.applies(e):
			found = append(found, e)
		}
	}
	return found
}

// parseEntry reads a line with its newline.
func parseEntry(line []byte) (*Entry, error) {
	e := &Entry{Line: bytes.Clone(bytes.TrimSuffix(line, []byte("\n")))}
	if err := json.Unmarshal(line, e); err != nil {
		return nil, fmt.Errorf("%w: %w", errNoRecord, err)
	}
	return e, nil
}

// linesWith are the lines with a text in them.
func linesWith(lines, text []byte) iter.Seq[[]byte] {
	if len(text) == 0 {
		return bytes.Lines(lines)
	}
	return func(yield func([]byte) bool) {
		for {
			at := bytes.Index(lines, text)
			if at < 0 {
				return
			}
			begin, end := bytes.LastIndexByte(lines[:at], '\n')+1, at+bytes.IndexByte(lines[at:], '\n')+1
			if !yield(lines[begin:end]) {
				return
			}
			lines = lines[end:]
		}
	}
}

func containsAll(line []byte, texts [][]byte) bool {
	for _, text := range texts {
		if !bytes.Contains(line, text) {
			return false
		}
	}
	return true
}

// needles are texts that the lines asked for have in them, the longest first: one at least, which
// may be empty.
func (f *Filter) needles() (needles [][]byte) {
	for _, text := range []string{f.Event, strings.TrimPrefix(f.Principal, "uid:"), f.Literal} {
		if text != "" && plainPrefix(text) == len(text) { // else it is written in another way
			needles = append(needles, []byte(text))
		}
	}
	if f.Error != "" {
		needles = append(needles, []byte(`,"errorCode":"`+strings.TrimPrefix(f.Error, "*")))
	}
	slices.SortFunc(needles, func(a, b []byte) int { return cmp.Compare(len(b), len(a)) })
	if len(needles) == 0 {
		needles = append(needles, nil)
	}
	return needles
}

func (f *Filter) applies(e *Entry) bool {
	return e.Sequence > f.after && (f.Event == "" || f.Event == e.EventName) &&
		(f.Error == "" || f.Error == e.ErrorCode || f.Error == "*" && e.ErrorCode != "") &&
		(f.Since.IsZero() || !e.EventTime.Before(f.Since)) && (f.Until.IsZero() || !e.EventTime.After(f.Until)) &&
		(f.Principal == "" || f.isOf(e)) &&
		(f.Key == "" || f.concerns(e)) &&
		(f.Path == nil || slices.ContainsFunc(e.Paths(), f.Path) || e.AdditionalEventData.FilePath != "" && f.Path(e.AdditionalEventData.FilePath))
}

// isOf says whether a record is of the principal asked for, or of what was done for it.
func (f *Filter) isOf(e *Entry) bool {
	who := []string{e.UserIdentity.Arn, e.UserIdentity.UserName, e.UserIdentity.PrincipalId}
	if behind := e.AdditionalEventData.Behind; behind != nil {
		who = append(who, behind.UserName, fmt.Sprint("uid:", behind.UID))
	}
	return slices.Contains(who, f.Principal)
}

// concerns says whether a record is about the key asked for.
func (f *Filter) concerns(e *Entry) bool {
	for _, r := range e.Resources {
		if r.ARN == f.Key || strings.HasSuffix(r.ARN, "/"+f.Key) || strings.HasSuffix(r.ARN, ":"+f.Key) {
			return true
		}
	}
	for _, name := range []string{"keyId", "sourceKeyId", "destinationKeyId"} {
		if key, ok := e.RequestParameters[name].(string); ok && key == f.Key {
			return true
		}
	}
	return false
}
