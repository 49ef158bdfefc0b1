package integration

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/kms"
	"golang.org/x/sys/unix"
)

// elsewhere is a key service that other hosts' volumes use, with a KMS key.
type elsewhere struct {
	url, key string
	// environment is what a client of it needs.
	environment []string
}

// onSocket is kmsfs on a Unix socket, of a home that the volume stands for.
func onSocket(t *testing.T) (*volume, *server, elsewhere) {
	v := newVolume(t)
	socket := filepath.Join(tempDir(t), "kms.sock")
	s := v.serve(t, nil, "--socket", socket)
	return v, s, elsewhere{url: "unix:" + socket, key: strings.TrimSpace(v.kmsfs(t, "key", "create"))}
}

// onTLS is kmsfs on a network.
func onTLS(t *testing.T) elsewhere {
	v := newVolume(t)
	certFile, keyFile, _ := certificate(t)
	s := v.serve(t, nil, "--listen", "127.0.0.1:0", "--tls-cert", certFile, "--tls-key", keyFile)
	key := v.accessKey(t)
	return elsewhere{
		url: "https://" + s.addresses[0], key: strings.TrimSpace(v.kmsfs(t, "key", "create")),
		environment: []string{"AWS_ACCESS_KEY_ID=" + key.AccessKeyId, "AWS_SECRET_ACCESS_KEY=" + key.SecretAccessKey, "AWS_CA_BUNDLE=" + certFile},
	}
}

// onMoto is moto's server, somebody else's emulation of AWS KMS; nil if this machine doesn't have it.
func onMoto(t testing.TB) *elsewhere {
	program, err := exec.LookPath("moto_server")
	if err != nil {
		return nil
	}
	cmd := exec.Command(program, "-H", "127.0.0.1", "-p", "0")
	said, err := cmd.StderrPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() {
		must(t, cmd.Process.Kill())
		_ = cmd.Wait() // it was killed
	})
	e := &elsewhere{environment: []string{"AWS_ACCESS_KEY_ID=moto", "AWS_SECRET_ACCESS_KEY=moto", "AWS_REGION=eu-central-1"}}
	lines := bufio.NewScanner(said)
	for e.url == "" {
		if !lines.Scan() {
			t.Fatalf("moto_server has ended: %v", lines.Err())
		}
		_, e.url, _ = strings.Cut(lines.Text(), "Running on ")
	}
	go func() { _, _ = io.Copy(io.Discard, said) }() // what it says of requests
	c := newAWSClient(t, e.url, accessKey{AccessKeyId: "moto", SecretAccessKey: "moto"}, &http.Transport{})
	e.key = *c.createKey(t, kms.CreateKeyInput{})
	return e
}

// volumeAt makes a volume whose keys are elsewhere, and mounts it.
func volumeAt(t *testing.T, e elsewhere, options ...string) *volume {
	t.Helper()
	v := prepareVolume(t)
	v.also = e.environment
	v.kmsfs(t, "init", "--kms", e.url, "--key", e.key, v.dir)
	v.mount(t, append(options, "--kms", e.url)...)
	return v
}

// The file system behaves the same wherever the keys are.
func TestRemote(t *testing.T) {
	t.Run("socket", func(t *testing.T) {
		_, _, e := onSocket(t)
		runScenariosOn(t, volumeAt(t, e), posixScenarios, false)
	})
	t.Run("TLS", func(t *testing.T) {
		runScenariosOn(t, volumeAt(t, onTLS(t), "--kms-cache", "none"), posixScenarios, false)
	})
	t.Run("third party", func(t *testing.T) {
		e := onMoto(t)
		if e == nil {
			t.Log("not run: there is no moto_server here")
			return
		}
		runScenariosOn(t, volumeAt(t, *e), posixScenarios, false)
	})
}

