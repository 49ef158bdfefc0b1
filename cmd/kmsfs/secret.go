package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"kmsfs/keyservice"
	"kmsfs/keyservice/sealer"
)

var (
	errNoPassphrase   = errors.New("the key service home needs a passphrase, and there is no terminal to ask for it")
	errNoKeyFile      = errors.New("the key service home needs a key file")
	errKeyFileMissing = errors.New("no such key file")
	errNoCredential   = errors.New("the key service home needs the systemd credential " + credentialName)
	errEmpty          = errors.New("the passphrase is empty")
	errDifferent      = errors.New("the two passphrases differ")
	errLongSecret     = fmt.Errorf("the passphrase has more than %d bytes", maxPassphrase)
	errHolderStopped  = errors.New("the process that had the key service home open has just ended")
)

const (
	credentialName = "kmsfs"

	// maxPassphrase bounds passphrases in bytes, far above what anybody types: a longer file is a wrong one.
	maxPassphrase = 4096
)

// secretOptions say where what opens the home is; at most one is set.
type secretOptions struct {
	PassphraseFile, KeyFile string
}

func (o *secretOptions) declare(flags *pflag.FlagSet) {
	flags.StringVar(&o.PassphraseFile, "passphrase-file", "", "`FILE` whose first line is the passphrase of the key service home")
	flags.StringVar(&o.KeyFile, "key-file", "", "key `FILE` of the key service home")
}

// complete takes from the environment what the options leave open.
func (o *secretOptions) complete() error {
	if o.PassphraseFile != "" && o.KeyFile != "" {
		return usagef("", "a passphrase file and a key file are given: want one of them")
	}
	if o.PassphraseFile != "" || o.KeyFile != "" {
		return nil
	}
	o.PassphraseFile, o.KeyFile = os.Getenv("KMSFS_PASSPHRASE_FILE"), os.Getenv("KMSFS_KEY_FILE")
	if o.PassphraseFile != "" && o.KeyFile != "" {
		return usagef("", "KMSFS_PASSPHRASE_FILE and KMSFS_KEY_FILE are set: want one of them")
	}
	return nil
}

// secret is what opens a home. It reaches the daemon as JSON.
type secret struct {
	// Kind is a kind of sealer.
	Kind string
	// Passphrase is that of the passphrase sealer, Path the other sealers' file.
	Passphrase []byte
	Path       string
}

// wipe forgets the passphrase. It does nothing to a nil secret.
func (s *secret) wipe() {
	if s != nil {
		clear(s.Passphrase)
	}
}

// String names the secret without telling it.
func (s *secret) String() string {
	if s.Path != "" {
		return "key file " + s.Path
	}
	return "passphrase"
}

// check finds out whether the file is there, before anything else is done.
func (s *secret) check() error {
	if s.Path == "" {
		return nil
	}
	_, err := os.Stat(s.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: %w", s.Path, errKeyFileMissing)
	case err != nil:
		return fmt.Errorf("key file: %w", pathError(err))
	}
	return nil
}

func (s *secret) sealer() (sealer.Sealer, error) {
	switch s.Kind {
	case sealer.KindPassphrase:
		return sealer.NewPassphrase(s.Passphrase)
	case sealer.KindKeyFile:
		return sealer.NewKeyFile(s.Path)
	case sealer.KindCredential:
		return sealer.NewCredential(credentialName)
	}
	return nil, fmt.Errorf("unknown kind of sealer %q", s.Kind)
}

// read returns what opens the home, asking for it if need be. While another process has the home open and lets this one in, it is what is given
// without asking, for the case that that process is just ending, and may be nil.
func (o secretOptions) read(home string) (*secret, error) {
	if err := harden(); err != nil {
		return nil, err
	}
	kind, err := keyservice.SealerKind(home)
	if err != nil {
		return nil, err
	}
	s, err := o.given(kind)
	if s != nil && err == nil {
		err = s.check()
	}
	if isServed(home) {
		if err != nil {
			s.wipe()
			return nil, nil
		}
		return s, nil
	}
	if s != nil || err != nil {
		return s, err
	}
	switch kind {
	case sealer.KindKeyFile:
		return nil, errNoKeyFile
	case sealer.KindCredential:
		return nil, errNoCredential
	}
	passphrase, err := ask("Passphrase of the key service home " + home + ": ")
	if err != nil {
		return nil, err
	}
	return &secret{Kind: sealer.KindPassphrase, Passphrase: passphrase}, nil
}

// readNew returns what a new home is to be sealed with, asking for it if need be.
func (o secretOptions) readNew() (*secret, error) {
	if s, err := o.given(sealer.KindCredential); s != nil || err != nil {
		return s, err
	}
	first, err := ask("New passphrase for the key service home: ")
	if err != nil {
		return nil, err
	}
	second, err := ask("The same again: ")
	if err != nil {
		return nil, err
	}
	defer clear(second)
	if !bytes.Equal(first, second) {
		clear(first)
		return nil, errDifferent
	}
	return &secret{Kind: sealer.KindPassphrase, Passphrase: first}, nil
}

// given returns the secret that the options name, or else the systemd credential, used as that kind of sealer; nil if there
// is neither.
func (o secretOptions) given(credentialKind string) (*secret, error) {
	switch {
	case o.PassphraseFile != "":
		passphrase, err := readPassphrase(o.PassphraseFile)
		return &secret{Kind: sealer.KindPassphrase, Passphrase: passphrase}, err
	case o.KeyFile != "":
		return &secret{Kind: sealer.KindKeyFile, Path: o.KeyFile}, nil
	}
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return nil, nil
	}
	path := filepath.Join(dir, credentialName)
	if _, err := os.Stat(path); err != nil {
		return nil, nil
	}
	if credentialKind != sealer.KindPassphrase {
		return &secret{Kind: credentialKind, Path: path}, nil
	}
	passphrase, err := readPassphrase(path)
	return &secret{Kind: credentialKind, Passphrase: passphrase}, err
}

// readPassphrase returns the file's first line.
func readPassphrase(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("passphrase file: %w", pathError(err))
	}
	defer f.Close()
	text := make([]byte, maxPassphrase+2) // and its line end
	n, err := io.ReadFull(f, text)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("passphrase file: %w", pathError(err))
	}
	line, _, _ := bytes.Cut(text[:n], []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	if err := checkPassphrase(line); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return line, nil
}

func checkPassphrase(passphrase []byte) error {
	switch {
	case len(passphrase) == 0:
		return errEmpty
	case len(passphrase) > maxPassphrase:
		return errLongSecret
	}
	return nil
}

// ask reads a passphrase from the terminal. A signal meanwhile ends the program with the terminal as it was.
func ask(prompt string) ([]byte, error) {
	fd := int(os.Stdin.Fd())
	state, err := term.GetState(fd)
	if err != nil {
		return nil, errNoPassphrase
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer signal.Stop(signals)
	answered := make(chan struct{})
	defer close(answered)
	go func() {
		select {
		case got := <-signals:
			_ = term.Restore(fd, state) // the program ends, whatever comes of it
			fmt.Fprintln(os.Stderr)
			signal.Reset(got)
			_ = unix.Kill(os.Getpid(), got.(unix.Signal))
		case <-answered:
		}
	}()
	fmt.Fprint(os.Stderr, prompt)
	passphrase, err := term.ReadPassword(fd)
	fmt.Fprintln(os.Stderr)
	if err != nil {
		return nil, fmt.Errorf("read the passphrase: %w", err)
	}
	return passphrase, checkPassphrase(passphrase)
}
