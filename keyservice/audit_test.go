package keyservice_test

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"kmsfs/keyservice/kms"
	"kmsfs/policy/caller"
)

func readLog(t testing.TB, dir string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "audit/current.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// record is an audit record as a reader of CloudTrail's schema takes it.
type record struct {
	EventName, EventSource, EventType, AwsRegion, SourceIPAddress, ErrorCode, ErrorMessage string

	ReadOnly            bool
	SharedEventID       string
	UserIdentity        struct{ Type, Arn, UserName, AccountId, InvokedBy, AccessKeyId string }
	RequestParameters   map[string]any
	ResponseElements    map[string]any
	ServiceEventDetails map[string]any
	AdditionalEventData map[string]any
	Resources           []struct{ Type, ARN string }
}

func readRecords(t testing.TB, dir string) []record {
	t.Helper()
	var records []record
	for line := range strings.Lines(readLog(t, dir)) {
		var r record
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		records = append(records, r)
	}
	return records
}

func lastRecord(t testing.TB, dir string) record {
	t.Helper()
	records := readRecords(t, dir)
	if len(records) == 0 {
		t.Fatal("the audit log is empty")
	}
	return records[len(records)-1]
}

func TestAuditRecords(t *testing.T) {
	dir, secret := newHome(t)
	s := openHome(t, dir, secret)
	key := newKey(t, s)
	r := lastRecord(t, dir)
	if r.EventName != "CreateKey" || r.ReadOnly || r.ResponseElements["keyId"] != key || r.EventSource != "kms.kmsfs" || r.AwsRegion != "local" || r.EventType != "AwsApiCall" {
		t.Errorf("CreateKey: %+v", r)
	}

	strange := map[string]string{"kmsfs:path": "/a\n\"b\\\u2028\x1b[31m\x7fé", "kmsfs:owner": "uid:1"}
	blob := generate(t, s, key, strange).CiphertextBlob
	if _, err := kms.Decrypt.Call(t.Context(), s, viaFileSystem(), &kms.DecryptInput{CiphertextBlob: blob, EncryptionContext: strange}); err != nil {
		t.Fatal(err)
	}
	r = lastRecord(t, dir)
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	logged, _ := r.RequestParameters["encryptionContext"].(map[string]any)
	if r.EventName != "Decrypt" || !r.ReadOnly || r.ErrorCode != "" || r.ResponseElements != nil || r.UserIdentity.InvokedBy != "fs.kmsfs" ||
		logged["kmsfs:path"] != strange["kmsfs:path"] || len(r.Resources) != 1 || r.Resources[0].ARN != key ||
		r.AdditionalEventData["pid"] != float64(os.Getpid()) || r.AdditionalEventData["executable"] != executable ||
		r.AdditionalEventData["fileOperation"] != "open" || len(r.AdditionalEventData["keyMaterialId"].(string)) != 64 {
		t.Errorf("Decrypt: %+v", r)
	}

	if _, err := kms.Decrypt.Call(t.Context(), s, stranger(), &kms.DecryptInput{CiphertextBlob: blob, KeyId: key}); err == nil {
		t.Fatal("a stranger may decrypt")
	}
	r = lastRecord(t, dir)
	if r.ErrorCode != "AccessDenied" || !strings.Contains(r.ErrorMessage, "not authorized to perform: kms:Decrypt on resource: "+key) || r.UserIdentity.Arn == "" {
		t.Errorf("refused Decrypt: %+v", r)
	}

	if _, err := kms.RecordEvent.Call(t.Context(), s, viaFileSystem(), &kms.Event{
		Name: "ContextMismatch", KeyARN: key, EncryptionContext: strange, Details: map[string]string{"found": "/b"}, ErrorCode: "EIO", ErrorMessage: "moved",
	}); err != nil {
		t.Fatal(err)
	}
	r = lastRecord(t, dir)
	if r.EventName != "ContextMismatch" || r.EventType != "AwsServiceEvent" || r.ServiceEventDetails["found"] != "/b" || r.ErrorCode != "EIO" || r.RequestParameters != nil {
		t.Errorf("event: %+v", r)
	}
	for line := range strings.Lines(readLog(t, dir)) {
		if strings.ContainsAny(strings.TrimSuffix(line, "\n"), "\x1b\x7f\u2028\n") {
			t.Errorf("%q could mislead a terminal", line)
		}
	}
}

// A record has the file operation behind the call: its path as it is seen, the process for which the file system acts, and what its calls share.
func TestFileOperationRecord(t *testing.T) {
	dir, secret := newHome(t)
	s := openHome(t, dir, secret)
	key := newKey(t, s)
	c := viaFileSystem()
	c.Operation, c.Path, c.SharedEventID = "rename", "/mnt/clear/<b>\x1b[31m", uuid.New()
	c.Behind = &caller.Caller{UID: 4711, GID: 4712, PID: int32(os.Getpid())}
	if _, err := kms.GenerateDataKey.Call(t.Context(), s, c, &kms.GenerateDataKeyInput{KeyId: key, KeySpec: "AES_256"}); err != nil {
		t.Fatal(err)
	}
	r := lastRecord(t, dir)
	executable, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"uid": 4711.0, "gid": 4712.0, "userName": "uid:4711", "pid": float64(os.Getpid()), "executable": executable}
	if more := r.AdditionalEventData; more["fileOperation"] != "rename" || more["filePath"] != c.Path || !reflect.DeepEqual(more["behind"], want) ||
		r.SharedEventID != c.SharedEventID.String() {
		t.Errorf("%+v", r)
	}
}

