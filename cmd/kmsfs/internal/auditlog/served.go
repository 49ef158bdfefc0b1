package auditlog

import (
	"io"
	"io/fs"
	"sync"

	"kmsfs/cmd/kmsfs/internal/session"
	"kmsfs/keyservice/kms"
)

// servedFiles are the audit log's files, read through the service that has them open.
type servedFiles struct {
	s  *session.Session
	mu sync.Mutex // guards reading
	// reading is the reader's session: the service has recorded its beginning.
	reading []byte
}

// call reads in one session: it is recorded once.
func (f *servedFiles) call(in *kms.ReadAuditInput) (*kms.ReadAuditOutput, error) {
	f.mu.Lock()
	in.Session = f.reading
	f.mu.Unlock()
	out, err := kms.ReadAudit.Call(f.s.Ctx, f.s, f.s.Caller, in)
	if err == nil && len(out.Session) > 0 {
		f.mu.Lock()
		f.reading = out.Session
		f.mu.Unlock()
	}
	return out, err
}

var _ fs.ReadDirFS = (*servedFiles)(nil)

// ReadDir lists the files as the service knows them now.
func (f *servedFiles) ReadDir(string) ([]fs.DirEntry, error) {
	about, err := f.call(&kms.ReadAuditInput{})
	if err != nil {
		return nil, err
	}
	var entries []fs.DirEntry
	for _, name := range about.Files {
		entries = append(entries, &servedFile{files: f, name: name})
	}
	return entries, nil
}

// Open opens a file.
func (f *servedFiles) Open(name string) (fs.File, error) {
	file := &servedFile{files: f, name: name}
	if _, err := file.read(); err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return file, nil
}

// servedFile is one of them: a directory entry and an open file.
type servedFile struct {
	files   *servedFiles
	name    string
	content []byte // read ahead
	off     int64  // the offset behind content
	ended   bool
	segment uint64 // the number of the open segment
}

// read reads the next part. Its error is fs.ErrNotExist if the open segment has been closed
// meanwhile, or the file does not exist.
func (f *servedFile) read() (int, error) {
	out, err := f.files.call(&kms.ReadAuditInput{File: f.name, Offset: f.off, Segment: f.segment})
	if session.IsNotFound(err) {
		return 0, fs.ErrNotExist
	}
	if err != nil {
		return 0, err
	}
	f.segment = out.Segment
	f.content, f.ended = out.Content, len(out.Content) == 0
	f.off += int64(len(out.Content))
	return len(out.Content), nil
}

// Read reads on.
func (f *servedFile) Read(p []byte) (int, error) {
	if len(f.content) == 0 {
		if f.ended {
			return 0, io.EOF
		}
		n, err := f.read()
		if err != nil {
			return 0, err
		}
		if n == 0 {
			return 0, io.EOF
		}
	}
	n := copy(p, f.content)
	f.content = f.content[n:]
	return n, nil
}

// Seek goes to an offset.
func (f *servedFile) Seek(off int64, whence int) (int64, error) {
	if whence != io.SeekStart {
		return 0, fs.ErrInvalid
	}
	f.off, f.content, f.ended = off, nil, false
	return off, nil
}

// Close has nothing to do.
func (*servedFile) Close() error { return nil }

// Name is the file's.
func (f *servedFile) Name() string { return f.name }

// IsDir is false.
func (*servedFile) IsDir() bool { return false }

// Type is a regular file's.
func (*servedFile) Type() fs.FileMode { return 0 }

// Info is not known.
func (*servedFile) Info() (fs.FileInfo, error) { return nil, fs.ErrInvalid }

// Stat is not known.
func (*servedFile) Stat() (fs.FileInfo, error) { return nil, fs.ErrInvalid }
