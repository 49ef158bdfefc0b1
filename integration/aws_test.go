package integration

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/smithy-go"
	"github.com/aws/smithy-go/middleware"
)

// notOffered are the SDK's operations that a key service of one machine has no use for: other key stores, other regions, and key encapsulation.
var notOffered = []string{
	"ConnectCustomKeyStore", "CreateCustomKeyStore", "DeleteCustomKeyStore", "DescribeCustomKeyStores", "DisconnectCustomKeyStore", "UpdateCustomKeyStore",
	"ReplicateKey", "UpdatePrimaryRegion", "Encapsulate", "Decapsulate",
}

// awsClient is AWS's client, unmodified but for where it finds the service, which notes the operations that have succeeded.
type awsClient struct {
	*kms.Client
	t    testing.TB
	mu   sync.Mutex // guards done
	done map[string]bool
}

func newAWSClient(t testing.TB, url string, key accessKey, transport *http.Transport) *awsClient {
	c := &awsClient{t: t, done: map[string]bool{}}
	t.Cleanup(transport.CloseIdleConnections)
	c.Client = kms.New(kms.Options{
		Region: "eu-central-1", BaseEndpoint: aws.String(url), HTTPClient: &http.Client{Transport: transport},
		Credentials: credentials.NewStaticCredentialsProvider(key.AccessKeyId, key.SecretAccessKey, ""),
		APIOptions: []func(*middleware.Stack) error{func(stack *middleware.Stack) error {
			return stack.Initialize.Add(middleware.InitializeMiddlewareFunc("note", func(ctx context.Context, in middleware.InitializeInput, next middleware.InitializeHandler) (middleware.InitializeOutput, middleware.Metadata, error) {
				out, metadata, err := next.HandleInitialize(ctx, in)
				if err == nil {
					c.mu.Lock()
					defer c.mu.Unlock()
					c.done[middleware.GetOperationName(ctx)] = true
				}
				return out, metadata, err
			}), middleware.After)
		}},
	})
	return c
}

// checkAll checks that every operation of the SDK has succeeded.
func (c *awsClient) checkAll() {
	client := reflect.TypeFor[*kms.Client]()
	for method := range client.Methods() {
		if method.Type.NumIn() < 3 || method.Name == "Options" || slices.Contains(notOffered, method.Name) {
			continue
		}
		if !c.done[method.Name] {
			c.t.Errorf("%s was not performed", method.Name)
		}
	}
}

// ok returns an operation's output, which must not fail.
func ok[O any](t testing.TB) func(out *O, err error) *O {
	return func(out *O, err error) *O {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
}

// wantFault checks that an error is the service's exception of that name.
func wantFault(t *testing.T, err error, code string) {
	t.Helper()
	fault, ok := errors.AsType[smithy.APIError](err)
	if !ok || fault.ErrorCode() != code {
		t.Errorf("got %v, want %s", err, code)
	}
}

// AWS's SDK for Go performs every operation on kmsfs's key service.
func TestAWSClient(t *testing.T) {
	t.Run("socket", func(t *testing.T) {
		v := newVolume(t)
		socket := tempDir(t) + "/kms.sock"
		v.serve(t, nil, "--socket", socket)
		useEveryOperation(t, newAWSClient(t, "http://localhost", accessKey{AccessKeyId: "ignored", SecretAccessKey: "ignored"}, overSocket(socket)))
	})
	t.Run("loopback", func(t *testing.T) {
		v := newVolume(t)
		key := v.accessKey(t)
		s := v.serve(t, nil, "--listen", "127.0.0.1:0")
		useEveryOperation(t, newAWSClient(t, "http://"+s.addresses[0], key, &http.Transport{}))
		if !strings.Contains(v.kmsfs(t, "credential", "list"), key.AccessKeyId) {
			t.Error("the access key is not listed")
		}
	})
	t.Run("TLS", func(t *testing.T) {
		v := newVolume(t)
		certFile, keyFile, roots := certificate(t)
		inherited, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		defer func() { must(t, inherited.Close()) }()
		s := v.serve(t, inherited.(*net.TCPListener), "--tls-cert", certFile, "--tls-key", keyFile)
		useEveryOperation(t, newAWSClient(t, "https://"+s.addresses[0], v.accessKey(t), &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}))
	})
}

