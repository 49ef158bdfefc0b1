package key

import (
	"strings"

	"github.com/spf13/cobra"

	"kmsfs/cmd/kmsfs/internal/cli"
	"kmsfs/cmd/kmsfs/internal/session"
	"kmsfs/keyservice/kms"
)

func tagCommand() *cobra.Command {
	var o session.Options
	return o.Bind(&cobra.Command{
		Use: "tag [OPTIONS] KEY NAME=VALUE", Short: "Give a KMS key a tag, or a tag another value",
		Example: `
  kmsfs key tag alias/finance team=finance`,
		Args: cli.Exactly(2, "KEY and NAME=VALUE"), ValidArgsFunction: o.Keys(0),
	}, func(s *session.Session, args []string) error {
		tags, err := parseTags(args[1:])
		if err != nil {
			return err
		}
		arn, err := s.KeyARN(args[0])
		if err != nil {
			return err
		}
		_, err = kms.TagResource.Call(s.Ctx, s, s.Caller, &kms.TagResourceInput{KeyId: arn, Tags: tags})
		return err
	})
}

func untagCommand() *cobra.Command {
	var o session.Options
	return o.Bind(&cobra.Command{
		Use: "untag [OPTIONS] KEY NAME", Short: "Remove a tag from a KMS key",
		Example: `
  kmsfs key untag alias/finance team`,
		Args: cli.Exactly(2, "KEY and NAME"), ValidArgsFunction: o.Keys(0),
	}, func(s *session.Session, args []string) error {
		arn, err := s.KeyARN(args[0])
		if err != nil {
			return err
		}
		_, err = kms.UntagResource.Call(s.Ctx, s, s.Caller, &kms.UntagResourceInput{KeyId: arn, TagKeys: args[1:]})
		return err
	})
}

// parseTags reads tags of the form NAME=VALUE, in their order.
func parseTags(pairs []string) ([]kms.Tag, error) {
	if _, err := cli.Pairs("tag", pairs); err != nil {
		return nil, err
	}
	var tags []kms.Tag
	for _, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		tags = append(tags, kms.Tag{TagKey: name, TagValue: value})
	}
	return tags, nil
}
