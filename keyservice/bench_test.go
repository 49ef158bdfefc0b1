package keyservice_test

import (
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"testing"

	"kmsfs/keyservice"
	"kmsfs/keyservice/kms"
	"kmsfs/policy/caller"
)

// benchmarked is a service with a key of a ten-statement policy and a hundred grants, of which the caller has one, and nothing else allows him anything.
func benchmarked(b *testing.B) (s *keyservice.Service, key string, user kms.Caller) {
	s = newService(b)
	out, err := kms.CreateKey.Call(b.Context(), s, self(), &kms.CreateKeyInput{})
	if err != nil {
		b.Fatal(err)
	}
	key = out.KeyMetadata.Arn
	statements := []any{map[string]any{
		"Sid": "Owner", "Effect": "Allow", "Principal": map[string]string{"AWS": "arn:kmsfs:iam::" + out.KeyMetadata.AWSAccountId + ":root"}, "Action": "kms:*", "Resource": "*",
	}}
	for i := range 9 {
		statements = append(statements, map[string]any{
			"Sid": fmt.Sprintf("Team%d", i), "Effect": "Allow", "Principal": map[string]string{"AWS": fmt.Sprintf("uid:%d", 5000+i)},
			"Action": []string{"kms:Decrypt", "kms:GenerateDataKey"}, "Resource": "*",
			"Condition": map[string]any{
				"StringEquals": map[string]string{"kms:ViaService": "fs.kmsfs"},
				"StringLike":   map[string]string{"kms:EncryptionContext:kmsfs:path": fmt.Sprintf("/team%d/*", i)},
			},
		})
	}
	document, err := json.Marshal(map[string]any{"Version": "2012-10-17", "Statement": statements})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := kms.PutKeyPolicy.Call(b.Context(), s, self(), &kms.PutKeyPolicyInput{KeyId: key, Policy: string(document)}); err != nil {
		b.Fatal(err)
	}
	for i := range 100 {
		if _, err := kms.CreateGrant.Call(b.Context(), s, self(), &kms.CreateGrantInput{
			KeyId: key, GranteePrincipal: fmt.Sprintf("uid:%d", 7000+i), Operations: []string{"Decrypt", "GenerateDataKey"},
			Constraints: &kms.GrantConstraints{EncryptionContextSubset: map[string]string{"kmsfs:volume": fileContext()["kmsfs:volume"]}, PathPrefix: "/home"},
		}); err != nil {
			b.Fatal(err)
		}
	}
	return s, key, kms.Caller{Caller: caller.Caller{UID: 7042, GID: 7042, Groups: []uint32{7042}, PID: int32(os.Getpid())}, Operation: "open"}
}

// callers are how many call at a time: alone a call waits for its own record to be written, together they share the writing.
var callers = []int{1, 8}

func benchmarkCalls(b *testing.B, n int, call func() error) {
	b.ReportAllocs()
	var group sync.WaitGroup
	for i := range n {
		group.Go(func() {
			for range (b.N + i) / n {
				if err := call(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
}

func BenchmarkGenerateDataKey(b *testing.B) {
	s, key, caller := benchmarked(b)
	in := &kms.GenerateDataKeyInput{KeyId: key, KeySpec: "AES_256", EncryptionContext: fileContext()}
	for _, n := range callers {
		b.Run(fmt.Sprintf("callers=%d", n), func(b *testing.B) {
			benchmarkCalls(b, n, func() error {
				_, err := kms.GenerateDataKey.Call(b.Context(), s, caller, in)
				return err
			})
		})
	}
}

func BenchmarkDecrypt(b *testing.B) {
	s, key, caller := benchmarked(b)
	made := generate(b, s, key, fileContext())
	in := &kms.DecryptInput{KeyId: key, CiphertextBlob: made.CiphertextBlob, EncryptionContext: fileContext()}
	for _, n := range callers {
		b.Run(fmt.Sprintf("callers=%d", n), func(b *testing.B) {
			benchmarkCalls(b, n, func() error {
				_, err := kms.Decrypt.Call(b.Context(), s, caller, in)
				return err
			})
		})
	}
}
