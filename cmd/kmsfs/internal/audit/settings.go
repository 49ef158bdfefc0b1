package audit

import (
	"encoding/pem"
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"kmsfs/cmd/kmsfs/internal/cli"
	"kmsfs/cmd/kmsfs/internal/output"
	"kmsfs/cmd/kmsfs/internal/session"
	"kmsfs/keyservice/kms"
)

func keyCommand() *cobra.Command {
	var o session.Options
	c := &cobra.Command{
		Use: "key [OPTIONS]", Short: "Print the public key that the audit log is signed with",
		Long: `
Prints the public half of the audit key in PEM. Keep it elsewhere: with it,
anyone can verify a copy of the log.`,
		Example: `
  kmsfs audit key >audit.pem`,
		Args: cli.None,
		RunE: func(*cobra.Command, []string) error { return o.Call(printKey) },
	}
	o.Declare(c.Flags())
	return c
}

func printKey(s *session.Session) error {
	about, err := kms.ReadAudit.Call(s.Ctx, s, s.Caller, &kms.ReadAuditInput{})
	if err != nil {
		return err
	}
	return pem.Encode(os.Stdout, &pem.Block{Type: "PUBLIC KEY", Bytes: about.PublicKey})
}

// The values of --sync.
const (
	syncAlways  = "always"
	syncChanges = "changes"
)

type settingsOptions struct {
	session.Options
	flags *pflag.FlagSet
	given kms.AuditSettings
	sync  string
}

func settingsCommand() *cobra.Command {
	var o settingsOptions
	c := &cobra.Command{
		Use: "settings [OPTIONS]", Short: "Show or change the settings of the audit log",
		Long: `
Prints the settings. With options, it changes them first. A segment of the log
is closed, compressed and signed at its size or age. Closed segments are kept
for ever, or for a number of days, at least 30. When they are removed, a signed
statement of that remains.`,
		Example: `
  kmsfs audit settings --retention-days 365 --sync always
  kmsfs audit settings --send-to /dev/log
  kmsfs audit settings --export-directory /mnt/elsewhere/digests`,
		Args: cli.None,
		PreRunE: func(*cobra.Command, []string) error {
			if o.sync != "" && o.sync != syncAlways && o.sync != syncChanges {
				return cli.Usagef("--sync is always or changes, not %q", o.sync)
			}
			return nil
		},
		RunE: func(*cobra.Command, []string) error { return o.Call(o.run) },
	}
	o.flags = c.Flags()
	o.DeclareJSON(o.flags)
	o.flags.Int32Var(&o.given.SegmentKiB, "segment-kib", 0, "close a segment at a `SIZE` in KiB, 64 to 4194304")
	o.flags.Int32Var(&o.given.SegmentHours, "segment-hours", 0, "close a segment after `HOURS`, 1 to 744")
	o.flags.Int32Var(&o.given.RetentionDays, "retention-days", 0, "keep closed segments for `DAYS`; 0 for ever")
	o.flags.StringVar(&o.given.StandInDirectory, "stand-in", "",
		"write records to a `DIRECTORY` on another disk while the log can't be written")
	o.flags.StringVar(&o.given.ExportDirectory, "export-directory", "", "copy the digest of each closed segment to a `DIRECTORY`")
	o.flags.StringVar(&o.given.SendTo, "send-to", "", "send records to a syslog `SOCKET`, such as /dev/log")
	o.flags.StringVar(&o.sync, "sync", "",
		"put records on disk before calls are answered: `WHEN` is always, or changes for calls that change something")
	o.Declare(o.flags)
	cli.Values(c, "sync", syncAlways, syncChanges)
	return c
}

func (o *settingsOptions) run(s *session.Session) error {
	settings, err := kms.GetAuditSettings.Call(s.Ctx, s, s.Caller, &kms.GetAuditSettingsInput{})
	if err != nil {
		return err
	}
	if o.apply(settings) {
		if _, err := kms.PutAuditSettings.Call(s.Ctx, s, s.Caller, settings); err != nil {
			return err
		}
	}
	if o.JSON {
		return output.JSON(settings)
	}
	return showSettings(settings)
}

// apply changes the settings whose options are given, and says whether there are any.
func (o *settingsOptions) apply(settings *kms.AuditSettings) (changed bool) {
	o.flags.Visit(func(f *pflag.Flag) {
		switch f.Name {
		case "segment-kib":
			settings.SegmentKiB, changed = o.given.SegmentKiB, true
		case "segment-hours":
			settings.SegmentHours, changed = o.given.SegmentHours, true
		case "retention-days":
			settings.RetentionDays, changed = o.given.RetentionDays, true
		case "stand-in":
			settings.StandInDirectory, changed = o.given.StandInDirectory, true
		case "export-directory":
			settings.ExportDirectory, changed = o.given.ExportDirectory, true
		case "send-to":
			settings.SendTo, changed = o.given.SendTo, true
		case "sync":
			settings.SyncAlways, changed = o.sync == syncAlways, true
		}
	})
	return changed
}

func showSettings(settings *kms.AuditSettings) error {
	retention, synced := "for ever", syncChanges
	if settings.RetentionDays != 0 {
		retention = fmt.Sprintf("%d days", settings.RetentionDays)
	}
	if settings.SyncAlways {
		synced = syncAlways
	}
	return output.Facts("Segments are closed at", fmt.Sprintf("%d KiB or %d hours", settings.SegmentKiB, settings.SegmentHours),
		"Closed segments are kept", retention, "Records are synced before the answer", synced,
		"Records go while the log can't be written to", settings.StandInDirectory,
		"Digests are copied to", settings.ExportDirectory,
		"Records are sent to", settings.SendTo)
}
