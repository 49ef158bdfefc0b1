// Package send passes audit records on to other logs: the system's journal, its syslog, or a collector of OpenTelemetry logs.
package send

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/printable"
)

// The places that records can be sent to; Collector is followed by the URL of an OTLP/HTTP endpoint.
const (
	Journal   = "journald"
	Syslog    = "syslog"
	Collector = "otlp:"
)

// Sink takes records. It is not safe for concurrent use.
type Sink interface {
	// Send passes records on, in their order. After an error some of them may have arrived.
	Send(ctx context.Context, records []*audit.Entry) error
	// Close ends it.
	Close() error
}

// Check says what is wrong with the name of a place.
func Check(to string) error {
	if to == Journal || to == Syslog {
		return nil
	}
	text, ok := strings.CutPrefix(to, Collector)
	if !ok {
		return fmt.Errorf("want %s, %s or %sURL", Journal, Syslog, Collector)
	}
	endpoint, err := url.Parse(text)
	if err != nil || endpoint.Scheme != "http" && endpoint.Scheme != "https" || endpoint.Host == "" || endpoint.User != nil || endpoint.RawQuery != "" || endpoint.Fragment != "" {
		return fmt.Errorf("want %s and a URL such as https://collector.example.com:4318", Collector)
	}
	return nil
}

// Open returns a sink of the records of a log.
func Open(ctx context.Context, to, log string) (Sink, error) {
	if err := Check(to); err != nil {
		return nil, err
	}
	switch to {
	case Journal:
		return &journalSink{}, nil
	case Syslog:
		return openSyslog()
	}
	return openCollector(ctx, strings.TrimPrefix(to, Collector), log)
}

// severity is how grave a record is.
type severity int

const (
	notice severity = iota
	refused
	failed
)

func severityOf(e *audit.Entry) severity {
	switch {
	case e.ErrorCode == "KMSInternalException":
		return failed
	case e.ErrorCode != "":
		return refused
	}
	return notice
}

// summary is a record in a line for people.
func summary(e *audit.Entry) string {
	by, program := e.Principal()
	what := []string{e.EventName}
	if e.ErrorCode != "" {
		what = append(what, e.ErrorCode)
	}
	what = append(what, "by", by)
	if program != "" {
		what = append(what, program)
	}
	if path := e.AdditionalEventData.FilePath; path != "" {
		what = append(what, "for", path)
	}
	for i, word := range what {
		what[i] = printable.Text(word)
	}
	return strings.Join(what, " ")
}

// attempt runs something that can't be told to stop, and doesn't begin again before it has ended.
type attempt struct {
	// running is closed when what was begun has ended; nil if nothing was.
	running chan struct{}
}

func (a *attempt) run(ctx context.Context, do func() error) error {
	if a.running != nil {
		select {
		case <-a.running:
		case <-ctx.Done():
			return fmt.Errorf("it doesn't take what it was given before: %w", ctx.Err())
		}
	}
	ended := make(chan struct{})
	var err error
	go func() {
		defer close(ended)
		err = do()
	}()
	select {
	case <-ended:
		a.running = nil
		return err
	case <-ctx.Done():
		a.running = ended
		return ctx.Err()
	}
}
