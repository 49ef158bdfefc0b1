package keyservice_test

import (
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/wire"
	"kmsfs/policy/caller"
)

// A mount calls on behalf of others by the home's own socket only, and only what mounts need. CheckUses
// is for mounts; a denied call is recorded.
func TestMountCalls(t *testing.T) {
	dir, secret := newHome(t)
	s := openHome(t, dir, secret)
	key := newKey(t, s)
	public := filepath.Join(t.TempDir(), "public")
	l, err := net.Listen("unix", public)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(l); err != nil {
		t.Fatal(err)
	}
	onBehalf := wire.WithBehalf(t.Context(), wire.Behalf{Caller: caller.Caller{UID: 4711, GID: 4711, PID: 1}})
	call := func(ctx context.Context, path string, op *kms.Description, in any) error {
		t.Helper()
		c := wire.NewClient(func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "unix", path) })
		defer c.Close()
		return c.Call(ctx, op.Name, in, &json.RawMessage{})
	}
	home := filepath.Join(dir, "socket")
	use := &kms.CheckUsesInput{Uses: []kms.KeyUse{{Action: "Decrypt", KeyId: key}}}
	wants := []struct {
		name, path string
		ctx        context.Context
		op         *kms.Description
		in         any
		want       string
	}{
		{"uses at home", home, t.Context(), &kms.CheckUses.Description, use, ""},
		{"uses elsewhere", public, t.Context(), &kms.CheckUses.Description, use, kms.CodeAccessDenied},
	}
	if os.Geteuid() == 0 {
		data := &kms.GenerateDataKeyInput{KeyId: key, KeySpec: "AES_256"}
		wants = append(wants, []struct {
			name, path string
			ctx        context.Context
			op         *kms.Description
			in         any
			want       string
		}{
			{"a data key for a user", home, onBehalf, &kms.GenerateDataKey.Description, data, kms.CodeAccessDenied}, // 4711 has no permission
			{"an access key for a user", home, onBehalf, &kms.CreateAccessKey.Description, &kms.CreateAccessKeyInput{}, kms.CodeUnrecognizedClient},
			{"a data key for a user elsewhere", public, onBehalf, &kms.GenerateDataKey.Description, data, kms.CodeUnrecognizedClient},
		}...)
	}
	for _, test := range wants {
		if err := call(test.ctx, test.path, test.op, test.in); code(err) != test.want {
			t.Errorf("%s: got %v, want %q", test.name, err, test.want)
		}
	}
	log, err := os.ReadFile(filepath.Join(dir, "audit", "current.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(string(log), `"eventName":"CheckUses"`); got != 1 {
		t.Errorf("%d records of CheckUses: want the denied call's", got)
	}
}
