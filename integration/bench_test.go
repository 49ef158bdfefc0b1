package integration

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// BenchmarkService measures requests to key services by AWS's SDK, client included: kmsfs on a Unix socket and with TLS and signatures, moto's server
// where there is one, and, at the URL in KMSFS_BENCH_KMS, any other.
func BenchmarkService(b *testing.B) {
	for _, service := range benchmarked(b) {
		for _, connections := range []int{1, 16, 64} {
			client := newAWSClient(b, service.url, service.credentials, service.transport(connections))
			key := client.createKey(b, kms.CreateKeyInput{})
			context := map[string]string{"kmsfs:path": "/finance/q3/report.ods", "kmsfs:owner": "uid:1000"}
			made, err := client.GenerateDataKey(b.Context(), &kms.GenerateDataKeyInput{KeyId: key, KeySpec: types.DataKeySpecAes256, EncryptionContext: context})
			if err != nil {
				b.Fatal(err)
			}
			for operation, call := range map[string]func() error{
				"GenerateDataKey": func() error {
					_, err := client.GenerateDataKey(b.Context(), &kms.GenerateDataKeyInput{KeyId: key, KeySpec: types.DataKeySpecAes256, EncryptionContext: context})
					return err
				},
				"Decrypt": func() error {
					_, err := client.Decrypt(b.Context(), &kms.DecryptInput{CiphertextBlob: made.CiphertextBlob, EncryptionContext: context})
					return err
				},
			} {
				b.Run(fmt.Sprintf("%s/%s/connections=%d", service.name, operation, connections), func(b *testing.B) { callAtOnce(b, connections, call) })
			}
		}
	}
}

// callAtOnce shares the calls among so many callers.
func callAtOnce(b *testing.B, callers int, call func() error) {
	var left atomic.Int64
	left.Store(int64(b.N))
	var group sync.WaitGroup
	b.ResetTimer()
	for range callers {
		group.Go(func() {
			for left.Add(-1) >= 0 {
				if err := call(); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	group.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
}

// rival is a key service to be measured.
type rival struct {
	name, url   string
	credentials accessKey
	transport   func(connections int) *http.Transport
}

func benchmarked(b *testing.B) []rival {
	plain := func(n int) *http.Transport { return &http.Transport{MaxIdleConnsPerHost: n, MaxConnsPerHost: n} }
	v := newVolume(b)
	certFile, keyFile, roots := certificate(b)
	socket := tempDir(b) + "/kms.sock"
	s := v.serve(b, nil, "--listen", "127.0.0.1:0", "--tls-cert", certFile, "--tls-key", keyFile, "--socket", socket)
	rivals := []rival{
		{"socket", "http://kmsfs", accessKey{AccessKeyId: "none", SecretAccessKey: "none"}, func(n int) *http.Transport {
			t := overSocket(socket)
			t.MaxIdleConnsPerHost, t.MaxConnsPerHost = n, n
			return t
		}},
		{"TLS", "https://" + s.addresses[0], v.accessKey(b), func(n int) *http.Transport {
			t := plain(n)
			t.TLSClientConfig = &tls.Config{RootCAs: roots}
			return t
		}},
	}
	other := accessKey{AccessKeyId: "any", SecretAccessKey: "any"}
	if url := os.Getenv("KMSFS_BENCH_KMS"); url != "" {
		rivals = append(rivals, rival{"other", url, other, plain})
	}
	if e := onMoto(b); e != nil {
		rivals = append(rivals, rival{"moto", e.url, other, plain})
	}
	return rivals
}
