package key

import (
	"encoding/base64"
	"os"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"kmsfs/cmd/kmsfs/internal/cli"
	"kmsfs/cmd/kmsfs/internal/output"
	"kmsfs/cmd/kmsfs/internal/session"
	"kmsfs/keyservice/kms"
)

// The most that is read, in bytes: AWS KMS's limits.
const (
	maxPlaintext  = 4096
	maxCiphertext = 6144
)

// dataOptions name data and its encryption context.
type dataOptions struct {
	session.Options
	pairs []string
	path  string
}

func (o *dataOptions) declare(flags *pflag.FlagSet) {
	flags.StringArrayVar(&o.pairs, "context", nil, "pair of the encryption context, `NAME=VALUE`")
	flags.StringVar(&o.path, "in", "-", "read a `FILE`; - is standard input")
}

// declareAlgorithm declares the option for the algorithm.
func declareAlgorithm(c *cobra.Command, algorithm *string) {
	c.Flags().StringVar(algorithm, "algorithm", "", "`ALGORITHM` of an RSA key: RSAES_OAEP_SHA_256 or RSAES_OAEP_SHA_1")
	cli.Values(c, "algorithm", "RSAES_OAEP_SHA_256", "RSAES_OAEP_SHA_1")
}

// Encrypt is the command "kmsfs encrypt".
func Encrypt() *cobra.Command {
	var o dataOptions
	var in kms.EncryptInput
	c := &cobra.Command{
		Use: "encrypt [OPTIONS]", GroupID: cli.Keys, Short: "Encrypt up to 4096 bytes under a KMS key",
		Long: `
Encrypts standard input, or the file that --in names, and writes the ciphertext
to standard output. It can only be decrypted in the same encryption context.`,
		Example: `
  kmsfs encrypt --key alias/finance --context purpose=backup < secret > sealed`,
		Args: cli.None,
	}
	c.Flags().StringVar(&in.KeyId, "key", "", "`KEY` to encrypt under: ID, ARN or alias")
	declareAlgorithm(c, &in.EncryptionAlgorithm)
	o.declare(c.Flags())
	o.CompleteKeyOption(c)
	c.PreRunE = func(c *cobra.Command, args []string) (err error) {
		if in.EncryptionContext, err = cli.Pairs("context", o.pairs); err != nil {
			return err
		}
		return needKey(&in.KeyId)(c, args)
	}
	return o.Bind(c, func(s *session.Session, _ []string) error { return o.encrypt(s, &in) })
}

func (o *dataOptions) encrypt(s *session.Session, in *kms.EncryptInput) (err error) {
	if in.Plaintext, err = readInput(o.path, maxPlaintext); err != nil {
		return err
	}
	defer clear(in.Plaintext)
	out, err := kms.Encrypt.Call(s.Ctx, s, s.Caller, in)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(out.CiphertextBlob)
	return err
}

// Decrypt is the command "kmsfs decrypt".
func Decrypt() *cobra.Command {
	var o dataOptions
	var in kms.DecryptInput
	c := &cobra.Command{
		Use: "decrypt [OPTIONS]", GroupID: cli.Keys, Short: "Decrypt what was encrypted under a KMS key",
		Long: `
Decrypts standard input, or the file that --in names, and writes the plaintext
to standard output. The ciphertext names its key, unless that is an RSA key.`,
		Example: `
  kmsfs decrypt --context purpose=backup < sealed > secret`,
		Args: cli.None,
	}
	c.Flags().StringVar(&in.KeyId, "key", "", "`KEY` that it must be under: ID, ARN or alias")
	declareAlgorithm(c, &in.EncryptionAlgorithm)
	o.declare(c.Flags())
	o.CompleteKeyOption(c)
	c.PreRunE = func(*cobra.Command, []string) (err error) {
		in.EncryptionContext, err = cli.Pairs("context", o.pairs)
		return err
	}
	return o.Bind(c, func(s *session.Session, _ []string) error { return o.decrypt(s, &in) })
}

func (o *dataOptions) decrypt(s *session.Session, in *kms.DecryptInput) (err error) {
	if in.CiphertextBlob, err = readInput(o.path, maxCiphertext); err != nil {
		return err
	}
	out, err := kms.Decrypt.Call(s.Ctx, s, s.Caller, in)
	if err != nil {
		return err
	}
	defer clear(out.Plaintext)
	_, err = os.Stdout.Write(out.Plaintext)
	return err
}

type dataKeyOptions struct {
	session.Options
	in               kms.GenerateDataKeyInput
	pairs            []string
	withoutPlaintext bool
}

// DataKey is the command "kmsfs data-key".
func DataKey() *cobra.Command {
	var o dataKeyOptions
	c := &cobra.Command{
		Use: "data-key [OPTIONS]", GroupID: cli.Keys, Short: "Make a data key under a KMS key",
		Long: `
Prints the data key twice in base64: as plaintext, and encrypted under the KMS
key, for "kmsfs decrypt". With --json, in the form of GenerateDataKey.`,
		Example: `
  kmsfs data-key --key alias/finance --context purpose=backup --json`,
		Args: cli.None,
	}
	flags := c.Flags()
	flags.StringVar(&o.in.KeyId, "key", "", "`KEY` to encrypt it under: ID, ARN or alias")
	o.in.NumberOfBytes = flags.Int32("bytes", 32, "size in `BYTES`: 1 to 1024")
	flags.StringArrayVar(&o.pairs, "context", nil, "pair of the encryption context, `NAME=VALUE`")
	flags.BoolVar(&o.withoutPlaintext, "without-plaintext", false, "print only the encrypted data key")
	o.DeclareJSON(flags)
	o.CompleteKeyOption(c)
	c.PreRunE = func(c *cobra.Command, args []string) (err error) {
		if o.in.EncryptionContext, err = cli.Pairs("context", o.pairs); err != nil {
			return err
		}
		return needKey(&o.in.KeyId)(c, args)
	}
	return o.Bind(c, func(s *session.Session, _ []string) error { return o.run(s) })
}

func (o *dataKeyOptions) run(s *session.Session) error {
	if o.withoutPlaintext {
		return o.showEncrypted(s)
	}
	out, err := kms.GenerateDataKey.Call(s.Ctx, s, s.Caller, &o.in)
	if err != nil {
		return err
	}
	defer clear(out.Plaintext)
	if o.JSON {
		return output.JSON(out)
	}
	return output.Facts("Plaintext", base64.StdEncoding.EncodeToString(out.Plaintext),
		"Ciphertext", base64.StdEncoding.EncodeToString(out.CiphertextBlob))
}

// showEncrypted makes a data key and shows only its encrypted form.
func (o *dataKeyOptions) showEncrypted(s *session.Session) error {
	out, err := kms.GenerateDataKeyWithoutPlaintext.Call(s.Ctx, s, s.Caller, &kms.GenerateDataKeyWithoutPlaintextInput{
		KeyId: o.in.KeyId, NumberOfBytes: o.in.NumberOfBytes, EncryptionContext: o.in.EncryptionContext,
	})
	if err != nil {
		return err
	}
	if o.JSON {
		return output.JSON(out)
	}
	return output.Line(base64.StdEncoding.EncodeToString(out.CiphertextBlob))
}
