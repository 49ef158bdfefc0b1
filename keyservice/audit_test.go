package keyservice_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kmsfs/keyservice"
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
	UserIdentity        struct{ Arn, UserName, AccountId, InvokedBy string }
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
	if _, err := s.Decrypt(t.Context(), viaFileSystem(), &keyservice.DecryptInput{CiphertextBlob: blob, EncryptionContext: strange}); err != nil {
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

	if _, err := s.Decrypt(t.Context(), stranger(), &keyservice.DecryptInput{CiphertextBlob: blob, KeyId: key}); err == nil {
		t.Fatal("a stranger may decrypt")
	}
	r = lastRecord(t, dir)
	if r.ErrorCode != "AccessDenied" || !strings.Contains(r.ErrorMessage, "not authorized to perform: kms:Decrypt on resource: "+key) || r.UserIdentity.Arn == "" {
		t.Errorf("refused Decrypt: %+v", r)
	}

	if err := s.RecordEvent(t.Context(), viaFileSystem(), keyservice.Event{
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

// Every call has exactly one record, with its name, whatever becomes of it.
func TestEveryCallIsRecorded(t *testing.T) {
	dir, secret := newHome(t)
	s := openHome(t, dir, secret)
	key := newKey(t, s)
	blob := generate(t, s, key, nil).CiphertextBlob
	for _, caller := range []keyservice.Caller{self(), stranger()} {
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