func useEveryOperation(t *testing.T, c *awsClient) {
	c.useKeys(t)
	c.useSymmetric(t)
	c.useAsymmetric(t)
	c.useRotation(t)
	c.useImport(t)
	c.useGrants(t)
	c.checkAll()
}

func (c *awsClient) createKey(t testing.TB, in kms.CreateKeyInput) *string {
	t.Helper()
	return ok[kms.CreateKeyOutput](t)(c.CreateKey(t.Context(), &in)).KeyMetadata.Arn
}

func (c *awsClient) useKeys(t *testing.T) {
	ctx := t.Context()
	key := c.createKey(t, kms.CreateKeyInput{Description: aws.String("first"), Tags: []types.Tag{{TagKey: aws.String("team"), TagValue: aws.String("a")}}})
	c.createKey(t, kms.CreateKeyInput{})
	ok[kms.UpdateKeyDescriptionOutput](t)(c.UpdateKeyDescription(ctx, &kms.UpdateKeyDescriptionInput{KeyId: key, Description: aws.String("second")}))
	ok[kms.DisableKeyOutput](t)(c.DisableKey(ctx, &kms.DisableKeyInput{KeyId: key}))
	_, err := c.Encrypt(ctx, &kms.EncryptInput{KeyId: key, Plaintext: []byte("x")})
	if _, disabled := errors.AsType[*types.DisabledException](err); !disabled {
		t.Errorf("disabled key: %v", err)
	}
	ok[kms.EnableKeyOutput](t)(c.EnableKey(ctx, &kms.EnableKeyInput{KeyId: key}))
	described := ok[kms.DescribeKeyOutput](t)(c.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: key})).KeyMetadata
	if *described.Description != "second" || described.KeyState != types.KeyStateEnabled || time.Since(*described.CreationDate) > time.Hour {
		t.Errorf("described as %+v", described)
	}
	listed := 0
	for pages := kms.NewListKeysPaginator(c.Client, &kms.ListKeysInput{Limit: aws.Int32(1)}); pages.HasMorePages(); {
		listed += len(ok[kms.ListKeysOutput](t)(pages.NextPage(ctx)).Keys)
	}
	if listed < 3 {
		t.Errorf("%d keys are listed, want the volume's and two", listed)
	}
	ok[kms.TagResourceOutput](t)(c.TagResource(ctx, &kms.TagResourceInput{KeyId: key, Tags: []types.Tag{{TagKey: aws.String("cost"), TagValue: aws.String("7")}}}))
	ok[kms.UntagResourceOutput](t)(c.UntagResource(ctx, &kms.UntagResourceInput{KeyId: key, TagKeys: []string{"team"}}))
	if tags := ok[kms.ListResourceTagsOutput](t)(c.ListResourceTags(ctx, &kms.ListResourceTagsInput{KeyId: key})).Tags; len(tags) != 1 || *tags[0].TagKey != "cost" {
		t.Errorf("tags are %v", tags)
	}
	c.useAliases(t, key)
	policy := ok[kms.GetKeyPolicyOutput](t)(c.GetKeyPolicy(ctx, &kms.GetKeyPolicyInput{KeyId: key}))
	ok[kms.PutKeyPolicyOutput](t)(c.PutKeyPolicy(ctx, &kms.PutKeyPolicyInput{KeyId: key, Policy: policy.Policy}))
	_, err = c.PutKeyPolicy(ctx, &kms.PutKeyPolicyInput{KeyId: key, Policy: aws.String("{")})
	wantFault(t, err, "MalformedPolicyDocumentException")
	if names := ok[kms.ListKeyPoliciesOutput](t)(c.ListKeyPolicies(ctx, &kms.ListKeyPoliciesInput{KeyId: key})).PolicyNames; !slices.Equal(names, []string{"default"}) {
		t.Errorf("policies are %q", names)
	}
	deleted := ok[kms.ScheduleKeyDeletionOutput](t)(c.ScheduleKeyDeletion(ctx, &kms.ScheduleKeyDeletionInput{KeyId: key, PendingWindowInDays: aws.Int32(7)}))
	if days := time.Until(*deleted.DeletionDate).Hours() / 24; days < 6.9 || days > 7 {
		t.Errorf("deletion in %v days", days)
	}
	ok[kms.CancelKeyDeletionOutput](t)(c.CancelKeyDeletion(ctx, &kms.CancelKeyDeletionInput{KeyId: key}))
	_, err = c.DescribeKey(ctx, &kms.DescribeKeyInput{KeyId: aws.String("11111111-2222-4333-8444-555555555555")})
	if _, missing := errors.AsType[*types.NotFoundException](err); !missing {
		t.Errorf("no such key: %v", err)
	}
}

