package key

import (
	"strings"

	"github.com/spf13/cobra"

	"kmsfs/cmd/kmsfs/internal/cli"
	"kmsfs/cmd/kmsfs/internal/output"
	"kmsfs/cmd/kmsfs/internal/session"
	"kmsfs/keyservice/kms"
)

type createOptions struct {
	session.Options
	in         kms.CreateKeyInput
	policyFile string
	tags       []string
}

func createCommand() *cobra.Command {
	var o createOptions
	c := &cobra.Command{
		Use: "create [OPTIONS]", Short: "Make a KMS key",
		Long: `
Prints the key's ARN. Without options, the key is a symmetric one that encrypts,
and only the home's owner may use it.`,
		Example: `
  kmsfs key create --description "Finance" --tag team=finance
  kmsfs key create --spec RSA_2048 --usage SIGN_VERIFY --json
  kmsfs key create --origin EXTERNAL`,
		Args: cli.None,
	}
	flags := c.Flags()
	flags.StringVar(&o.in.KeySpec, "spec", "", "key `SPEC`: SYMMETRIC_DEFAULT, RSA_2048, ECC_NIST_P256, ...")
	flags.StringVar(&o.in.KeyUsage, "usage", "", "key `USAGE`: ENCRYPT_DECRYPT, SIGN_VERIFY, GENERATE_VERIFY_MAC or KEY_AGREEMENT")
	flags.StringVar(&o.in.Description, "description", "", "`TEXT` that says what the key is for")
	flags.StringVar(&o.in.Origin, "origin", "", "`ORIGIN` of the key material: AWS_KMS, or EXTERNAL to import it")
	flags.StringVar(&o.policyFile, "policy", "", "read the key policy from a `FILE`; - is standard input")
	flags.StringArrayVar(&o.tags, "tag", nil, "give it a tag, `NAME=VALUE`")
	o.DeclareJSON(flags)
	cli.Values(c, "spec", "SYMMETRIC_DEFAULT", "RSA_2048", "RSA_3072", "RSA_4096",
		"ECC_NIST_P256", "ECC_NIST_P384", "ECC_NIST_P521", "ECC_SECG_P256K1",
		"HMAC_224", "HMAC_256", "HMAC_384", "HMAC_512")
	cli.Values(c, "usage", encryptDecrypt, signVerify, generateVerifyMAC, "KEY_AGREEMENT")
	cli.Values(c, "origin", "AWS_KMS", "EXTERNAL")
	c.PreRunE = func(*cobra.Command, []string) error { return o.complete() }
	return o.Bind(c, func(s *session.Session, _ []string) error { return o.run(s) })
}

// complete makes the input from the options.
func (o *createOptions) complete() (err error) {
	if o.policyFile != "" {
		if o.in.Policy, err = ReadPolicy(o.policyFile); err != nil {
			return err
		}
	}
	if o.in.Tags, err = parseTags(o.tags); err != nil {
		return err
	}
	if o.in.KeyUsage == "" {
		o.in.KeyUsage = defaultUsage(o.in.KeySpec)
	}
	return nil
}

func (o *createOptions) run(s *session.Session) error {
	out, err := kms.CreateKey.Call(s.Ctx, s, s.Caller, &o.in)
	if err != nil {
		return err
	}
	if o.JSON {
		return output.JSON(out)
	}
	return output.Line(out.KeyMetadata.Arn)
}

const (
	encryptDecrypt    = "ENCRYPT_DECRYPT"
	signVerify        = "SIGN_VERIFY"
	generateVerifyMAC = "GENERATE_VERIFY_MAC"
)

// defaultUsage is the usual usage of a spec; empty to leave it to the key service.
func defaultUsage(spec string) string {
	switch {
	case strings.HasPrefix(spec, "HMAC_"):
		return generateVerifyMAC
	case strings.HasPrefix(spec, "ECC_"):
		return signVerify
	case strings.HasPrefix(spec, "RSA_"):
		return encryptDecrypt
	}
	return ""
}
