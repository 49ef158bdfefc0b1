package audit

import (
	"errors"
	"time"

	"github.com/spf13/cobra"

	"kmsfs/cmd/kmsfs/internal/auditlog"
	"kmsfs/cmd/kmsfs/internal/cli"
	"kmsfs/cmd/kmsfs/internal/session"
	"kmsfs/keyservice/audit"
)

// followInterval is how often a tail looks for new records.
const followInterval = 200 * time.Millisecond

func tailCommand() *cobra.Command {
	var o session.Options
	var lines int
	var follow, whole bool
	c := &cobra.Command{
		Use: "tail [OPTIONS]", Short: "Show the last records of the audit log",
		Long: `
Prints the last records of the log's open segment. With --follow, it goes on
with new records until it is interrupted.`,
		Example: `
  kmsfs audit tail
  kmsfs audit tail --follow --json | jq .eventName`,
		Args: cli.None,
		RunE: func(*cobra.Command, []string) error {
			return o.Call(func(s *session.Session) error { return tail(s, lines, follow, printer(whole)) })
		},
	}
	flags := c.Flags()
	flags.IntVarP(&lines, "lines", "n", 10, "print the last `N` records")
	flags.BoolVarP(&follow, "follow", "f", false, "go on with new records")
	flags.BoolVar(&whole, "json", false, "print whole records, one JSON object a line")
	o.Declare(flags)
	return c
}

// tail shows the last records, and with follow those that come.
func tail(s *session.Session, lines int, follow bool, show func(*audit.Entry) error) error {
	log, err := auditlog.Read(s)
	if err != nil {
		return err
	}
	tail := log.Tail()
	defer func() { _ = tail.Close() }() // it has only read
	var last []*audit.Entry
	unread := tail.Next(func(e *audit.Entry) error {
		if last = append(last, e); len(last) > max(lines, 0) {
			last = last[1:]
		}
		return nil
	})
	if _, ok := errors.AsType[*audit.UnreadableError](unread); unread != nil && !ok {
		return unread
	}
	for _, e := range last {
		if err := show(e); err != nil {
			return err
		}
	}
	if !follow {
		return unread
	}
	stopped, stop := session.InterruptibleContext()
	defer stop()
	return errors.Join(unread, tail.Follow(followInterval, stopped.Done(), show))
}