func (c *awsClient) useAliases(t *testing.T, key *string) {
	ctx, alias := t.Context(), aws.String("alias/aws-client")
	ok[kms.CreateAliasOutput](t)(c.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: alias, TargetKeyId: key}))
	_, err := c.CreateAlias(ctx, &kms.CreateAliasInput{AliasName: alias, TargetKeyId: key})
	wantFault(t, err, "AlreadyExistsException")
	ok[kms.UpdateAliasOutput](t)(c.UpdateAlias(ctx, &kms.UpdateAliasInput{AliasName: alias, TargetKeyId: key}))
	if aliases := ok[kms.ListAliasesOutput](t)(c.ListAliases(ctx, &kms.ListAliasesInput{KeyId: key})).Aliases; len(aliases) != 1 || *aliases[0].AliasName != *alias {
		t.Errorf("aliases are %v", aliases)
	}
	ok[kms.DeleteAliasOutput](t)(c.DeleteAlias(ctx, &kms.DeleteAliasInput{AliasName: alias}))
}

func (c *awsClient) useSymmetric(t *testing.T) {
	ctx, key := t.Context(), c.createKey(t, kms.CreateKeyInput{})
	place := map[string]string{"path": "/q3/<&>ü", "owner": "uid:1000"}
	secret := noise(1, 4096)
	sealed := ok[kms.EncryptOutput](t)(c.Encrypt(ctx, &kms.EncryptInput{KeyId: key, Plaintext: secret, EncryptionContext: place}))
	moved := ok[kms.ReEncryptOutput](t)(c.ReEncrypt(ctx, &kms.ReEncryptInput{
		CiphertextBlob: sealed.CiphertextBlob, SourceEncryptionContext: place, DestinationKeyId: key,
	}))
	if out := ok[kms.DecryptOutput](t)(c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: moved.CiphertextBlob})); !bytes.Equal(out.Plaintext, secret) || *out.KeyId != *key {
		t.Error("decrypted to something else")
	}
	_, err := c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob})
	if _, invalid := errors.AsType[*types.InvalidCiphertextException](err); !invalid {
		t.Errorf("without its context: %v", err)
	}
	_, err = c.Encrypt(ctx, &kms.EncryptInput{KeyId: key, Plaintext: noise(1, 4097)})
	wantFault(t, err, "ValidationException")
	_, err = c.Encrypt(ctx, &kms.EncryptInput{KeyId: key, Plaintext: secret, DryRun: aws.Bool(true)})
	if _, would := errors.AsType[*types.DryRunOperationException](err); !would {
		t.Errorf("dry run: %v", err)
	}
	made := ok[kms.GenerateDataKeyOutput](t)(c.GenerateDataKey(ctx, &kms.GenerateDataKeyInput{KeyId: key, KeySpec: types.DataKeySpecAes256}))
	if out := ok[kms.DecryptOutput](t)(c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: made.CiphertextBlob})); !bytes.Equal(out.Plaintext, made.Plaintext) || len(made.Plaintext) != 32 {
		t.Error("the data key is another one")
	}
	ok[kms.GenerateDataKeyWithoutPlaintextOutput](t)(c.GenerateDataKeyWithoutPlaintext(ctx, &kms.GenerateDataKeyWithoutPlaintextInput{KeyId: key, KeySpec: types.DataKeySpecAes128}))
	pair := ok[kms.GenerateDataKeyPairOutput](t)(c.GenerateDataKeyPair(ctx, &kms.GenerateDataKeyPairInput{KeyId: key, KeyPairSpec: types.DataKeyPairSpecEccNistP256}))
	private, err := x509.ParsePKCS8PrivateKey(pair.PrivateKeyPlaintext)
	must(t, err)
	public, err := x509.ParsePKIXPublicKey(pair.PublicKey)
	if err != nil || !private.(*ecdsa.PrivateKey).PublicKey.Equal(public) {
		t.Errorf("the key pair doesn't fit: %v", err)
	}
	ok[kms.GenerateDataKeyPairWithoutPlaintextOutput](t)(c.GenerateDataKeyPairWithoutPlaintext(ctx, &kms.GenerateDataKeyPairWithoutPlaintextInput{KeyId: key, KeyPairSpec: types.DataKeyPairSpecEccNistP384}))
	if out := ok[kms.GenerateRandomOutput](t)(c.GenerateRandom(ctx, &kms.GenerateRandomInput{NumberOfBytes: aws.Int32(100)})); len(out.Plaintext) != 100 {
		t.Errorf("%d random bytes", len(out.Plaintext))
	}
	if used := ok[kms.GetKeyLastUsageOutput](t)(c.GetKeyLastUsage(ctx, &kms.GetKeyLastUsageInput{KeyId: key})); used.KeyLastUsage == nil || used.KeyLastUsage.Timestamp == nil {
		t.Errorf("last used: %+v", used)
	}
}

