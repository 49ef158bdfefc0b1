package key

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
	kwp "github.com/tink-crypto/tink-go/v2/kwp/subtle"

	"kmsfs/cmd/kmsfs/internal/cli"
	"kmsfs/cmd/kmsfs/internal/output"
	"kmsfs/cmd/kmsfs/internal/session"
	"kmsfs/keyservice/kms"
)

// maxMaterial bounds key material to import, in bytes: an RSA key has less.
const maxMaterial = 4096

func importCommand() *cobra.Command {
	var o session.Options
	c := &cobra.Command{
		Use: "import [OPTIONS] KEY FILE", Short: "Import key material",
		Long: `
Imports FILE as the key material of a KMS key made with --origin EXTERNAL: 32
bytes for a symmetric key, as many as the MAC has for an HMAC key, PKCS #8 in
DER for others. FILE may be -, for standard input.

Keep the file. Key material can't be exported, and if it expires or is deleted,
only the same key material can be imported again.`,
		Example: `
  kmsfs key import alias/finance material
  kmsfs key import --expires 720h alias/finance material
  kmsfs key import --next alias/finance material2
  kmsfs key rotate alias/finance`,
		Args: cli.Exactly(2, "KEY and FILE"), ValidArgsFunction: o.Keys(0),
	}
	life := c.Flags().Duration("expires", 0, "let the key material expire after a `DURATION`: 720h")
	next := c.Flags().Bool("next", false, "import it for the next rotation")
	return o.Bind(c, func(s *session.Session, args []string) error {
		arn, err := s.KeyARN(args[0])
		if err != nil {
			return err
		}
		material, err := readInput(args[1], maxMaterial)
		if err != nil {
			return err
		}
		defer clear(material)
		return importMaterial(s, arn, material, *life, *next)
	})
}

func importMaterial(s *session.Session, arn string, material []byte, life time.Duration, next bool) error {
	parameters, err := kms.GetParametersForImport.Call(s.Ctx, s, s.Caller, &kms.GetParametersForImportInput{
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
	out, err := kms.ImportKeyMaterial.Call(s.Ctx, s, s.Caller, in)
	if err != nil {
		return err
	}
	return output.Line(out.KeyMaterialId)
}

// wrapMaterial wraps key material by RSA_AES_KEY_WRAP_SHA_256: an AES key under RSA-OAEP, then the
// key material under that key by RFC 5649.
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

// readInput reads a file, or standard input for "-". It has at most so many bytes.
func readInput(path string, most int64) ([]byte, error) {
	f := os.Stdin
	if path != "-" {
		var err error
		if f, err = os.Open(path); err != nil {
			return nil, session.PathError(err)
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
