package output

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	disk "kmsfs/fs/volume"
)

// progressInterval is how often a progress bar is drawn.
const progressInterval = 200 * time.Millisecond

// Progress is a bar on a terminal that shows how far the work on a volume is. A nil one shows
// nothing.
type Progress struct {
	w          io.Writer
	progress   *disk.Progress
	width      func() int
	begun      time.Time
	stop, done chan struct{}
	// headersOnly says that a file's size does not matter for the work.
	headersOnly bool

	mu sync.Mutex // held while something is written to the terminal
}

// StartProgress draws a progress bar on standard error until it is ended. It returns nil if
// standard error is no terminal.
func StartProgress(headersOnly bool) *Progress {
	fd := int(os.Stderr.Fd())
	if !term.IsTerminal(fd) {
		return nil
	}
	b := &Progress{
		w: os.Stderr, progress: new(disk.Progress), begun: time.Now(), headersOnly: headersOnly,
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	b.width = func() int {
		if width, _, err := term.GetSize(fd); err == nil {
			return width
		}
		return 80
	}
	go b.run()
	return b
}

// Counters are what the work keeps up to date; nil if nothing is shown.
func (b *Progress) Counters() *disk.Progress {
	if b == nil {
		return nil
	}
	return b.progress
}

// End takes the bar away.
func (b *Progress) End() {
	if b != nil {
		close(b.stop)
		<-b.done
	}
}

func (b *Progress) run() {
	defer close(b.done)
	ticks := time.NewTicker(progressInterval)
	defer ticks.Stop()
	for {
		b.draw(fit(b.line(time.Since(b.begun)), b.width()))
		select {
		case <-b.stop:
			b.draw("")
			return
		case <-ticks.C:
		}
	}
}

// draw replaces the line drawn before.
func (b *Progress) draw(line string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	const clearLine = "\r\x1b[K"
	_, _ = fmt.Fprint(b.w, clearLine+line) // a terminal that is gone shows nothing
}

// Above has something printed where the bar is. The bar moves below it.
func (b *Progress) Above(show func() error) error {
	if b == nil {
		return show()
	}
	b.draw("")
	b.mu.Lock()
	defer b.mu.Unlock()
	return show()
}

// fit cuts a line of ASCII, so that it does not reach the terminal's last column.
func fit(line string, width int) string { return line[:min(len(line), max(width-1, 0))] }

// line is the bar after that time.
func (b *Progress) line(spent time.Duration) string {
	p := b.progress
	files, bytes := p.Files.Load(), p.Bytes.Load()
	rate := float64(bytes) / max(spent.Seconds(), 0.001)
	text := fmt.Sprintf("%d files  %s  %s/s", files, Bytes(bytes), Bytes(int64(rate)))
	if b.headersOnly {
		text = fmt.Sprintf("%d files  %.0f/s", files, float64(files)/max(spent.Seconds(), 0.001))
	}
	if !p.Counted.Load() {
		return text + "  counting all"
	}
	part := p.Part()
	const cells = 20
	full := int(part * cells)
	bar := "[" + strings.Repeat("#", full) + strings.Repeat(".", cells-full) + "]"
	return fmt.Sprintf("%s %3.0f %%  %s  %s left", bar, part*100, text, timeLeft(spent, part))
}

// timeLeft is the time left, at the rate so far.
func timeLeft(spent time.Duration, part float64) string {
	if part < 0.001 {
		return "?"
	}
	return time.Duration(float64(spent) * (1 - part) / part).Round(time.Second).String()
}