func (c *awsClient) useAsymmetric(t *testing.T) {
	ctx, message := t.Context(), []byte("a message")
	digest := sha256.Sum256(message)
	signer := c.createKey(t, kms.CreateKeyInput{KeySpec: types.KeySpecRsa2048, KeyUsage: types.KeyUsageTypeSignVerify})
	signed := ok[kms.SignOutput](t)(c.Sign(ctx, &kms.SignInput{KeyId: signer, Message: message, SigningAlgorithm: types.SigningAlgorithmSpecRsassaPssSha256}))
	verify := &kms.VerifyInput{
		KeyId: signer, Message: digest[:], MessageType: types.MessageTypeDigest, Signature: signed.Signature, SigningAlgorithm: types.SigningAlgorithmSpecRsassaPssSha256,
	}
	if !ok[kms.VerifyOutput](t)(c.Verify(ctx, verify)).SignatureValid {
		t.Error("the signature is not valid")
	}
	verify.Message = digest[1:]
	_, err := c.Verify(ctx, verify)
	wantFault(t, err, "ValidationException")
	verify.Message = noise(2, 32)
	_, err = c.Verify(ctx, verify)
	wantFault(t, err, "KMSInvalidSignatureException")
	public, err := x509.ParsePKIXPublicKey(ok[kms.GetPublicKeyOutput](t)(c.GetPublicKey(ctx, &kms.GetPublicKeyInput{KeyId: signer})).PublicKey)
	must(t, err)
	must(t, rsa.VerifyPSS(public.(*rsa.PublicKey), crypto.SHA256, digest[:], signed.Signature, nil))

	hmac := c.createKey(t, kms.CreateKeyInput{KeySpec: types.KeySpecHmac256, KeyUsage: types.KeyUsageTypeGenerateVerifyMac})
	mac := ok[kms.GenerateMacOutput](t)(c.GenerateMac(ctx, &kms.GenerateMacInput{KeyId: hmac, Message: message, MacAlgorithm: types.MacAlgorithmSpecHmacSha256}))
	if !ok[kms.VerifyMacOutput](t)(c.VerifyMac(ctx, &kms.VerifyMacInput{KeyId: hmac, Message: message, Mac: mac.Mac, MacAlgorithm: types.MacAlgorithmSpecHmacSha256})).MacValid {
		t.Error("the MAC is not valid")
	}

	agreement := c.createKey(t, kms.CreateKeyInput{KeySpec: types.KeySpecEccNistP256, KeyUsage: types.KeyUsageTypeKeyAgreement})
	theirs, err := x509.ParsePKIXPublicKey(ok[kms.GetPublicKeyOutput](t)(c.GetPublicKey(ctx, &kms.GetPublicKeyInput{KeyId: agreement})).PublicKey)
	must(t, err)
	theirKey, err := theirs.(*ecdsa.PublicKey).ECDH()
	must(t, err)
	mine, err := ecdh.P256().GenerateKey(rand.Reader)
	must(t, err)
	myKey, err := x509.MarshalPKIXPublicKey(mine.PublicKey())
	must(t, err)
	want, err := mine.ECDH(theirKey)
	must(t, err)
	if out := ok[kms.DeriveSharedSecretOutput](t)(c.DeriveSharedSecret(ctx, &kms.DeriveSharedSecretInput{
		KeyId: agreement, KeyAgreementAlgorithm: types.KeyAgreementAlgorithmSpecEcdh, PublicKey: myKey,
	})); !bytes.Equal(out.SharedSecret, want) {
		t.Error("the shared secret is another one")
	}
}

