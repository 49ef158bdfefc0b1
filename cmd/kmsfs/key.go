package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	kwp "github.com/tink-crypto/tink-go/v2/kwp/subtle"

	"kmsfs/keyservice/kms"
)

func keyCommand() command {
	return command{
		name: "key", arguments: "COMMAND", summary: "make, show, rotate, disable and delete KMS keys",
		details: `
Commands for KMS keys, with AWS KMS's rules. A KEY is a key's ID, ARN or alias.

Examples:
  kmsfs key create --description "Finance"
  kmsfs key disable alias/finance
  kmsfs key policy put alias/finance policy.json`,
		commands: []command{
			keyCreateCommand(), keyListCommand(), keyDescribeCommand(),
			keyCommandOf("enable", "let a KMS key be used", func(s *session, arn string) error {
				_, err := kms.EnableKey.Call(s.ctx, s, s.caller, &kms.EnableKeyInput{KeyId: arn})
				return err
			}),
			keyCommandOf("disable", "forbid all use of a KMS key, until it is enabled; kmsfs key usage counts what that locks", func(s *session, arn string) error {
				_, err := kms.DisableKey.Call(s.ctx, s, s.caller, &kms.DisableKeyInput{KeyId: arn})
				return err
			}),
			keyCommandOf("rotate", "give a KMS key new key material; what the old one encrypted stays readable", func(s *session, arn string) error {
				_, err := kms.RotateKeyOnDemand.Call(s.ctx, s, s.caller, &kms.RotateKeyOnDemandInput{KeyId: arn})
				return err
			}),
			keyEnableRotationCommand(),
			keyCommandOf("disable-rotation", "end the automatic rotation of a KMS key", func(s *session, arn string) error {
				_, err := kms.DisableKeyRotation.Call(s.ctx, s, s.caller, &kms.DisableKeyRotationInput{KeyId: arn})
				return err
			}),
			keyRotationsCommand(), keyUsageCommand(), keyDeletionCommand(),
			keyCommandOf("cancel-deletion", "keep a KMS key that is pending deletion; it is disabled then", func(s *session, arn string) error {
				_, err := kms.CancelKeyDeletion.Call(s.ctx, s, s.caller, &kms.CancelKeyDeletionInput{KeyId: arn})
				return err
			}),
			keyImportCommand(), keyTagCommand(), keyUntagCommand(), keyPolicyCommand(),
		},
	}
}

func keyCreateCommand() command {
	return serviceCommand(command{
		name: "create", arguments: "[OPTIONS]", summary: "make a KMS key",
		details: `
Makes a KMS key and prints its ARN. Without options, it is a symmetric key that encrypts, which only the home's owner may use.

Examples:
  kmsfs key create --description "Finance" --tag team=finance
  kmsfs key create --spec RSA_2048 --usage SIGN_VERIFY --json
  kmsfs key create --origin EXTERNAL`,
	}, func(o *serviceOptions, flags *pflag.FlagSet) func(*session, []string) error {
		var in kms.CreateKeyInput
		var policyFile string
		var tags []string
		flags.StringVar(&in.KeySpec, "spec", "", "key `SPEC`: SYMMETRIC_DEFAULT, RSA_2048, ECC_NIST_P256, HMAC_256, ...")
		flags.StringVar(&in.KeyUsage, "usage", "", "key `USAGE`: ENCRYPT_DECRYPT, SIGN_VERIFY, GENERATE_VERIFY_MAC, KEY_AGREEMENT")
		flags.StringVar(&in.Description, "description", "", "`TEXT` that says what it is for")
		flags.StringVar(&in.Origin, "origin", "", "`ORIGIN` of the key material: AWS_KMS, or EXTERNAL to import it")
		flags.StringVar(&policyFile, "policy", "", "`FILE` with the key policy; - for standard input")
		flags.StringArrayVar(&tags, "tag", nil, "tag, `NAME=VALUE`")
		o.declareJSON(flags)
		return func(s *session, _ []string) (err error) {
			if policyFile != "" {
				if in.Policy, err = readPolicy(policyFile); err != nil {
					return err
				}
			}
			if in.Tags, err = parseTags(tags); err != nil {
				return err
			}
			if in.KeyUsage == "" {
				in.KeyUsage = defaultUsage(in.KeySpec)
			}
			out, err := kms.CreateKey.Call(s.ctx, s, s.caller, &in)
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(out)
			}
			_, err = fmt.Println(out.KeyMetadata.Arn)
			return err
		}
	})
}

