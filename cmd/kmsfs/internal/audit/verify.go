package audit

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"kmsfs/cmd/kmsfs/internal/auditlog"
	"kmsfs/cmd/kmsfs/internal/cli"
	"kmsfs/cmd/kmsfs/internal/output"
	"kmsfs/cmd/kmsfs/internal/session"
	"kmsfs/keyservice/audit"
)

type verifyOptions struct {
	session.Options
	from, to                   cli.Time
	keyFile, directory, digest string
}

func verifyCommand() *cobra.Command {
	var o verifyOptions
	c := &cobra.Command{
		Use: "verify [OPTIONS]", Short: "Verify that the audit log is unchanged",
		Long: `
Goes through the audit log. If a record was changed, removed, inserted, moved or
cut off, it names the first one, and the exit status is 1.

With --directory and --public-key it verifies a copy of the log, and needs no
home. In a copy it can't find records that were cut off after the last signed
segment.`,
		Example: `
  kmsfs audit verify
  kmsfs audit verify --from 2026-11-01 --to 2026-11-30
  kmsfs audit verify --directory /mnt/copy/audit --public-key audit.pem`,
		Args: cli.None,
		RunE: func(*cobra.Command, []string) error { return o.run() },
	}
	flags := c.Flags()
	flags.Var(&o.from, "from", "read only segments with records from a `TIME` on: a date, RFC 3339, or how long ago: 36h, 7d")
	flags.Var(&o.to, "to", "read only segments with records up to a `TIME`")
	flags.StringVar(&o.keyFile, "public-key", "", "verify against the public key in a `FILE`, not the home's")
	flags.StringVar(&o.directory, "directory", "", "verify a copy of the log in a `DIRECTORY`")
	flags.StringVar(&o.digest, "digests", "", "compare with the digests exported to a `DIRECTORY`")
	o.Declare(flags)
	return c
}

func (o *verifyOptions) run() (err error) {
	v := audit.VerifyOptions{Open: audit.OpenName, From: o.from.Time, To: o.to.Time}
	if o.digest != "" {
		v.Exported = os.DirFS(o.digest)
	}
	if o.keyFile != "" {
		text, err := os.ReadFile(o.keyFile)
		if err != nil {
			return session.PathError(err)
		}
		if v.Key, err = auditlog.PublicKey(text); err != nil {
			return fmt.Errorf("%s: %w", o.keyFile, err)
		}
	}
	if o.directory == "" {
		return o.Call(func(s *session.Session) error { return verifyHome(s, v) })
	}
	if v.Key == nil {
		return cli.Usagef("--directory wants --public-key")
	}
	return showVerified(audit.Verify(os.DirFS(o.directory), v))
}

// verifyHome verifies the log of a home.
func verifyHome(s *session.Session, o audit.VerifyOptions) error {
	log, err := auditlog.Read(s)
	if err != nil {
		return err
	}
	return showVerified(log.Verify(o))
}

func showVerified(report audit.Report, err error) error {
	if err != nil {
		return fmt.Errorf("the audit log is not what was written: %w", err)
	}
	return output.Line(describe(report))
}

// describe says what a verification has found.
func describe(r audit.Report) string {
	text := fmt.Sprintf("%d records are whole", r.Records-r.Pruned-r.Skipped)
	if r.Segments > 0 {
		text += fmt.Sprintf("; %d of all are signed for, in %d segments", r.Signed, r.Segments)
	}
	if r.Exported > 0 {
		text += fmt.Sprintf("; %d segments are as their exported digests say", r.Exported)
	}
	if r.Pruned > 0 {
		text += fmt.Sprintf("; %d were removed for their age, as is signed", r.Pruned)
	}
	if r.Skipped > 0 {
		text += fmt.Sprintf("; %d lie in other times", r.Skipped)
	}
	return text
}
