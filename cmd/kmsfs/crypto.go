package main

import (
	"encoding/base64"
	"fmt"
	"os"

	"github.com/spf13/pflag"

	"kmsfs/keyservice/kms"
)

// The most that is read, in bytes: AWS KMS's limits.
const (
	maxPlaintext  = 4096
	maxCiphertext = 6144
)

func encryptCommand() command {
	return serviceCommand(command{
		name: "encrypt", arguments: "[OPTIONS]", summary: "encrypt up to 4096 bytes under a KMS key",
		details: `
Encrypts standard input, or the file that --in names, under a KMS key, and writes the ciphertext to standard output. It can be decrypted in the same
encryption context only.

Example:
  kmsfs encrypt --key alias/finance --context purpose=backup < secret > secret.encrypted`,
	}, func(_ *serviceOptions, flags *pflag.FlagSet) func(*session, []string) error {
		var in kms.EncryptInput
		flags.StringVar(&in.KeyId, "key", "", "`KEY` to encrypt under: ID, ARN or alias")
		flags.StringVar(&in.EncryptionAlgorithm, "algorithm", "", "`ALGORITHM`, for RSA keys: RSAES_OAEP_SHA_256 or RSAES_OAEP_SHA_1")
		pairs, path := declareData(flags)
		return func(s *session, _ []string) (err error) {
			if in.KeyId == "" {
				return usagef("", "--key is needed")
			}
			if in.EncryptionContext, err = parsePairs("context", *pairs); err != nil {
				return err
			}
			if in.Plaintext, err = readInput(*path, maxPlaintext); err != nil {
				return err
			}
			defer clear(in.Plaintext)
			out, err := kms.Encrypt.Call(s.ctx, s, s.caller, &in)
			if err != nil {
				return err
			}
			_, err = os.Stdout.Write(out.CiphertextBlob)
			return err
		}
	})
}

func declareData(flags *pflag.FlagSet) (pairs *[]string, path *string) {
	pairs = flags.StringArray("context", nil, "pair of the encryption context, `NAME=VALUE`")
	path = flags.String("in", "-", "`FILE` to read; - is standard input")
	return pairs, path
}

func decryptCommand() command {
	return serviceCommand(command{
		name: "decrypt", arguments: "[OPTIONS]", summary: "decrypt what was encrypted under a KMS key",
		details: `
Decrypts standard input, or the file that --in names, and writes the plaintext to standard output. The ciphertext says which key it is under, unless that
is an RSA key.

Example:
  kmsfs decrypt --context purpose=backup < secret.encrypted > secret`,
	}, func(_ *serviceOptions, flags *pflag.FlagSet) func(*session, []string) error {
		var in kms.DecryptInput
		flags.StringVar(&in.KeyId, "key", "", "`KEY` that it must be under: ID, ARN or alias")
		flags.StringVar(&in.EncryptionAlgorithm, "algorithm", "", "`ALGORITHM`, for RSA keys: RSAES_OAEP_SHA_256 or RSAES_OAEP_SHA_1")
		pairs, path := declareData(flags)
		return func(s *session, _ []string) (err error) {
			if in.EncryptionContext, err = parsePairs("context", *pairs); err != nil {
				return err
			}
			if in.CiphertextBlob, err = readInput(*path, maxCiphertext); err != nil {
				return err
			}
			out, err := kms.Decrypt.Call(s.ctx, s, s.caller, &in)
			if err != nil {
				return err
			}
			defer clear(out.Plaintext)
			_, err = os.Stdout.Write(out.Plaintext)
			return err
		}
	})
}

func dataKeyCommand() command {
	return serviceCommand(command{
		name: "data-key", arguments: "[OPTIONS]", summary: "make a data key under a KMS key",
		details: `
Makes a data key and prints it twice, in base64: in the clear, and encrypted under the KMS key, for "kmsfs decrypt". With --json, in the form of GenerateDataKey.

Example:
  kmsfs data-key --key alias/finance --context purpose=backup --json`,
	}, func(o *serviceOptions, flags *pflag.FlagSet) func(*session, []string) error {
		in := kms.GenerateDataKeyInput{}
		flags.StringVar(&in.KeyId, "key", "", "`KEY` to encrypt it under: ID, ARN or alias")
		size := flags.Int32("bytes", 32, "size in `BYTES`: 1 to 1024")
		pairs := flags.StringArray("context", nil, "pair of the encryption context, `NAME=VALUE`")
		sealedOnly := flags.Bool("without-plaintext", false, "print it encrypted only")
		o.declareJSON(flags)
		return func(s *session, _ []string) (err error) {
			if in.KeyId == "" {
				return usagef("", "--key is needed")
			}
			in.NumberOfBytes = size
			if in.EncryptionContext, err = parsePairs("context", *pairs); err != nil {
				return err
			}
			if *sealedOnly {
				return s.showSealedDataKey(&in, o.json)
			}
			out, err := kms.GenerateDataKey.Call(s.ctx, s, s.caller, &in)
			if err != nil {
				return err
			}
			defer clear(out.Plaintext)
			if o.json {
				return printJSON(out)
			}
			return facts("Plaintext", base64.StdEncoding.EncodeToString(out.Plaintext), "Ciphertext", base64.StdEncoding.EncodeToString(out.CiphertextBlob))
		}
	})
}

func (s *session) showSealedDataKey(in *kms.GenerateDataKeyInput, asJSON bool) error {
	out, err := kms.GenerateDataKeyWithoutPlaintext.Call(s.ctx, s, s.caller, &kms.GenerateDataKeyWithoutPlaintextInput{
		KeyId: in.KeyId, NumberOfBytes: in.NumberOfBytes, EncryptionContext: in.EncryptionContext,
	})
	if err != nil {
		return err
	}
	if asJSON {
		return printJSON(out)
	}
	_, err = fmt.Println(base64.StdEncoding.EncodeToString(out.CiphertextBlob))
	return err
}
