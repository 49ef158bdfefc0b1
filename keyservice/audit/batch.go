package audit

import (
	"bytes"
	"errors"
	"io"
	"runtime"
)

// batchSize is how much of a segment is looked at in one piece, in bytes.
const batchSize = 1 << 20

// batch is whole lines of a segment, and what came of them.
type batch[T any] struct {
	lines  []byte
	result T
	err    error // why there are no more
	done   chan struct{}
}

// inBatches has work done on the lines of r, several parts of them at a time; take gets what came
// of each, in their order, until it returns an error. Both may use the lines until take returns.
// What ended the lines comes back: io.EOF, or io.ErrUnexpectedEOF if the last had no newline.
func inBatches[T any](r io.Reader, work func(lines []byte) T, take func(T) error) error {
	parallel := runtime.GOMAXPROCS(0)
	ahead := make(chan *batch[T], parallel)
	free := make(chan []byte, parallel+2)
	stop := make(chan struct{})
	defer func() {
		close(stop)
		for b := range ahead { // r is not to be used by anybody afterwards
			<-b.done
		}
	}()
	go readBatches(r, work, ahead, free, stop)
	for b := range ahead {
		<-b.done
		if err := take(b.result); err != nil {
			return err
		}
		if b.err != nil {
			return b.err
		}
		select {
		case free <- b.lines:
		default:
		}
	}
	return io.EOF
}

func readBatches[T any](r io.Reader, work func(lines []byte) T, ahead chan<- *batch[T], free <-chan []byte, stop <-chan struct{}) {
	defer close(ahead)
	var rest []byte
	for {
		var buffer []byte
		select {
		case buffer = <-free:
		default:
			buffer = make([]byte, batchSize+maxRecord)
		}
		buffer = buffer[:cap(buffer)]
		begin := copy(buffer, rest)
		n, err := io.ReadFull(r, buffer[begin:])
		buffer = buffer[:begin+n]
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = io.EOF
		}
		end := bytes.LastIndexByte(buffer, '\n') + 1
		rest = append(rest[:0], buffer[end:]...)
		switch {
		case len(rest) > maxRecord:
			err = errLongLine
		case errors.Is(err, io.EOF) && len(rest) > 0:
			err = io.ErrUnexpectedEOF
		}
		b := &batch[T]{lines: buffer[:end], err: err, done: make(chan struct{})}
		go func() {
			defer close(b.done)
			b.result = work(b.lines)
		}()
		select {
		case ahead <- b:
		case <-stop:
			<-b.done
			return
		}
		if err != nil {
			return
		}
	}
}