// defaultUsage is the usage of specs that have but one, or one that is meant most often; empty where the key service is to say.
func defaultUsage(spec string) string {
	switch {
	case strings.HasPrefix(spec, "HMAC_"):
		return "GENERATE_VERIFY_MAC"
	case strings.HasPrefix(spec, "ECC_"):
		return "SIGN_VERIFY"
	case strings.HasPrefix(spec, "RSA_"):
		return "ENCRYPT_DECRYPT"
	}
	return ""
}

func parseTags(pairs []string) ([]kms.Tag, error) {
	if _, err := parsePairs("tag", pairs); err != nil {
		return nil, err
	}
	var tags []kms.Tag
	for _, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		tags = append(tags, kms.Tag{TagKey: name, TagValue: value})
	}
	return tags, nil
}

func keyListCommand() command {
	return serviceCommand(command{
		name: "list", arguments: "[OPTIONS]", summary: "list all KMS keys",
		details: "Lists all KMS keys with their aliases. With --json, in the form of ListKeys.\n\nExample:\n  kmsfs key list",
	}, func(o *serviceOptions, flags *pflag.FlagSet) func(*session, []string) error {
		o.declareJSON(flags)
		return func(s *session, _ []string) error {
			all := kms.ListKeysOutput{Keys: []kms.KeyListEntry{}}
			if err := each(func(marker string) (string, error) {
				out, err := kms.ListKeys.Call(s.ctx, s, s.caller, &kms.ListKeysInput{Marker: marker})
				if err != nil {
					return "", err
				}
				all.Keys = append(all.Keys, out.Keys...)
				return out.NextMarker, nil
			}); err != nil {
				return err
			}
			if o.json {
				return printJSON(all)
			}
			return s.showKeys(all.Keys)
		}
	})
}

func (s *session) showKeys(keys []kms.KeyListEntry) error {
	aliases := map[string][]string{}
	if err := s.eachAlias("", func(a kms.AliasListEntry) {
		aliases[a.TargetKeyId] = append(aliases[a.TargetKeyId], a.AliasName)
	}); err != nil {
		return err
	}
	rows := [][]string{{"KEY", "STATE", "SPEC", "USAGE", "ALIASES", "DESCRIPTION"}}
	for _, k := range keys {
		out, err := kms.DescribeKey.Call(s.ctx, s, s.caller, &kms.DescribeKeyInput{KeyId: k.KeyArn})
		if err != nil {
			rows = append(rows, []string{k.KeyId, "?", "?", "?", strings.Join(aliases[k.KeyId], ","), err.Error()})
			continue
		}
		m := out.KeyMetadata
		rows = append(rows, []string{k.KeyId, m.KeyState, m.KeySpec, m.KeyUsage, strings.Join(aliases[k.KeyId], ","), strconv.Quote(m.Description)})
	}
	return table(rows)
}

func keyDescribeCommand() command {
	return serviceCommand(command{
		name: "describe", arguments: "[OPTIONS] KEY", summary: "show a KMS key",
		details: "Shows a KMS key. With --json, in the form of DescribeKey.\n\nExample:\n  kmsfs key describe alias/finance",
	}, func(o *serviceOptions, flags *pflag.FlagSet) func(*session, []string) error {
		o.declareJSON(flags)
		return func(s *session, args []string) error {
			out, err := kms.DescribeKey.Call(s.ctx, s, s.caller, &kms.DescribeKeyInput{KeyId: args[0]})
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(out)
			}
			m := out.KeyMetadata
			algorithms := append(append(append(append([]string{}, m.EncryptionAlgorithms...), m.SigningAlgorithms...), m.MacAlgorithms...), m.KeyAgreementAlgorithms...)
			return facts(
				"ARN", m.Arn, "Description", m.Description, "State", m.KeyState, "Spec", m.KeySpec, "Usage", m.KeyUsage,
				"Algorithms", strings.Join(algorithms, " "), "Manager", m.KeyManager, "Origin", m.Origin,
				"Created", when(&m.CreationDate), "Key material", m.CurrentKeyMaterialId, "Expires", when(m.ValidTo), "Deletion", when(m.DeletionDate))
		}
	})
}