// A service that refuses gives EACCES, one that can't be reached EIO, soon; open files and unmounting need neither. The journal has every use.
func TestRemoteFaults(t *testing.T) {
	home, server, e := onSocket(t)
	v := volumeAt(t, e, "--kms-cache", "none")
	write(t, v.path("open"), []byte("text"))
	write(t, v.path("other"), []byte("other text"))
	v.remount(t)
	home.kmsfs(t, "key", "disable", e.key)
	_, err := os.ReadFile(v.path("other"))
	wantErrno(t, err, unix.EACCES)
	home.kmsfs(t, "key", "enable", e.key)
	wantContent(t, v.path("other"), []byte("other text"))

	v.remount(t)
	open, err := os.Open(v.path("open"))
	must(t, err)
	unreachable := func(why string) {
		soon(t, "opening while the service "+why, func() {
			_, err := os.ReadFile(v.path("other"))
			wantErrno(t, err, unix.EIO)
		})
	}
	must(t, server.cmd.Process.Signal(unix.SIGSTOP))
	unreachable("doesn't answer")
	must(t, server.cmd.Process.Signal(unix.SIGCONT))
	wantContent(t, v.path("other"), []byte("other text"))
	server.stop(t)
	unreachable("is down")
	got := make([]byte, 4)
	if _, err := open.ReadAt(got, 0); err != nil || string(got) != "text" {
		t.Errorf("open file: %q, %v", got, err)
	}
	must(t, open.Close())
	soon(t, "unmounting without the service", func() { v.umount(t) })

	codes := map[string]int{}
	for _, record := range v.journal(t) {
		codes[record.EventName+" "+record.ErrorCode]++
		if record.EventName == "Decrypt" && record.UserIdentity.UserName == "" {
			t.Errorf("nobody in %+v", record)
		}
	}
	for _, want := range []string{"GenerateDataKey ", "Decrypt ", "Decrypt DisabledException", "Decrypt ServiceUnreachable", "VolumeMounted ", "VolumeUnmounted "} {
		if codes[want] == 0 {
			t.Errorf("the journal has no %q: %v", want, codes)
		}
	}
}

// Branch keys spare the service a call for each file. The journal has every use all the same, and what the service forbids takes hold in time.
func TestBranchKeys(t *testing.T) {
	home, _, e := onSocket(t)
	const files = 300
	calls := func() (n int) {
		text, err := os.ReadFile(filepath.Join(home.home, "audit", "current.jsonl"))
		must(t, err)
		for line := range bytes.Lines(text) {
			var r journaled
			must(t, json.Unmarshal(line, &r))
			if r.EventName == "Decrypt" || r.EventName == "GenerateDataKey" || r.EventName == "ReEncrypt" {
				n++
			}
		}
		return n
	}
	v := volumeAt(t, e, "--kms-cache", "1h")
	before := calls()
	name := func(i int) string { return v.path("d", fmt.Sprint(i)) }
	must(t, os.Mkdir(v.path("d"), 0o755))
	for i := range files {
		write(t, name(i), []byte(fmt.Sprint("content ", i)))
	}
	must(t, os.Rename(name(0), v.path("moved")))
	v.remount(t)
	for i := 1; i < files; i++ {
		wantContent(t, name(i), []byte(fmt.Sprint("content ", i)))
	}
	wantContent(t, v.path("moved"), []byte("content 0"))
	// A branch key; after the remount the metadata key, that branch key, and another, under which the renamed file's key is wrapped anew; and in each mount
	// one to see whether files that are open may still be used.
	if n := calls() - before; n > 6 {
		t.Errorf("%d files took %d calls, want at most 6", files, n)
	}
	used := map[string]int{}
	for _, record := range v.journal(t) {
		if record.AdditionalEventData.BranchKey != "" {
			used[record.EventName]++
		}
	}
	if used["GenerateDataKey"] != files || used["Decrypt"] < files {
		t.Errorf("the journal has %v of %d files", used, files)
	}

	v.umount(t)
	v.mount(t, "--kms", e.url, "--kms-cache", "1s")
	wantContent(t, name(1), []byte("content 1"))
	home.kmsfs(t, "key", "disable", e.key)
	await(t, "the end of the branch key", func() bool {
		_, err := os.ReadFile(name(2))
		return errors.Is(err, unix.EACCES)
	})
	home.kmsfs(t, "key", "enable", e.key)
	wantContent(t, name(2), []byte("content 2"))

	v.umount(t)
	v.mount(t, "--kms", e.url, "--kms-cache", "none")
	wantContent(t, name(3), []byte("content 3"))
	must(t, os.Rename(name(3), v.path("moved3")))
	wantContent(t, v.path("moved3"), []byte("content 3"))
	v.umount(t)
	v.mount(t, "--kms", e.url)
	wantContent(t, v.path("moved3"), []byte("content 3"))
}

