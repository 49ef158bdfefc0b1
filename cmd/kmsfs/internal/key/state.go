package key

import (
	"fmt"

	"github.com/spf13/cobra"

	"kmsfs/cmd/kmsfs/internal/cli"
	"kmsfs/cmd/kmsfs/internal/output"
	"kmsfs/cmd/kmsfs/internal/session"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/printable"
)

func enableCommand() *cobra.Command {
	return ofKey(&cobra.Command{
		Use: "enable [OPTIONS] KEY", Short: "Enable a KMS key",
		Example: `
  kmsfs key enable alias/finance`,
	}, new(session.Options), func(s *session.Session, arn string) error {
		_, err := kms.EnableKey.Call(s.Ctx, s, s.Caller, &kms.EnableKeyInput{KeyId: arn})
		return err
	})
}

func disableCommand() *cobra.Command {
	return ofKey(&cobra.Command{
		Use: "disable [OPTIONS] KEY", Short: "Disable a KMS key until it is enabled again",
		Long: `
All use of the key is denied, and open files under it stop working within a
second. "kmsfs key usage" counts the files that it locks.`,
		Example: `
  kmsfs key disable alias/finance`,
	}, new(session.Options), func(s *session.Session, arn string) error {
		_, err := kms.DisableKey.Call(s.Ctx, s, s.Caller, &kms.DisableKeyInput{KeyId: arn})
		return err
	})
}

func rotateCommand() *cobra.Command {
	return ofKey(&cobra.Command{
		Use: "rotate [OPTIONS] KEY", Short: "Give a KMS key new key material",
		Long: `
What the old key material has encrypted stays readable.`,
		Example: `
  kmsfs key rotate alias/finance`,
	}, new(session.Options), func(s *session.Session, arn string) error {
		_, err := kms.RotateKeyOnDemand.Call(s.Ctx, s, s.Caller, &kms.RotateKeyOnDemandInput{KeyId: arn})
		return err
	})
}

func enableRotationCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "enable-rotation [OPTIONS] KEY", Short: "Rotate a KMS key automatically",
		Example: `
  kmsfs key enable-rotation --period 90 alias/finance`,
	}
	period := c.Flags().Int32("period", 365, "`DAYS` from one rotation to the next: 90 to 2560")
	return ofKey(c, new(session.Options), func(s *session.Session, arn string) error {
		_, err := kms.EnableKeyRotation.Call(s.Ctx, s, s.Caller, &kms.EnableKeyRotationInput{
			KeyId: arn, RotationPeriodInDays: period,
		})
		return err
	})
}

func disableRotationCommand() *cobra.Command {
	return ofKey(&cobra.Command{
		Use: "disable-rotation [OPTIONS] KEY", Short: "End the automatic rotation of a KMS key",
		Example: `
  kmsfs key disable-rotation alias/finance`,
	}, new(session.Options), func(s *session.Session, arn string) error {
		_, err := kms.DisableKeyRotation.Call(s.Ctx, s, s.Caller, &kms.DisableKeyRotationInput{KeyId: arn})
		return err
	})
}

func scheduleDeletionCommand() *cobra.Command {
	var o session.Options
	c := &cobra.Command{
		Use: "schedule-deletion [OPTIONS] KEY", Short: "Delete a KMS key after a waiting period",
		Long: `
The key can't be used during the waiting period, and "kmsfs key cancel-deletion"
keeps it. After the deletion, all that the key has encrypted is lost for good.
"kmsfs key usage" counts the files.`,
		Example: `
  kmsfs key usage alias/finance
  kmsfs key schedule-deletion --days 7 alias/finance`,
		Args: cli.Exactly(1, "one KEY"), ValidArgsFunction: o.Keys(0),
	}
	days := c.Flags().Int32("days", 30, "waiting period in `DAYS`: 7 to 30")
	o.DeclareJSON(c.Flags())
	return o.Bind(c, func(s *session.Session, args []string) error {
		arn, err := s.KeyARN(args[0])
		if err != nil {
			return err
		}
		out, err := kms.ScheduleKeyDeletion.Call(s.Ctx, s, s.Caller, &kms.ScheduleKeyDeletionInput{
			KeyId: arn, PendingWindowInDays: days,
		})
		if err != nil {
			return err
		}
		if o.JSON {
			return output.JSON(out)
		}
		_, err = fmt.Printf("%s will be deleted on %s, with all that it encrypted. Until then: kmsfs key cancel-deletion %s\n",
			printable.Text(out.KeyId), output.Time(&out.DeletionDate), printable.Text(args[0]))
		return err
	})
}

func cancelDeletionCommand() *cobra.Command {
	return ofKey(&cobra.Command{
		Use: "cancel-deletion [OPTIONS] KEY", Short: "Keep a KMS key that is pending deletion",
		Long: `
The key is disabled then: enable it with "kmsfs key enable".`,
		Example: `
  kmsfs key cancel-deletion alias/finance`,
	}, new(session.Options), func(s *session.Session, arn string) error {
		_, err := kms.CancelKeyDeletion.Call(s.Ctx, s, s.Caller, &kms.CancelKeyDeletionInput{KeyId: arn})
		return err
	})
}
