package key

import (
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"kmsfs/cmd/kmsfs/internal/cli"
	"kmsfs/cmd/kmsfs/internal/output"
	"kmsfs/cmd/kmsfs/internal/session"
	"kmsfs/keyservice/kms"
)

func listCommand() *cobra.Command {
	var o session.Options
	c := &cobra.Command{
		Use: "list [OPTIONS]", Short: "List all KMS keys",
		Long: `
Lists all KMS keys with their aliases. With --json, in the form of ListKeys.`,
		Example: `
  kmsfs key list`,
		Args: cli.None,
	}
	o.DeclareJSON(c.Flags())
	return o.Bind(c, func(s *session.Session, _ []string) error {
		all := kms.ListKeysOutput{Keys: []kms.KeyListEntry{}}
		if err := session.EachPage(func(marker string) (string, error) {
			out, err := kms.ListKeys.Call(s.Ctx, s, s.Caller, &kms.ListKeysInput{Marker: marker})
			if err != nil {
				return "", err
			}
			all.Keys = append(all.Keys, out.Keys...)
			return out.NextMarker, nil
		}); err != nil {
			return err
		}
		if o.JSON {
			return output.JSON(all)
		}
		return showKeys(s, all.Keys)
	})
}

func showKeys(s *session.Session, keys []kms.KeyListEntry) error {
	aliases := map[string][]string{}
	if err := s.EachAlias("", func(a kms.AliasListEntry) {
		aliases[a.TargetKeyId] = append(aliases[a.TargetKeyId], a.AliasName)
	}); err != nil {
		return err
	}
	rows := [][]string{{"KEY", "STATE", "SPEC", "USAGE", "ALIASES", "DESCRIPTION"}}
	for _, k := range keys {
		names := strings.Join(aliases[k.KeyId], ",")
		out, err := kms.DescribeKey.Call(s.Ctx, s, s.Caller, &kms.DescribeKeyInput{KeyId: k.KeyArn})
		if err != nil {
			rows = append(rows, []string{k.KeyId, "?", "?", "?", names, err.Error()})
			continue
		}
		m := out.KeyMetadata
		rows = append(rows, []string{k.KeyId, m.KeyState, m.KeySpec, m.KeyUsage, names, strconv.Quote(m.Description)})
	}
	return output.Table(rows)
}

func describeCommand() *cobra.Command {
	var o session.Options
	c := &cobra.Command{
		Use: "describe [OPTIONS] KEY", Short: "Show a KMS key",
		Long: `
With --json, in the form of DescribeKey.`,
		Example: `
  kmsfs key describe alias/finance`,
		Args: cli.Exactly(1, "one KEY"), ValidArgsFunction: o.Keys(0),
	}
	o.DeclareJSON(c.Flags())
	return o.Bind(c, func(s *session.Session, args []string) error {
		out, err := kms.DescribeKey.Call(s.Ctx, s, s.Caller, &kms.DescribeKeyInput{KeyId: args[0]})
		if err != nil {
			return err
		}
		if o.JSON {
			return output.JSON(out)
		}
		m := out.KeyMetadata
		algorithms := slices.Concat(m.EncryptionAlgorithms, m.SigningAlgorithms, m.MacAlgorithms, m.KeyAgreementAlgorithms)
		return output.Facts(
			"ARN", m.Arn, "Description", m.Description, "State", m.KeyState, "Spec", m.KeySpec, "Usage", m.KeyUsage,
			"Algorithms", strings.Join(algorithms, " "), "Manager", m.KeyManager, "Origin", m.Origin,
			"Created", output.Time(&m.CreationDate), "Key material", m.CurrentKeyMaterialId,
			"Expires", output.Time(m.ValidTo), "Deletion", output.Time(m.DeletionDate))
	})
}

func rotationsCommand() *cobra.Command {
	var o session.Options
	c := &cobra.Command{
		Use: "rotations [OPTIONS] KEY", Short: "List the key material of a KMS key",
		Long: `
Lists a KMS key's versions of key material and its rotations. With --json, in
the form of ListKeyRotations.`,
		Example: `
  kmsfs key rotations alias/finance`,
	}
	o.DeclareJSON(c.Flags())
	return ofKey(c, &o, func(s *session.Session, arn string) error {
		all := kms.ListKeyRotationsOutput{Rotations: []kms.RotationsListEntry{}}
		if err := session.EachPage(func(marker string) (string, error) {
			out, err := kms.ListKeyRotations.Call(s.Ctx, s, s.Caller, &kms.ListKeyRotationsInput{
				KeyId: arn, IncludeKeyMaterial: "ALL_KEY_MATERIAL", Marker: marker,
			})
			if err != nil {
				return "", err
			}
			all.Rotations = append(all.Rotations, out.Rotations...)
			return out.NextMarker, nil
		}); err != nil {
			return err
		}
		if o.JSON {
			return output.JSON(all)
		}
		rows := [][]string{{"KEY MATERIAL", "STATE", "ROTATED", "HOW", "IMPORTED", "EXPIRES"}}
		for _, r := range all.Rotations {
			rows = append(rows, []string{
				r.KeyMaterialId, r.KeyMaterialState, output.Time(r.RotationDate), r.RotationType, r.ImportState, output.Time(r.ValidTo),
			})
		}
		return output.Table(rows)
	})
}
