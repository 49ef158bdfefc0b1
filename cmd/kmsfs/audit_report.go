package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/audit/report"
)

// reportDays is how far a report goes back if nothing else is asked for.
const reportDays = 7

func auditReportCommand() command {
	return serviceCommand(command{
		name: "report", arguments: "[OPTIONS]", summary: "sum up who used which keys, and what looks like an attack",
		details: `
Sums up the audit log of a time, the last seven days unless told otherwise: uses of keys and refusals over time; the keys, principals and files
with the most of them; bursts of refusals, many files at once, keys used by somebody for the first time; events to be looked at; changes of
keys and policies. The log is verified first. With --html it is a page that loads and runs nothing, so that it can be kept or sent as it is.

Examples:
  kmsfs audit report --since 24h
  kmsfs audit report --since 2026-11-01 --until 2026-11-30 --html november.html`,
	}, func(_ *serviceOptions, flags *pflag.FlagSet) func(*session, []string) error {
		var since, until timeFlag
		flags.Var(&since, "since", "report from a `TIME` on: a date, RFC 3339, or how long ago: 36h, 7d")
		flags.Var(&until, "until", "report up to a `TIME`")
		path := flags.String("html", "", "write a page to a `FILE`")
		return func(s *session, _ []string) error {
			now := time.Now()
			if until.time.IsZero() {
				until.time = now
			}
			if since.time.IsZero() {
				since.time = until.time.AddDate(0, 0, -reportDays)
			}
			r, err := makeReport(s, since.time, until.time)
			if err != nil {
				return err
			}
			r.Made = now
			if *path == "" {
				return r.WriteText(os.Stdout)
			}
			return writePage(*path, r)
		}
	})
}

func makeReport(s *session, since, until time.Time) (*report.Report, error) {
	log, err := readAuditLog(s)
	if err != nil {
		return nil, err
	}
	against, err := log.against(audit.VerifyOptions{})
	if err != nil {
		return nil, err
	}
	found, broken := audit.Verify(log.files, against)
	if _, isFault := errors.AsType[*audit.Fault](broken); broken != nil && !isFault {
		return nil, broken
	}
	c := report.New(since, until)
	err = audit.Query(log.files, log.open, audit.Filter{Until: until}, func(e *audit.Entry) error {
		c.Add(e)
		return nil
	})
	if err != nil {
		return nil, err
	}
	r := c.Report()
	r.Log, r.Whole = log.about.Log, "The log is what was written: "+describe(found)
	if broken != nil {
		r.Broken, r.Whole = true, "The log is not what was written: "+broken.Error()
	}
	return r, nil
}

// writePage writes a report for its reader alone, and leaves what was there if it can't.
func writePage(path string, r *report.Report) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return pathError(err)
	}
	err = r.WriteHTML(f)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, pathError(err)), os.Remove(f.Name()))
	}
	return nil
}