func keyEnableRotationCommand() command {
	return serviceCommand(command{
		name: "enable-rotation", arguments: "[OPTIONS] KEY", summary: "have a KMS key rotated by itself",
		details: "Has a KMS key rotated by itself, every 365 days unless --period says otherwise.\n\nExample:\n  kmsfs key enable-rotation --period 90 alias/finance",
	}, func(_ *serviceOptions, flags *pflag.FlagSet) func(*session, []string) error {
		period := flags.Int32("period", 365, "`DAYS` from one rotation to the next: 90 to 2560")
		return func(s *session, args []string) error {
			arn, err := s.keyARN(args[0])
			if err != nil {
				return err
			}
			_, err = kms.EnableKeyRotation.Call(s.ctx, s, s.caller, &kms.EnableKeyRotationInput{KeyId: arn, RotationPeriodInDays: period})
			return err
		}
	})
}

func keyRotationsCommand() command {
	return serviceCommand(command{
		name: "rotations", arguments: "[OPTIONS] KEY", summary: "list the key materials of a KMS key",
		details: "Lists a KMS key's materials and rotations. With --json, in the form of ListKeyRotations.\n\nExample:\n  kmsfs key rotations alias/finance",
	}, func(o *serviceOptions, flags *pflag.FlagSet) func(*session, []string) error {
		o.declareJSON(flags)
		return func(s *session, args []string) error {
			arn, err := s.keyARN(args[0])
			if err != nil {
				return err
			}
			all := kms.ListKeyRotationsOutput{Rotations: []kms.RotationsListEntry{}}
			if err := each(func(marker string) (string, error) {
				out, err := kms.ListKeyRotations.Call(s.ctx, s, s.caller, &kms.ListKeyRotationsInput{KeyId: arn, IncludeKeyMaterial: "ALL_KEY_MATERIAL", Marker: marker})
				if err != nil {
					return "", err
				}
				all.Rotations = append(all.Rotations, out.Rotations...)
				return out.NextMarker, nil
			}); err != nil {
				return err
			}
			if o.json {
				return printJSON(all)
			}
			rows := [][]string{{"KEY MATERIAL", "STATE", "ROTATED", "HOW", "IMPORTED", "EXPIRES"}}
			for _, r := range all.Rotations {
				rows = append(rows, []string{r.KeyMaterialId, r.KeyMaterialState, when(r.RotationDate), r.RotationType, r.ImportState, when(r.ValidTo)})
			}
			return table(rows)
		}
	})
}

func keyDeletionCommand() command {
	return serviceCommand(command{
		name: "schedule-deletion", arguments: "[OPTIONS] KEY", summary: "delete a KMS key after a waiting period",
		details: `
Has a KMS key deleted after a waiting period, in which it can't be used, and cancel-deletion keeps it. What it encrypted is lost then, for good:
all files under it. kmsfs key usage counts them.

Examples:
  kmsfs key usage alias/finance
  kmsfs key schedule-deletion --days 7 alias/finance`,
	}, func(o *serviceOptions, flags *pflag.FlagSet) func(*session, []string) error {
		days := flags.Int32("days", 30, "waiting period in `DAYS`: 7 to 30")
		o.declareJSON(flags)
		return func(s *session, args []string) error {
			arn, err := s.keyARN(args[0])
			if err != nil {
				return err
			}
			out, err := kms.ScheduleKeyDeletion.Call(s.ctx, s, s.caller, &kms.ScheduleKeyDeletionInput{KeyId: arn, PendingWindowInDays: days})
			if err != nil {
				return err
			}
			if o.json {
				return printJSON(out)
			}
			_, err = fmt.Printf("%s will be deleted on %s, with all that it encrypted. Until then: kmsfs key cancel-deletion %s\n", out.KeyId, when(&out.DeletionDate), args[0])
			return err
		}
	})
}

// maxMaterial bounds key material to import, in bytes: an RSA key has less.
const maxMaterial = 4096

func keyImportCommand() command {
	return serviceCommand(command{
		name: "import", arguments: "[OPTIONS] KEY FILE", summary: "import key material",
		details: `
Imports the FILE's bytes as the material of a KMS key that was made with --origin EXTERNAL: 32 bytes for a symmetric key, as many as the MAC has for
an HMAC key, PKCS #8 in DER for others. Keep the file: the material can't be had back, and if it expires or is deleted, only the same can be imported again.
- stands for standard input.

Examples:
  kmsfs key import alias/finance material
  kmsfs key import --expires 720h alias/finance material
  kmsfs key import --next alias/finance material2 && kmsfs key rotate alias/finance`,
	}, func(_ *serviceOptions, flags *pflag.FlagSet) func(*session, []string) error {
		life := flags.Duration("expires", 0, "have the material expire after this `DURATION`, such as 720h")
		next := flags.Bool("next", false, "import the material that the next rotation is to make current")
		return func(s *session, args []string) error {
			arn, err := s.keyARN(args[0])
			if err != nil {
				return err
			}
			material, err := readInput(args[1], maxMaterial)
			if err != nil {
				return err
			}
			defer clear(material)
			return s.importMaterial(arn, material, *life, *next)
		}
	})
}