func (c *awsClient) useRotation(t *testing.T) {
	ctx, key := t.Context(), c.createKey(t, kms.CreateKeyInput{})
	before := ok[kms.EncryptOutput](t)(c.Encrypt(ctx, &kms.EncryptInput{KeyId: key, Plaintext: []byte("old")}))
	ok[kms.EnableKeyRotationOutput](t)(c.EnableKeyRotation(ctx, &kms.EnableKeyRotationInput{KeyId: key, RotationPeriodInDays: aws.Int32(100)}))
	if status := ok[kms.GetKeyRotationStatusOutput](t)(c.GetKeyRotationStatus(ctx, &kms.GetKeyRotationStatusInput{KeyId: key})); !status.KeyRotationEnabled || *status.RotationPeriodInDays != 100 {
		t.Errorf("rotation: %+v", status)
	}
	ok[kms.RotateKeyOnDemandOutput](t)(c.RotateKeyOnDemand(ctx, &kms.RotateKeyOnDemandInput{KeyId: key}))
	ok[kms.DisableKeyRotationOutput](t)(c.DisableKeyRotation(ctx, &kms.DisableKeyRotationInput{KeyId: key}))
	if rotations := ok[kms.ListKeyRotationsOutput](t)(c.ListKeyRotations(ctx, &kms.ListKeyRotationsInput{KeyId: key})).Rotations; len(rotations) != 1 || rotations[0].RotationType != types.RotationTypeOnDemand {
		t.Errorf("rotations: %+v", rotations)
	}
	if out := ok[kms.DecryptOutput](t)(c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: before.CiphertextBlob})); string(out.Plaintext) != "old" {
		t.Errorf("decrypted to %q", out.Plaintext)
	}
}

func (c *awsClient) useImport(t *testing.T) {
	ctx, key := t.Context(), c.createKey(t, kms.CreateKeyInput{Origin: types.OriginTypeExternal})
	parameters := ok[kms.GetParametersForImportOutput](t)(c.GetParametersForImport(ctx, &kms.GetParametersForImportInput{
		KeyId: key, WrappingAlgorithm: types.AlgorithmSpecRsaesOaepSha256, WrappingKeySpec: types.WrappingKeySpecRsa2048,
	}))
	public, err := x509.ParsePKIXPublicKey(parameters.PublicKey)
	must(t, err)
	wrapped, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public.(*rsa.PublicKey), noise(3, 32), nil)
	must(t, err)
	in := &kms.ImportKeyMaterialInput{
		KeyId: key, ImportToken: parameters.ImportToken, EncryptedKeyMaterial: wrapped,
		ExpirationModel: types.ExpirationModelTypeKeyMaterialExpires, ValidTo: aws.Time(time.Now().Add(time.Hour)),
	}
	ok[kms.ImportKeyMaterialOutput](t)(c.ImportKeyMaterial(ctx, in))
	sealed := ok[kms.EncryptOutput](t)(c.Encrypt(ctx, &kms.EncryptInput{KeyId: key, Plaintext: []byte("x")}))
	ok[kms.DeleteImportedKeyMaterialOutput](t)(c.DeleteImportedKeyMaterial(ctx, &kms.DeleteImportedKeyMaterialInput{KeyId: key}))
	_, err = c.Decrypt(ctx, &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob})
	if _, pending := errors.AsType[*types.KMSInvalidStateException](err); !pending {
		t.Errorf("without its material: %v", err)
	}
}

