package home

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"sync/atomic"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"kmsfs/cmd/kmsfs/internal/cli"
	"kmsfs/cmd/kmsfs/internal/session"
)

type serveOptions struct {
	session.Options
	listen, sockets   []string
	tlsCert, tlsKey   string
	reloadCertificate func() error // nil without TLS
}

var errPlainHTTP = errors.New("plain HTTP is for loopback addresses only: give --tls-cert and --tls-key")

// Serve is the command "kmsfs serve".
func Serve() *cobra.Command {
	var o serveOptions
	c := &cobra.Command{
		Use: "serve [OPTIONS]", GroupID: cli.KeyService, Short: "Serve a key service without a mount",
		Long: `
Opens the key service home and serves AWS KMS's protocol until SIGTERM or
SIGINT: on the home's own socket; on sockets that all users can reach
(--socket), where the kernel names the caller; and on TCP addresses (--listen),
where calls are signed with access keys (kmsfs credential create). TCP is TLS
1.3, or plain HTTP on loopback addresses. SIGHUP reads the certificate again.

GET /health says whether the service works. Under systemd, the service announces
when it is ready (Type=notify), and serves the sockets that systemd passes.`,
		Example: `
  kmsfs serve --listen 127.0.0.1:7600
  kmsfs serve --listen :7600 --tls-cert server.pem --tls-key server.key
  aws kms --endpoint-url http://127.0.0.1:7600 list-keys`,
		Args: cli.None,
		RunE: func(*cobra.Command, []string) error { return o.run() },
	}
	flags := c.Flags()
	flags.StringArrayVar(&o.listen, "listen", nil, "serve a TCP `ADDRESS`, HOST:PORT")
	flags.StringArrayVar(&o.sockets, "socket", nil, "serve a Unix socket at a `PATH`, for all users")
	flags.StringVar(&o.tlsCert, "tls-cert", "", "certificate chain, a `FILE` in PEM")
	flags.StringVar(&o.tlsKey, "tls-key", "", "private key, a `FILE` in PEM")
	o.Declare(flags)
	return c
}

func (o *serveOptions) run() (err error) {
	if (o.tlsCert == "") != (o.tlsKey == "") {
		return cli.Usagef("--tls-cert and --tls-key go together")
	}
	if err := o.Secret.Complete(); err != nil {
		return err
	}
	dir, err := session.HomeDir(o.Home)
	if err != nil {
		return err
	}
	listeners, err := o.listeners()
	if err != nil {
		return err
	}
	handedOver := false
	defer func() {
		if !handedOver {
			closeAll(listeners)
		}
	}()
	if err := session.Harden(); err != nil {
		return err
	}
	secret, err := o.Secret.Read(dir)
	if err != nil {
		return err
	}
	home, err := session.Open(dir, secret)
	secret.Wipe()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, home.Close()) }()
	if home.Own == nil {
		return fmt.Errorf("%s: another process has the key service home open, and serves it", dir)
	}
	handedOver = true
	if err := home.Own.Serve(listeners...); err != nil {
		return err
	}
	return o.untilSignal(slog.New(slog.NewTextHandler(os.Stderr, nil)), listeners)
}

// untilSignal announces that the service is ready, and returns when a signal ends it.
func (o *serveOptions) untilSignal(log *slog.Logger, listeners []net.Listener) error {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT, unix.SIGHUP)
	for _, l := range listeners {
		log.Info("serving", "address", l.Addr().String())
	}
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	for received := range signals {
		if received != unix.SIGHUP {
			break
		}
		if o.reloadCertificate == nil {
			continue
		}
		if err := o.reloadCertificate(); err != nil {
			log.Error("the old certificate stays in use", "error", err)
		} else {
			log.Info("certificate read anew", "file", o.tlsCert)
		}
	}
	if _, err := daemon.SdNotify(false, daemon.SdNotifyStopping); err != nil {
		log.Warn("can't notify systemd", "error", err)
	}
	return nil
}

// listeners opens all sockets to serve, apart from the home's.
func (o *serveOptions) listeners() (all []net.Listener, err error) {
	defer func() {
		if err != nil {
			closeAll(all)
			all = nil
		}
	}()
	config, err := o.tlsConfig()
	if err != nil {
		return nil, err
	}
	passed, err := activation.Listeners()
	if err != nil {
		return nil, fmt.Errorf("take systemd's sockets: %w", err)
	}
	for _, l := range passed {
		all = append(all, l)
		if all[len(all)-1], err = secured(l, config); err != nil {
			return all, err
		}
	}
	for _, address := range o.listen {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return all, err
		}
		all = append(all, l)
		if all[len(all)-1], err = secured(l, config); err != nil {
			return all, err
		}
	}
	for _, path := range o.sockets {
		l, err := listenForAll(path)
		if err != nil {
			return all, err
		}
		all = append(all, l)
	}
	return all, nil
}

// secured adds TLS to a listener, unless it is a Unix socket.
func secured(l net.Listener, config *tls.Config) (net.Listener, error) {
	address, ok := l.Addr().(*net.TCPAddr)
	switch {
	case !ok:
		return l, nil
	case config != nil:
		return tls.NewListener(l, config), nil
	case !address.IP.IsLoopback():
		return l, fmt.Errorf("%s: %w", address, errPlainHTTP)
	}
	return l, nil
}

// listenForAll makes a socket that all users may connect to. It replaces one that no process
// listens on.
func listenForAll(path string) (net.Listener, error) {
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("%s: another process listens there already", path)
	} else if errors.Is(err, unix.ECONNREFUSED) {
		if err := os.Remove(path); err != nil {
			return nil, session.PathError(err)
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o666); err != nil {
		return nil, errors.Join(session.PathError(err), l.Close())
	}
	return l, nil
}

// tlsConfig returns the configuration with the certificate, and sets reloadCertificate. It returns
// nil if no certificate is named.
func (o *serveOptions) tlsConfig() (*tls.Config, error) {
	if o.tlsCert == "" {
		return nil, nil
	}
	var current atomic.Pointer[tls.Certificate]
	o.reloadCertificate = func() error {
		certificate, err := tls.LoadX509KeyPair(o.tlsCert, o.tlsKey)
		if err != nil {
			return fmt.Errorf("read the certificate %s and its key: %w", o.tlsCert, session.PathError(err))
		}
		current.Store(&certificate)
		return nil
	}
	if err := o.reloadCertificate(); err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		NextProtos:     []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return current.Load(), nil },
	}, nil
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		l.Close()
	}
}