// Calls that reach no operation are recorded too, those of strangers in bounds.
func TestRefusedCalls(t *testing.T) {
	dir, secret := newHome(t)
	s := openHome(t, dir, secret)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(l); err != nil {
		t.Fatal(err)
	}
	post := func(c *http.Client, target, body string, header map[string]string) {
		t.Helper()
		r, err := http.NewRequest(http.MethodPost, "http://"+l.Addr().String()+"/", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("X-Amz-Target", target)
		r.Header.Set("Content-Type", "application/x-amz-json-1.1")
		for name, value := range header {
			r.Header.Set(name, value)
		}
		answer, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if answer.Body.Close(); answer.StatusCode != http.StatusBadRequest {
			t.Errorf("%s: status %d", target, answer.StatusCode)
		}
	}
	local := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, "socket"))
	}}}
	defer local.CloseIdleConnections()
	now := time.Now().UTC()
	signed := map[string]string{
		"X-Amz-Date": now.Format("20060102T150405Z"),
		"Authorization": "AWS4-HMAC-SHA256 Credential=KMSFSCLAIMED/" + now.Format("20060102") +
			"/local/kms/aws4_request, SignedHeaders=content-type;host;x-amz-date;x-amz-target, Signature=" + strings.Repeat("0", 64),
	}
	for _, c := range []struct {
		name                       string
		post                       func()
		event, code, kind, claimed string
	}{
		{"no signature", func() { post(http.DefaultClient, "TrentService.ListKeys", "{}", nil) }, "ListKeys", "MissingAuthenticationTokenException", "Unknown", ""},
		{"no such access key", func() { post(http.DefaultClient, "TrentService.Decrypt", "{}", signed) }, "Decrypt", "UnrecognizedClientException", "Unknown", "KMSFSCLAIMED"},
		{"no such operation", func() { post(local, "TrentService.Drop\u2028Tables", "{}", nil) }, "UnknownOperation", "UnknownOperationException", "IAMUser", ""},
		{"malformed", func() { post(local, "TrentService.ListKeys", `{"Limit":`, nil) }, "ListKeys", "SerializationException", "IAMUser", ""},
	} {
		c.post()
		r := lastRecord(t, dir)
		if r.EventName != c.event || r.ErrorCode != c.code || r.UserIdentity.Type != c.kind || r.UserIdentity.AccessKeyId != c.claimed ||
			(c.kind == "Unknown") != (r.AdditionalEventData["authenticated"] == false) {
			t.Errorf("%s: %+v", c.name, r)
		}
	}
	before := len(readRecords(t, dir))
	const calls = 200
	for range calls {
		post(http.DefaultClient, "TrentService.ListKeys", "{}", nil)
	}
	var found, missed float64
	for end := time.Now().Add(10 * time.Second); found+missed < calls; time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%v calls are recorded, and %v counted, of %d", found, missed, calls)
		}
		post(http.DefaultClient, "TrentService.ListKeys", "{}", nil) // has the count of those before it
		found, missed = 0, 0
		for _, r := range readRecords(t, dir)[before:] {
			found++
			if n, ok := r.AdditionalEventData["unrecordedBefore"].(float64); ok {
				missed += n
			}
		}
	}
	if found > calls {
		t.Errorf("all %d calls of a stranger are recorded", calls)
	}
}

// Every call has exactly one record, with its name, whatever becomes of it.
func TestEveryCallIsRecorded(t *testing.T) {
	dir, secret := newHome(t)
	s := openHome(t, dir, secret)
	key := newKey(t, s)
	blob := generate(t, s, key, nil).CiphertextBlob
	for _, caller := range []kms.Caller{self(), stranger()} {
		for name, call := range calls(s, key, blob) {
			before := len(readRecords(t, dir))
			err := call(t, caller)
			records := readRecords(t, dir)
			if len(records) != before+1 {
				t.Fatalf("%s: %d records", name, len(records)-before)
			}
			r := records[before]
			if name == "RecordEvent" && err == nil {
				name = "VolumeMounted"
			}
			if r.EventName != name || (r.ErrorCode != "") != (err != nil) {
				t.Errorf("%s, %v: %+v", name, err, r)
			}
		}
	}
}

// What a power cut left of a record is cut off, and what was whole stays.
func TestTornRecord(t *testing.T) {
	dir, secret := newHome(t)
	s := openHome(t, dir, secret)
	key := newKey(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	whole := readLog(t, dir)
	path := filepath.Join(dir, "audit/current.jsonl")
	if err := os.WriteFile(path, []byte(whole+whole[:100]), 0o600); err != nil {
		t.Fatal(err)
	}
	generate(t, openHome(t, dir, secret), key, nil)
	if records := readRecords(t, dir); len(records) != 2 || !strings.HasPrefix(readLog(t, dir), whole) {
		t.Errorf("got %d records", len(records))
	}
}