func (c *awsClient) useGrants(t *testing.T) {
	ctx, key := t.Context(), c.createKey(t, kms.CreateKeyInput{})
	account := strings.Split(*key, ":")[4]
	bob := aws.String("arn:kmsfs:iam::" + account + ":user/uid:4711")
	grant := func(name string) *kms.CreateGrantOutput {
		return ok[kms.CreateGrantOutput](t)(c.CreateGrant(ctx, &kms.CreateGrantInput{
			KeyId: key, GranteePrincipal: bob, RetiringPrincipal: bob, Name: aws.String(name), Operations: []types.GrantOperation{types.GrantOperationDecrypt},
			Constraints: &types.GrantConstraints{EncryptionContextSubset: map[string]string{"team": "a"}},
		}))
	}
	first, second := grant("first"), grant("second")
	if again := grant("first"); *again.GrantId != *first.GrantId {
		t.Error("the same grant is made twice")
	}
	if grants := ok[kms.ListGrantsOutput](t)(c.ListGrants(ctx, &kms.ListGrantsInput{KeyId: key})).Grants; len(grants) != 2 || grants[0].Constraints.EncryptionContextSubset["team"] != "a" {
		t.Errorf("grants: %+v", grants)
	}
	if grants := ok[kms.ListRetirableGrantsOutput](t)(c.ListRetirableGrants(ctx, &kms.ListRetirableGrantsInput{RetiringPrincipal: bob})).Grants; len(grants) != 2 {
		t.Errorf("retirable: %+v", grants)
	}
	ok[kms.RevokeGrantOutput](t)(c.RevokeGrant(ctx, &kms.RevokeGrantInput{KeyId: key, GrantId: first.GrantId}))
	ok[kms.RetireGrantOutput](t)(c.RetireGrant(ctx, &kms.RetireGrantInput{GrantToken: second.GrantToken}))
}

// Calls that are not signed, or not well, or at another time, get AWS's answers; a deleted access key is refused at once.
func TestSignatures(t *testing.T) {
	v := newVolume(t)
	key := v.accessKey(t)
	s := v.serve(t, nil, "--listen", "127.0.0.1:0")
	list := func(key accessKey, change func(*http.Request)) error {
		c := newAWSClient(t, "http://"+s.addresses[0], key, &http.Transport{})
		_, err := c.ListKeys(t.Context(), &kms.ListKeysInput{}, func(o *kms.Options) {
			o.HTTPClient = changing{o.HTTPClient.(*http.Client), change}
		})
		return err
	}
	nothing := func(*http.Request) {}
	must(t, list(key, nothing))
	for _, test := range []struct {
		name, code string
		key        accessKey
		change     func(*http.Request)
	}{
		{"no signature", "MissingAuthenticationTokenException", key, func(r *http.Request) { r.Header.Del("Authorization") }},
		{"unknown access key", "UnrecognizedClientException", accessKey{AccessKeyId: "KMFSAAAAAAAAAAAAAAAA", SecretAccessKey: key.SecretAccessKey}, nothing},
		{"wrong secret", "InvalidSignatureException", accessKey{AccessKeyId: key.AccessKeyId, SecretAccessKey: strings.Repeat("x", 40)}, nothing},
		{"another operation", "InvalidSignatureException", key, func(r *http.Request) { r.Header.Set("X-Amz-Target", "TrentService.CreateKey") }},
		{"another time", "InvalidSignatureException", key, func(r *http.Request) {
			r.Header.Set("X-Amz-Date", time.Now().UTC().Add(time.Minute).Format("20060102T150405Z"))
		}},
		{"half a signature", "IncompleteSignatureException", key, func(r *http.Request) {
			r.Header.Set("Authorization", strings.Split(r.Header.Get("Authorization"), ", Signature=")[0])
		}},
		{"another scheme", "IncompleteSignatureException", key, func(r *http.Request) { r.Header.Set("Authorization", "Basic eDp4") }},
		{"unsigned header", "InvalidSignatureException", key, func(r *http.Request) { r.Header.Set("X-Amz-Other", "x") }},
	} {
		t.Run(test.name, func(t *testing.T) { wantFault(t, list(test.key, test.change), test.code) })
	}
	v.kmsfs(t, "credential", "delete", key.AccessKeyId)
	wantFault(t, list(key, nothing), "UnrecognizedClientException")
}

// changing changes requests that are signed already.
type changing struct {
	client *http.Client
	change func(*http.Request)
}

func (c changing) Do(r *http.Request) (*http.Response, error) {
	c.change(r)
	return c.client.Do(r)
}
