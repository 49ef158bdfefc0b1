// Package audit has the commands for the audit log.
//
//   - audit.go: the command that the others belong to
//   - verify.go, query.go, tail.go, report.go: reading the log
//   - settings.go: its settings and its public key
package audit

import (
	"github.com/spf13/cobra"

	"kmsfs/cmd/kmsfs/internal/cli"
)

// Command is "kmsfs audit".
func Command() *cobra.Command {
	c := &cobra.Command{
		Use: "audit COMMAND", GroupID: cli.KeyService, Short: "Verify and search the audit log",
		Long: `
The audit log says who has used which key for which file. Each record is chained
to the one before it, and closed segments are signed. Reading the log takes the
permission kmsfs:ReadAudit, and is recorded.`,
		Example: `
  kmsfs audit query --path '/finance/*' --since 7d
  kmsfs audit verify`,
	}
	c.AddCommand(verifyCommand(), queryCommand(), tailCommand(), reportCommand(), keyCommand(), settingsCommand())
	return c
}
