package audit

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/klauspost/compress/zstd"
)

var errLongLine = errors.New("a line is too long to be a record")

// lineReader reads lines.
type lineReader struct{ r *bufio.Reader }

func newLineReader(r io.Reader) *lineReader { return &lineReader{bufio.NewReaderSize(r, 2*maxRecord)} }

// next returns a line with its newline, which is valid until the next call: io.EOF behind the last,
// io.ErrUnexpectedEOF if that has no newline.
func (l *lineReader) next() ([]byte, error) {
	line, err := l.r.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, errLongLine
	case errors.Is(err, io.EOF) && len(line) > 0:
		return nil, io.ErrUnexpectedEOF
	}
	return line, err
}

func readLimited(dir fs.FS, name string, most int64) ([]byte, error) {
	f, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(content)) > most {
		err = fmt.Errorf("%s is too long", name)
	}
	return content, err
}

// FirstSequence is the number of the first record in a segment that isn't compressed; 0 if there is
// none yet.
func FirstSequence(segment io.ReaderAt) (uint64, error) {
	line, err := newLineReader(io.NewSectionReader(segment, 0, maxRecord)).next()
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	before, ok := parseLink(line)
	if !ok {
		return 0, errors.New("the segment's first record is malformed")
	}
	return before.Sequence + 1, nil
}

// segmentReader reads a segment's records.
type segmentReader struct {
	io.Reader
	file   fs.File
	packed *zstd.Decoder // nil if it isn't compressed
}

func openSegment(dir fs.FS, name string, compressed bool) (*segmentReader, error) {
	file, err := dir.Open(name)
	if err != nil {
		return nil, err
	}
	if !compressed {
		return &segmentReader{file, file, nil}, nil
	}
	packed, err := zstd.NewReader(file, zstd.WithDecoderConcurrency(2), zstd.WithDecoderMaxWindow(64<<20))
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &segmentReader{packed, file, packed}, nil
}

// Close closes the segment.
func (s *segmentReader) Close() error {
	if s.packed != nil {
		s.packed.Close()
	}
	return s.file.Close()
}
