package audit

import (
	"encoding/csv"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"kmsfs/cmd/kmsfs/internal/auditlog"
	"kmsfs/cmd/kmsfs/internal/cli"
	"kmsfs/cmd/kmsfs/internal/output"
	"kmsfs/cmd/kmsfs/internal/session"
	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/printable"
	"kmsfs/policy"
)

type queryOptions struct {
	session.Options
	filter       audit.Filter
	path         string
	since, until cli.Time
	json, csv    bool
}

func queryCommand() *cobra.Command {
	var o queryOptions
	c := &cobra.Command{
		Use: "query [OPTIONS]", Short: "Search the audit log",
		Long: `
Prints the records to which all given options apply, the oldest first. In PATH,
* stands for any characters and ? for one.`,
		Example: `
  kmsfs audit query --path '/finance/*' --principal user:alice --since 7d
  kmsfs audit query --error '*' --csv
  kmsfs audit query --event Decrypt --key alias/finance --json`,
		Args: cli.None,
		RunE: func(*cobra.Command, []string) error { return o.run() },
	}
	flags := c.Flags()
	flags.StringVar(&o.filter.Key, "key", "", "records about a `KEY`: its ID, ARN or alias")
	flags.StringVar(&o.filter.Principal, "principal", "", "records of a `PRINCIPAL`: user:NAME, uid:N or an ARN")
	flags.StringVar(&o.path, "path", "", "records about files whose path matches `PATH`")
	flags.StringVar(&o.filter.Event, "event", "", "records of an `EVENT`, such as Decrypt or ContextMismatch")
	flags.StringVar(&o.filter.Error, "error", "", "records with an error's `CODE`; * stands for any")
	flags.Var(&o.since, "since", "records from a `TIME` on: a date, RFC 3339, or how long ago: 36h, 7d")
	flags.Var(&o.until, "until", "records up to a `TIME`")
	flags.BoolVar(&o.json, "json", false, "print whole records, one JSON object a line")
	flags.BoolVar(&o.csv, "csv", false, "print comma-separated values")
	o.Declare(flags)
	o.CompleteKeyOption(c)
	return c
}

func (o *queryOptions) run() error {
	f := o.filter
	if o.json && o.csv {
		return cli.Usagef("--json and --csv exclude each other")
	}
	if strings.HasPrefix(f.Principal, "group:") || strings.HasPrefix(f.Principal, "gid:") {
		return cli.Usagef("--principal %s: records name users, not groups", f.Principal)
	}
	f.Principal = strings.TrimPrefix(f.Principal, "user:")
	f.Since, f.Until = o.since.Time, o.until.Time
	if o.path != "" {
		f.Path = policy.Wildcard(o.path)
		f.Literal = longestLiteral(o.path)
	}
	return o.Call(func(s *session.Session) error {
		log, err := auditlog.Read(s)
		if err != nil {
			return err
		}
		if o.csv {
			return printCSV(log, f)
		}
		return log.Query(f, printer(o.json))
	})
}

// longestLiteral is the longest piece of a pattern without wildcards.
func longestLiteral(pattern string) (longest string) {
	for _, piece := range strings.FieldsFunc(pattern, func(r rune) bool { return r == '*' || r == '?' }) {
		if len(piece) > len(longest) {
			longest = piece
		}
	}
	return longest
}

func printCSV(log *auditlog.Log, f audit.Filter) error {
	out := csv.NewWriter(os.Stdout)
	heads := []string{"time", "event", "error", "user", "pid", "executable", "operation", "paths", "seen as", "resources"}
	if err := out.Write(heads); err != nil {
		return err
	}
	err := log.Query(f, func(e *audit.Entry) error {
		more := &e.AdditionalEventData
		user, executable := e.Principal()
		pid := more.PID
		if more.Behind != nil {
			pid = more.Behind.PID
		}
		return out.Write(clean([]string{
			entryTime(e), e.EventName, e.ErrorCode, user, fmt.Sprint(pid), executable, more.FileOperation,
			strings.Join(e.Paths(), " "), more.FilePath, resources(e),
		}))
	})
	out.Flush()
	return errors.Join(err, out.Error())
}

// printer prints records as lines for people, or whole.
func printer(whole bool) func(*audit.Entry) error {
	return func(e *audit.Entry) error {
		if whole {
			return output.Document(string(e.Line))
		}
		user, executable := e.Principal()
		columns := []string{
			entryTime(e), e.EventName, "ok", user, executable, e.AdditionalEventData.FileOperation,
			strings.Join(e.Paths(), " "), resources(e),
		}
		if e.ErrorCode != "" {
			columns[2] = e.ErrorCode
		}
		shown := slices.DeleteFunc(clean(columns), func(c string) bool { return c == "" })
		_, err := fmt.Println(strings.Join(shown, "  "))
		return err
	}
}

// clean makes texts of records printable.
func clean(texts []string) []string {
	for i, text := range texts {
		texts[i] = printable.Text(text)
	}
	return texts
}

func entryTime(e *audit.Entry) string { return e.EventTime.Format("2006-01-02T15:04:05.000000Z07:00") }

func resources(e *audit.Entry) string {
	var arns []string
	for _, r := range e.Resources {
		arns = append(arns, r.ARN)
	}
	return strings.Join(arns, " ")
}