// journaled is what tests read of a journal's record.
type journaled struct {
	EventName, ErrorCode string
	UserIdentity         struct{ UserName string }
	AdditionalEventData  struct{ BranchKey string }
}

// journal reads the journal of a volume whose keys are elsewhere.
func (v *volume) journal(t *testing.T) (records []journaled) {
	t.Helper()
	names, err := filepath.Glob(v.home + "-remote/*.jsonl")
	if err != nil || len(names) != 1 {
		t.Fatalf("journals: %q, %v", names, err)
	}
	text, err := os.ReadFile(names[0])
	must(t, err)
	for line := range bytes.Lines(text) {
		var r journaled
		must(t, json.Unmarshal(line, &r))
		records = append(records, r)
	}
	return records
}

// A user without a home of his own mounts a volume under a key that is lent to him by a grant, and loses the files with the grant.
func TestLentKey(t *testing.T) {
	home, _, e := onSocket(t)
	socket := strings.TrimPrefix(e.url, "unix:")
	must(t, os.Chmod(filepath.Dir(socket), 0o755))
	dir := tempDir(t)
	must(t, os.Chown(dir, nobody, nobody))
	must(t, os.Chmod(dir, 0o755))
	volume, point := filepath.Join(dir, "volume"), filepath.Join(dir, "clear")
	as := func(args ...string) (string, error) {
		return asNobody(dir, "env", append([]string{"HOME=" + dir}, args...)...)
	}

	out, err := as(binary, "init", "--kms", e.url, "--key", e.key, volume)
	if err == nil || !strings.Contains(out, "user/nobody is not authorized to perform: kms:DescribeKey") || !strings.Contains(out, "or a grant, allow it") {
		t.Fatalf("without a grant: %v, %s", err, out)
	}
	home.kmsfs(t, "grant", "create", "--key", e.key, "--grantee", "user:nobody", "--operations", "DescribeKey,GenerateDataKey,Decrypt,ReEncryptFrom,ReEncryptTo")
	for _, command := range [][]string{
		{binary, "init", "--kms", e.url, "--key", e.key, volume},
		{"mkdir", point},
		{binary, "mount", "--kms", e.url, "--kms-cache", "1s", volume, point},
		{"sh", "-c", "echo mine >" + point + "/file"},
	} {
		if _, err := as(command...); err != nil {
			t.Fatal(err)
		}
	}
	defer func() {
		if _, err := as(binary, "umount", point); err != nil {
			t.Error(err)
		}
	}()
	var grants struct{ Grants []struct{ GrantId string } }
	must(t, json.Unmarshal([]byte(home.kmsfs(t, "grant", "list", "--key", e.key, "--json")), &grants))
	home.kmsfs(t, "grant", "revoke", "--key", e.key, grants.Grants[0].GrantId)
	await(t, "the end of what was lent", func() bool {
		out, err := as("cat", point+"/file")
		return err != nil && strings.Contains(out, "Permission denied")
	})
}

// URLs that could send keys in the clear, or nowhere, are refused.
func TestRemoteURLs(t *testing.T) {
	v := prepareVolume(t)
	for _, url := range []string{"http://kms.example.com", "ftp://x", "unix:relative", "aws:", "https://", "https://user:pw@host", "https://host/path", "nonsense"} {
		v.refused(t, []string{"init", "--kms", url, "--key", "alias/x", v.dir}, "key service URL")
	}
}
