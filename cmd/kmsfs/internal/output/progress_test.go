package output

import (
	"testing"
	"time"

	disk "kmsfs/fs/volume"
)

func TestProgressLine(t *testing.T) {
	for _, test := range []struct {
		files, bytes, allFiles, allBytes int64
		counted                          bool
		want                             string
	}{
		{0, 0, 0, 0, false, "0 files  0 B  0 B/s  counting all"},
		{12, 999, 40, 5000, false, "12 files  999 B  99 B/s  counting all"},
		{0, 0, 0, 0, true, "[####################] 100 %  0 files  0 B  0 B/s  0s left"},
		{1000, 1_500_000_000, 2000, 3_000_000_000, true, "[##########..........]  50 %  1000 files  1.5 GB  150.0 MB/s  10s left"},
		{0, 0, 10, 1 << 50, true, "[....................]   0 %  0 files  0 B  0 B/s  ? left"},
		{3000, 4_000_000_000, 2000, 3_000_000_000, true, "[####################] 100 %  3000 files  4.0 GB  400.0 MB/s  0s left"}, // more came meanwhile
	} {
		b := Progress{progress: new(disk.Progress)}
		b.progress.Files.Store(test.files)
		b.progress.Bytes.Store(test.bytes)
		b.progress.AllFiles.Store(test.allFiles)
		b.progress.AllBytes.Store(test.allBytes)
		b.progress.Counted.Store(test.counted)
		if got := b.line(10 * time.Second); got != test.want {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
	}
	if got := fit("0123456789", 5); got != "0123" {
		t.Errorf("fit to %q", got)
	}
}
