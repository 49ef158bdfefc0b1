package integration

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// server is a running "kmsfs serve".
type server struct {
	cmd *exec.Cmd
	// addresses are what it says to serve, in this order: sockets from systemd, TCP addresses, Unix sockets.
	addresses []string
	// said is what it says after that.
	said chan string
}

// serve runs "kmsfs serve" until the test ends, and returns when it tells systemd that it is ready. With inherited, it gets that listener from systemd.
func (v *volume) serve(t testing.TB, inherited *net.TCPListener, options ...string) *server {
	t.Helper()
	return v.serveBy(t, `exec "$0" serve "$@"`, inherited, options...)
}

// serveBy does so by a shell's script.
func (v *volume) serveBy(t testing.TB, script string, inherited *net.TCPListener, options ...string) *server {
	t.Helper()
	notify := filepath.Join(tempDir(t), "notify")
	ready, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() { must(t, ready.Close()) })
	if inherited != nil {
		script = `export LISTEN_PID=$$ LISTEN_FDS=1; ` + script
	}
	s := &server{cmd: exec.Command("sh", append([]string{"-c", script, binary}, options...)...), said: make(chan string, 100)}
	s.cmd.Env = append(v.environment(), "NOTIFY_SOCKET="+notify)
	if inherited != nil {
		f, err := inherited.File()
		must(t, err)
		defer f.Close()
		s.cmd.ExtraFiles = []*os.File{f}
	}
	stderr, err := s.cmd.StderrPipe()
	must(t, err)
	must(t, s.cmd.Start())
	go func() {
		for lines := bufio.NewScanner(stderr); lines.Scan(); {
			s.said <- lines.Text()
		}
		close(s.said)
	}()
	t.Cleanup(func() { s.stop(t) })
	must(t, ready.SetReadDeadline(time.Now().Add(time.Minute)))
	message := make([]byte, 100)
	n, err := ready.Read(message)
	if err != nil || string(message[:n]) != "READY=1" {
		t.Fatalf("kmsfs serve is not ready: %q, %v", message[:n], err)
	}
	for len(s.addresses) < listeners(inherited, options) {
		line, ok := <-s.said
		if !ok {
			t.Fatal("kmsfs serve has ended")
		}
		if _, address, ok := strings.Cut(line, "msg=serving address="); ok {
			s.addresses = append(s.addresses, address)
		}
	}
	return s
}

// listeners is how many there are besides the home's own.
func listeners(inherited *net.TCPListener, options []string) (n int) {
	if inherited != nil {
		n++
	}
	for _, option := range options {
		if option == "--listen" || option == "--socket" {
			n++
		}
	}
	return n
}

// stop ends the server in an orderly way.
func (s *server) stop(t testing.TB) {
	if s.cmd.ProcessState != nil {
		return
	}
	must(t, s.cmd.Process.Signal(unix.SIGTERM))
	for line := range s.said {
		t.Log(line)
	}
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("kmsfs serve: %v", err)
	}
}

// overSocket connects to a Unix socket whatever the URL.
func overSocket(path string) *http.Transport {
	return &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
}

