package main

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
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

type serveOptions struct {
	home              string
	secret            secretOptions
	listen, sockets   []string
	tlsCert, tlsKey   string
	reloadCertificate func() error // nil without TLS
}

var errPlainHTTP = errors.New("plain HTTP is for loopback addresses only: give --tls-cert and --tls-key")

func serveCommand() command {
	return command{
		name: "serve", arguments: "[OPTIONS]", summary: "serve a key service without a mount",
		details: `
Opens the key service home and serves AWS KMS's protocol until SIGTERM or SIGINT: on the home's own socket; on sockets that other users
reach (--socket), where the kernel says who calls; and on TCP addresses (--listen), where calls are signed with access keys
(kmsfs credential create). TCP is TLS 1.3, or plain HTTP on loopback addresses. SIGHUP reads the certificate anew.

GET /health says whether the service works. Under systemd it says when it is ready (Type=notify), and serves the sockets that systemd passes to it.

Examples:
  kmsfs serve --listen 127.0.0.1:7600
  kmsfs serve --listen :7600 --tls-cert server.pem --tls-key server.key --socket /run/kmsfs.sock
  aws kms --endpoint-url http://127.0.0.1:7600 list-keys`,
		prepare: func(flags *pflag.FlagSet) func([]string) error {
			var o serveOptions
			flags.StringArrayVar(&o.listen, "listen", nil, "TCP `ADDRESS` to serve, HOST:PORT")
			flags.StringArrayVar(&o.sockets, "socket", nil, "`PATH` of a Unix socket to serve, for all users")
			flags.StringVar(&o.tlsCert, "tls-cert", "", "certificate chain `FILE` in PEM")
			flags.StringVar(&o.tlsKey, "tls-key", "", "private key `FILE` in PEM")
			o.secret.declare(flags)
			declareHome(flags, &o.home)
			return o.run
		},
	}
}

func (o *serveOptions) run(args []string) (err error) {
	if len(args) > 0 {
		return usagef("serve", "want no arguments, got %d", len(args))
	}
	if (o.tlsCert == "") != (o.tlsKey == "") {
		return usagef("serve", "--tls-cert and --tls-key go together")
	}
	if err := o.secret.complete(); err != nil {
		return err
	}
	dir, err := homeDir(o.home)
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
	if err := harden(); err != nil {
		return err
	}
	secret, err := o.secret.read(dir)
	if err != nil {
		return err
	}
	home, err := openHome(dir, secret)
	secret.wipe()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, home.close()) }()
	if home.service == nil {
		return fmt.Errorf("%s: another process has the key service home open, and serves it", dir)
	}
	handedOver = true
	if err := home.service.Serve(listeners...); err != nil {
		return err
	}
	return o.untilSignal(foregroundLog(), listeners)
}

// untilSignal says that the service is ready, and returns when it is to end.
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

// listeners opens everything that is to be served, besides the home's socket.
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

// secured is a listener with TLS if it is not a Unix socket.
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

// listenForAll makes a socket that all users may connect to, in place of one that nobody listens on.
func listenForAll(path string) (net.Listener, error) {
	if conn, err := net.Dial("unix", path); err == nil {
		conn.Close()
		return nil, fmt.Errorf("%s: somebody listens there already", path)
	} else if errors.Is(err, unix.ECONNREFUSED) {
		if err := os.Remove(path); err != nil {
			return nil, pathError(err)
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o666); err != nil {
		return nil, errors.Join(pathError(err), l.Close())
	}
	return l, nil
}

// tlsConfig has the certificate, and makes reloadCertificate; nil if none is named.
func (o *serveOptions) tlsConfig() (*tls.Config, error) {
	if o.tlsCert == "" {
		return nil, nil
	}
	var current atomic.Pointer[tls.Certificate]
	o.reloadCertificate = func() error {
		certificate, err := tls.LoadX509KeyPair(o.tlsCert, o.tlsKey)
		if err != nil {
			return fmt.Errorf("read the certificate %s and its key: %w", o.tlsCert, pathError(err))
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
