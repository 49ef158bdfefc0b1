package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"kmsfs/cmd/kmsfs/internal/auditlog"
	"kmsfs/cmd/kmsfs/internal/cli"
	"kmsfs/cmd/kmsfs/internal/session"
	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/audit/report"
)

// reportDays is how far a report goes back, unless the user says otherwise.
const reportDays = 7

type reportOptions struct {
	session.Options
	since, until cli.Time
	page         string
}

func reportCommand() *cobra.Command {
	var o reportOptions
	c := &cobra.Command{
		Use: "report [OPTIONS]", Short: "Sum up who used which keys, and what looks like an attack",
		Long: `
Sums up the audit log of the last seven days, or of another time: uses and
denials of keys over time; the keys, principals and files with the most of them;
bursts of denials, many files at once, first uses of keys; events to look at;
changes of keys and policies. The log is verified first.

With --html it writes a page that loads nothing and runs nothing: it can be kept
and sent as it is.`,
		Example: `
  kmsfs audit report --since 24h
  kmsfs audit report --since 2026-11-01 --until 2026-11-30 --html november.html`,
		Args: cli.None,
		RunE: func(*cobra.Command, []string) error { return o.Call(o.run) },
	}
	flags := c.Flags()
	flags.Var(&o.since, "since", "report from a `TIME` on: a date, RFC 3339, or how long ago: 36h, 7d")
	flags.Var(&o.until, "until", "report up to a `TIME`")
	flags.StringVar(&o.page, "html", "", "write a page to a `FILE`")
	o.Declare(flags)
	return c
}

func (o *reportOptions) run(s *session.Session) error {
	now := time.Now()
	since, until := o.since.Time, o.until.Time
	if until.IsZero() {
		until = now
	}
	if since.IsZero() {
		since = until.AddDate(0, 0, -reportDays)
	}
	r, unread := makeReport(s, since, until)
	if r == nil {
		return unread
	}
	r.Made = now
	if o.page == "" {
		return errors.Join(r.WriteText(os.Stdout), unread)
	}
	return errors.Join(writePage(o.page, r), unread)
}

// makeReport sums up the log. If records can't be read, it returns a report that says so, and an error.
func makeReport(s *session.Session, since, until time.Time) (*report.Report, error) {
	log, err := auditlog.Read(s)
	if err != nil {
		return nil, err
	}
	found, broken := log.Verify(audit.VerifyOptions{})
	if _, isFault := errors.AsType[*audit.Fault](broken); broken != nil && !isFault {
		return nil, broken
	}
	c := report.New(since, until)
	err = log.Query(audit.Filter{Until: until}, func(e *audit.Entry) error {
		c.Add(e)
		return nil
	})
	unread, ok := errors.AsType[*audit.UnreadableError](err)
	if err != nil && !ok {
		return nil, err
	}
	r := c.Report()
	r.Log, r.Whole = log.About.Log, "The log is what was written: "+describe(found)
	if broken != nil {
		r.Broken, r.Whole = true, "The log is not what was written: "+broken.Error()
	}
	if unread != nil {
		r.Broken, r.Whole = true, r.Whole+"; "+unread.Error()
	}
	return r, err
}

// writePage writes a report that only its user can read. If that fails, an earlier file stays.
func writePage(path string, r *report.Report) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return session.PathError(err)
	}
	err = r.WriteHTML(f)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, session.PathError(err)), os.Remove(f.Name()))
	}
	return nil
}
