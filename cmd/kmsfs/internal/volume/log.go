package volume

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"log/syslog"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"kmsfs/cmd/kmsfs/internal/session"
)

// logFile is where a daemon logs on systems without a system log.
const logFile = "kmsfs.log"

// foregroundLog logs to standard error.
func foregroundLog() *slog.Logger { return slog.New(slog.NewTextHandler(os.Stderr, nil)) }

// logDir is where a mount logs if there is no system log: in the home, or beside the journals.
func (o mountOptions) logDir() string {
	if o.KMS != "" {
		return session.JournalDir(o.Home)
	}
	return o.Home
}

// daemonLog logs to the system log, or if there is none to a file in dir.
func daemonLog(dir string) *slog.Logger {
	if out, err := syslog.New(syslog.LOG_DAEMON|syslog.LOG_INFO, "kmsfs"); err == nil {
		level := &levelWriter{out: out}
		return slog.New(syslogHandler{slog.NewTextHandler(level, &slog.HandlerOptions{ReplaceAttr: untimed}), level})
	}
	return slog.New(slog.NewTextHandler(lazyFile(filepath.Join(dir, logFile)), nil))
}

// untimed leaves out what the system log adds.
func untimed(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
		return slog.Attr{}
	}
	return a
}

// syslogHandler gives each record the system log's priority for its level.
type syslogHandler struct {
	slog.Handler // writes to out
	out          *levelWriter
}

func (h syslogHandler) Handle(ctx context.Context, r slog.Record) error {
	h.out.mu.Lock()
	defer h.out.mu.Unlock()
	h.out.level = r.Level
	return h.Handler.Handle(ctx, r)
}

func (h syslogHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return syslogHandler{h.Handler.WithAttrs(attrs), h.out}
}

func (h syslogHandler) WithGroup(name string) slog.Handler {
	return syslogHandler{h.Handler.WithGroup(name), h.out}
}

// levelWriter writes lines to the system log at the level that was set last.
type levelWriter struct {
	mu    sync.Mutex // held from setting level to the end of Write
	level slog.Level
	out   *syslog.Writer
}

func (w *levelWriter) Write(line []byte) (int, error) {
	write := w.out.Debug
	switch {
	case w.level >= slog.LevelError:
		write = w.out.Err
	case w.level >= slog.LevelWarn:
		write = w.out.Warning
	case w.level >= slog.LevelInfo:
		write = w.out.Info
	}
	return len(line), write(string(line))
}

// lazyFile is a file that lines are appended to. It is made, for its owner alone, with the first
// line.
type lazyFile string

func (f lazyFile) Write(line []byte) (n int, err error) {
	out, err := os.OpenFile(string(f), os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return 0, fmt.Errorf("log: %w", err)
	}
	defer func() {
		if closeErr := out.Close(); err == nil {
			err = closeErr
		}
	}()
	return out.Write(line)
}

var _ io.Writer = lazyFile("")