func (s *session) importMaterial(arn string, material []byte, life time.Duration, next bool) error {
	parameters, err := kms.GetParametersForImport.Call(s.ctx, s, s.caller, &kms.GetParametersForImportInput{
		KeyId: arn, WrappingAlgorithm: "RSA_AES_KEY_WRAP_SHA_256", WrappingKeySpec: "RSA_4096",
	})
	if err != nil {
		return err
	}
	wrapped, err := wrapMaterial(parameters.PublicKey, material)
	if err != nil {
		return err
	}
	in := &kms.ImportKeyMaterialInput{
		KeyId: arn, ImportToken: parameters.ImportToken, EncryptedKeyMaterial: wrapped, ExpirationModel: "KEY_MATERIAL_DOES_NOT_EXPIRE",
	}
	if life != 0 {
		in.ExpirationModel, in.ValidTo = "KEY_MATERIAL_EXPIRES", &kms.Timestamp{Time: time.Now().Add(life)}
	}
	if next {
		in.ImportType = "NEW_KEY_MATERIAL"
	}
	out, err := kms.ImportKeyMaterial.Call(s.ctx, s, s.caller, in)
	if err != nil {
		return err
	}
	_, err = fmt.Println(out.KeyMaterialId)
	return err
}

// wrapMaterial wraps key material as RSA_AES_KEY_WRAP_SHA_256 wants it: an AES key by RSA-OAEP, and behind it the material by RFC 5649 under that key.
func wrapMaterial(spki, material []byte) ([]byte, error) {
	parsed, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return nil, err
	}
	public, ok := parsed.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("the key service returned a %T to wrap with: want an RSA key", parsed)
	}
	var aes [32]byte
	defer clear(aes[:])
	rand.Read(aes[:])
	wrapper, err := kwp.NewKWP(aes[:])
	if err != nil {
		return nil, err
	}
	wrapped, err := wrapper.Wrap(material)
	if err != nil {
		return nil, fmt.Errorf("wrap %d bytes of key material: %w", len(material), err)
	}
	sealed, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public, aes[:], nil)
	return append(sealed, wrapped...), err
}

// readInput reads a file, or standard input for "-", of at most the size.
func readInput(path string, most int64) ([]byte, error) {
	f := os.Stdin
	if path != "-" {
		var err error
		if f, err = os.Open(path); err != nil {
			return nil, pathError(err)
		}
		defer f.Close()
	}
	content, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(content)) > most {
		clear(content)
		err = fmt.Errorf("%s has more than %d bytes", f.Name(), most)
	}
	return content, err
}

func keyTagCommand() command {
	return serviceCommand(command{
		name: "tag", arguments: "[OPTIONS] KEY NAME=VALUE", summary: "give a KMS key a tag",
		details: "Gives a KMS key a tag, or a tag that it has another value.\n\nExample:\n  kmsfs key tag alias/finance team=finance",
	}, func(_ *serviceOptions, _ *pflag.FlagSet) func(*session, []string) error {
		return func(s *session, args []string) error {
			tags, err := parseTags(args[1:])
			if err != nil {
				return err
			}
			arn, err := s.keyARN(args[0])
			if err != nil {
				return err
			}
			_, err = kms.TagResource.Call(s.ctx, s, s.caller, &kms.TagResourceInput{KeyId: arn, Tags: tags})
			return err
		}
	})
}

func keyUntagCommand() command {
	return serviceCommand(command{
		name: "untag", arguments: "[OPTIONS] KEY NAME", summary: "take a tag from a KMS key",
		details: "Takes a tag from a KMS key.\n\nExample:\n  kmsfs key untag alias/finance team",
	}, func(_ *serviceOptions, _ *pflag.FlagSet) func(*session, []string) error {
		return func(s *session, args []string) error {
			arn, err := s.keyARN(args[0])
			if err != nil {
				return err
			}
			_, err = kms.UntagResource.Call(s.ctx, s, s.caller, &kms.UntagResourceInput{KeyId: arn, TagKeys: args[1:]})
			return err
		}
	})
}
