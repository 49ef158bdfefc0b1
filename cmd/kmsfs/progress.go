package main

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

// progressBar shows on a terminal how far work on a volume has come.
type progressBar struct {
	w          io.Writer
	progress   *disk.Progress
	width      func() int
	begun      time.Time
	stop, done chan struct{}
	// headersOnly says that the work is the same for files of all sizes.
	headersOnly bool

	mu sync.Mutex // held while something is written to the terminal
}

// startProgress draws a progress bar on standard error, if that is a terminal, until it is ended. What it returns is nil otherwise: then nothing is drawn, and
// nobody need count.
func startProgress(headersOnly bool) *progressBar {
	fd := int(os.Stderr.Fd())
	if !term.IsTerminal(fd) {
		return nil
	}
	b := &progressBar{w: os.Stderr, progress: new(disk.Progress), begun: time.Now(), stop: make(chan struct{}), done: make(chan struct{}), headersOnly: headersOnly}
	b.width = func() int {
		if width, _, err := term.GetSize(fd); err == nil {
			return width
		}
		return 80
	}
	go b.run()
	return b
}

// counters are what the work is to keep up to date; nil if nobody looks.
func (b *progressBar) counters() *disk.Progress {
	if b == nil {
		return nil
	}
	return b.progress
}

// end takes the bar away.
func (b *progressBar) end() {
	if b != nil {
		close(b.stop)
		<-b.done
	}
}

func (b *progressBar) run() {
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

// draw puts a line in place of the one before.
func (b *progressBar) draw(line string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	const clearLine = "\r\x1b[K"
	_, _ = fmt.Fprint(b.w, clearLine+line) // a terminal that is gone shows nothing
}

// above has something printed where the bar is, which comes again below it.
func (b *progressBar) above(show func() error) error {
	if b == nil {
		return show()
	}
	b.draw("")
	b.mu.Lock()
	defer b.mu.Unlock()
	return show()
}

// fit cuts a line, which is ASCII, so that it doesn't fill the terminal's.
func fit(line string, width int) string { return line[:min(len(line), max(width-1, 0))] }

// line is the bar after that time.
func (b *progressBar) line(spent time.Duration) string {
	p := b.progress
	files, bytes := p.Files.Load(), p.Bytes.Load()
	rate := float64(bytes) / max(spent.Seconds(), 0.001)
	text := fmt.Sprintf("%d files  %s  %s/s", files, byteSize(bytes), byteSize(int64(rate)))
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

// timeLeft is what is left at the rate so far.
func timeLeft(spent time.Duration, part float64) string {
	if part < 0.001 {
		return "?"
	}
	return time.Duration(float64(spent) * (1 - part) / part).Round(time.Second).String()
}

// byteSize is a number of bytes for people.
func byteSize(n int64) string {
	const units = "kMGTPE"
	size, unit := float64(n), -1
	for size >= 1000 && unit < len(units)-1 {
		size, unit = size/1000, unit+1
	}
	if unit < 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %cB", size, units[unit])
}
