package integration

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkWatch has a user's process hold many files open: what asking for them costs, in milliseconds of a processor's time a second, and how long it takes from
// a revocation until all of them are refused.
func BenchmarkWatch(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			o := newOffice(b)
			id := o.grant(b, o.alice.principal(), writing)
			p := o.alice.as(b)
			for i := range n {
				f := p.mustOpen(filepath.Join(o.dir, fmt.Sprint(i)), unix.O_CREAT|unix.O_RDWR)
				if _, err := f.do(order{Do: "pwrite", Data: []byte("text")}); err != nil {
					b.Fatal(err)
				}
			}
			pid := o.pid()
			for b.Loop() {
				const measured = 4 * time.Second
				before := processorTime(b, pid)
				time.Sleep(measured)
				b.ReportMetric(float64((processorTime(b, pid)-before).Milliseconds())/measured.Seconds(), "ms/s")
				run(b, "/", "sync", "-f", o.point) // what isn't written yet is written first, and takes its time
				began := time.Now()
				o.revoke(b, id)
				awaitAll(b, p, func(a answer) bool { return a.Refused == a.N })
				b.ReportMetric(time.Since(began).Seconds(), "s-until-refused")
				id = o.grant(b, o.alice.principal(), writing)
				awaitAll(b, p, func(a answer) bool { return a.Refused == 0 })
			}
		})
	}
}

// awaitAll has a process read all that it has open until what comes of it is so.
func awaitAll(b *testing.B, p *process, is func(a answer) bool) {
	b.Helper()
	await(b, "the end of the wait", func() bool {
		a, err := p.do(order{Do: "readAll"})
		must(b, err)
		return is(a)
	})
}

// processorTime is what a process has used until now.
func processorTime(b *testing.B, pid int) time.Duration {
	b.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	must(b, err)
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')'):]))
	var user, system int64
	if _, err := fmt.Sscan(fields[12]+" "+fields[13], &user, &system); err != nil { // 14 and 15 of proc(5)
		b.Fatal(err)
	}
	const tick = time.Second / 100 // USER_HZ
	return time.Duration(user+system) * tick
}
