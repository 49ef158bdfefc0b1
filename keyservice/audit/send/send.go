// Package send passes audit records on to the system's log, by the socket that syslog(3) writes to.
// systemd's journal and every syslog daemon listen there, and pass records on to other hosts.
package send

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/printable"
)

const (
	// facility is syslog's authpriv, times 8.
	facility = 10 << 3
	// The severities of syslog that records have.
	severityError   = 3
	severityWarning = 4
	severityInfo    = 6

	tag = "kmsfs-audit"
	// sendBuffer holds a record of any length, in bytes, if the kernel allows it.
	sendBuffer = 512 << 10
	// longestPath is that of a socket, in bytes (unix(7)).
	longestPath = 107
)

// Check says what is wrong with the path of a socket.
func Check(path string) error {
	if !strings.HasPrefix(path, "/") || len(path) > longestPath || strings.ContainsRune(path, 0) {
		return errors.New("want the absolute path of a syslog socket, such as /dev/log")
	}
	return nil
}

// Sink sends records. It is not safe for concurrent use.
type Sink struct{ conn *net.UnixConn }

// Open connects to the socket.
func Open(ctx context.Context, path string) (*Sink, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "unixgram", path)
	if err != nil {
		return nil, err
	}
	s := &Sink{conn.(*net.UnixConn)}
	if err := s.conn.SetWriteBuffer(sendBuffer); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// Send sends records, in their order: each whole record is a message. After an error some of them
// may have arrived.
func (s *Sink) Send(ctx context.Context, records []*audit.Entry) error {
	deadline, _ := ctx.Deadline() // a zero time is none
	if err := s.conn.SetWriteDeadline(deadline); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.conn.SetWriteDeadline(time.Unix(1, 0)) }) // it can only have been closed
	defer stop()
	for _, e := range records {
		err := s.write(e, string(e.Line))
		if errors.Is(err, unix.EMSGSIZE) {
			err = s.write(e, tooLong(e))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// write sends a message in the form of RFC 3164, as local senders write it.
func (s *Sink) write(e *audit.Entry, text string) error {
	_, err := fmt.Fprintf(s.conn, "<%d>%s %s[%d]: %s", facility|severityOf(e), time.Now().Format(time.Stamp), tag, os.Getpid(), text)
	return err
}

// tooLong stands for a record that is longer than the socket's messages.
func tooLong(e *audit.Entry) string {
	by, _ := e.Principal()
	return fmt.Sprintf("record %d is too long to be sent, %d bytes: %s by %s %s",
		e.Sequence, len(e.Line), printable.Text(e.EventName), printable.Text(by), printable.Text(e.ErrorCode))
}

func severityOf(e *audit.Entry) int {
	switch {
	case e.ErrorCode == "KMSInternalException":
		return severityError
	case e.ErrorCode != "":
		return severityWarning
	}
	return severityInfo
}

// Close closes the connection.
func (s *Sink) Close() error { return s.conn.Close() }
