package keyservice_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"kmsfs/keyservice"
	"kmsfs/keyservice/home"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/sealer"
	"kmsfs/policy/caller"
)

// A home is made and opened. A KMS key wraps a data key, and unwraps it in the same encryption context
// only.
func Example() {
	dir, err := os.MkdirTemp("", "example-")
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	keyFile := filepath.Join(dir, "key")
	if err := sealer.CreateKeyFile(keyFile); err != nil {
		log.Fatal(err)
	}
	secret, err := sealer.NewKeyFile(keyFile)
	if err != nil {
		log.Fatal(err)
	}
	place, owner := filepath.Join(dir, "home"), uint32(os.Geteuid())
	if err := home.Init(home.InitOptions{Dir: place, Sealer: secret, Owner: owner}); err != nil {
		log.Fatal(err)
	}
	service, err := keyservice.Open(place, secret)
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = service.Close() }()

	ctx, me := context.Background(), kms.Caller{Caller: caller.Caller{UID: owner, PID: int32(os.Getpid())}}
	key, err := kms.CreateKey.Call(ctx, service, me, &kms.CreateKeyInput{Description: "reports"})
	if err != nil {
		log.Fatal(err)
	}
	report := map[string]string{"path": "/reports/q3"}
	made, err := kms.GenerateDataKey.Call(ctx, service, me, &kms.GenerateDataKeyInput{
		KeyId: key.KeyMetadata.KeyId, KeySpec: "AES_256", EncryptionContext: report,
	})
	if err != nil {
		log.Fatal(err)
	}
	opened, err := kms.Decrypt.Call(ctx, service, me, &kms.DecryptInput{CiphertextBlob: made.CiphertextBlob, EncryptionContext: report})
	fmt.Println(len(opened.Plaintext), err)

	elsewhere := map[string]string{"path": "/reports/q4"}
	_, err = kms.Decrypt.Call(ctx, service, me, &kms.DecryptInput{CiphertextBlob: made.CiphertextBlob, EncryptionContext: elsewhere})
	fmt.Println(err)
	// Output:
	// 32 <nil>
	// InvalidCiphertextException
}