// post sends an empty request by a Unix socket, and prints the answer.
func post(args []string) int {
	client := &http.Client{Transport: overSocket(args[0])}
	request, err := http.NewRequest(http.MethodPost, "http://kmsfs/", strings.NewReader("{}"))
	if err == nil {
		request.Header.Set("Content-Type", "application/x-amz-json-1.1")
		request.Header.Set("X-Amz-Target", "TrentService."+args[1])
		var response *http.Response
		if response, err = client.Do(request); err == nil {
			defer response.Body.Close()
			_, err = io.Copy(os.Stdout, response.Body)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// certificate makes a certificate for loopback addresses, in files, and returns who trusts it.
func certificate(t testing.TB) (certFile, keyFile string, roots *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "kmsfs test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	must(t, err)
	dir := tempDir(t)
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	write(t, certFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	write(t, keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))
	parsed, err := x509.ParseCertificate(der)
	must(t, err)
	roots = x509.NewCertPool()
	roots.AddCert(parsed)
	return certFile, keyFile, roots
}

// accessKey is what "kmsfs credential create --json" prints.
type accessKey struct{ UserName, AccessKeyId, SecretAccessKey string }

func (v *volume) accessKey(t testing.TB, options ...string) accessKey {
	t.Helper()
	var made struct{ AccessKey accessKey }
	must(t, json.Unmarshal([]byte(v.kmsfs(t, append([]string{"credential", "create", "--json"}, options...)...)), &made))
	return made.AccessKey
}

// What a key service on a network does besides its operations: TLS, health, sockets for other users, refusals at the start.
func TestServe(t *testing.T) {
	v := newVolume(t)
	certFile, keyFile, roots := certificate(t)
	socket := filepath.Join(tempDir(t), "kms.sock")
	must(t, os.Chmod(filepath.Dir(socket), 0o755))

	v.refused(t, []string{"serve", "--listen", "0.0.0.0:0"}, "plain HTTP is for loopback addresses only")
	v.refused(t, []string{"serve", "--listen", "127.0.0.1:0", "--tls-cert", keyFile, "--tls-key", keyFile}, keyFile)

	s := v.serve(t, nil, "--listen", "127.0.0.1:0", "--socket", socket, "--tls-cert", certFile, "--tls-key", keyFile)
	if len(s.addresses) != 2 || s.addresses[1] != socket {
		t.Fatalf("serving %q", s.addresses)
	}
	v.refused(t, []string{"serve"}, "another process has the key service home open")

	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	defer client.CloseIdleConnections()
	response, err := client.Get("https://" + s.addresses[0] + "/health")
	must(t, err)
	body, err := io.ReadAll(response.Body)
	response.Body.Close()
	if err != nil || response.StatusCode != 200 || string(body) != `{"status":"healthy"}` || response.TLS.Version != tls.VersionTLS13 {
		t.Errorf("health: %d %q, TLS %x, %v", response.StatusCode, body, response.TLS.Version, err)
	}
	if _, err := tls.Dial("tcp", s.addresses[0], &tls.Config{RootCAs: roots, MaxVersion: tls.VersionTLS12}); err == nil {
		t.Error("TLS 1.2 is accepted")
	}

	// A new certificate is used after SIGHUP, and one that can't be read is not.
	newCert, newKey, newRoots := certificate(t)
	for from, to := range map[string]string{newCert: certFile, newKey: keyFile} {
		content, err := os.ReadFile(from)
		must(t, err)
		write(t, to, content)
	}
	must(t, s.cmd.Process.Signal(unix.SIGHUP))
	if line := <-s.said; !strings.Contains(line, "certificate read anew") {
		t.Errorf("after SIGHUP: %s", line)
	}
	dial := func() {
		t.Helper()
		conn, err := tls.Dial("tcp", s.addresses[0], &tls.Config{RootCAs: newRoots})
		must(t, err)
		conn.Close()
	}
	dial()
	write(t, certFile, []byte("no certificate"))
	must(t, s.cmd.Process.Signal(unix.SIGHUP))
	if line := <-s.said; !strings.Contains(line, "the old certificate stays in use") {
		t.Errorf("after SIGHUP: %s", line)
	}
	dial()

	// Others come by the socket, as whom they are, and may do nothing.
	out, err := asNobody("/", "env", roleVariable+"=post", testBinary, socket, "ListKeys")
	must(t, err)
	if !strings.Contains(out, `"__type":"AccessDeniedException"`) || !strings.Contains(out, "user/nobody is not authorized to perform: kms:ListKeys") {
		t.Errorf("nobody lists keys: %s", out)
	}
	s.stop(t)
	if _, err := os.Lstat(socket); err == nil {
		t.Error("the socket is left behind")
	}
}

// A truncated request, and one that never ends, don't hold up the end of the service.
func TestServeStops(t *testing.T) {
	v := newVolume(t)
	s := v.serve(t, nil, "--listen", "127.0.0.1:0")
	for _, text := range []string{"", "POST / HTTP/1.1\r\nHost:", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"} {
		conn, err := net.Dial("tcp", s.addresses[0])
		must(t, err)
		defer conn.Close()
		_, err = io.Copy(conn, bytes.NewReader([]byte(text)))
		must(t, err)
	}
	soon(t, "the end of kmsfs serve", func() { s.stop(t) })
}
