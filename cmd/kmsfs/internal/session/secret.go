package session

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"unicode/utf8"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"kmsfs/cmd/kmsfs/internal/cli"
	keyhome "kmsfs/keyservice/home"
	"kmsfs/keyservice/sealer"
)

var (
	errNoPassphrase = cli.Hinted("the key service home needs a passphrase, and there is no terminal to ask for it",
		"give --passphrase-file or KMSFS_PASSPHRASE_FILE, or start kmsfs on a terminal")
	errNoKeyFile = cli.Hinted("the key service home needs a key file",
		"give --key-file or KMSFS_KEY_FILE")
	errKeyFileMissing = cli.Hinted("no such key file",
		"name the one that the key service home was made with")
	errNoCredential = cli.Hinted("the key service home needs the systemd credential "+credentialName,
		"start kmsfs from a unit with LoadCredential="+credentialName+":FILE")
	errEmpty = cli.Hinted("the passphrase is empty",
		"it takes at least one character, in a file on the first line")
	errHolderStopped = cli.Hinted("the process that had the key service home open has just ended",
		"run the command again")
	errDifferent  = errors.New("the two passphrases differ")
	errLongSecret = fmt.Errorf("the passphrase has more than %d bytes", maxPassphrase)
)

const (
	credentialName = "kmsfs"

	// maxPassphrase bounds passphrases in bytes. Nobody types that much: a longer file is a wrong
	// one.
	maxPassphrase = 4096
	// shortPassphrase is the number of characters below which a new passphrase draws a warning.
	shortPassphrase = 12
)

// SecretOptions name a file with the home's secret. At most one is set.
type SecretOptions struct {
	PassphraseFile, KeyFile string
}

// Declare declares the options.
func (o *SecretOptions) Declare(flags *pflag.FlagSet) {
	flags.StringVar(&o.PassphraseFile, "passphrase-file", "", "read the passphrase of the home from a `FILE`")
	flags.StringVar(&o.KeyFile, "key-file", "", "open the home with a key `FILE`")
}

// Complete falls back on the environment where no option is set.
func (o *SecretOptions) Complete() error {
	if o.PassphraseFile != "" && o.KeyFile != "" {
		return cli.Usagef("a passphrase file and a key file are given: want one of them")
	}
	if o.PassphraseFile != "" || o.KeyFile != "" {
		return nil
	}
	o.PassphraseFile, o.KeyFile = os.Getenv("KMSFS_PASSPHRASE_FILE"), os.Getenv("KMSFS_KEY_FILE")
	if o.PassphraseFile != "" && o.KeyFile != "" {
		return cli.Usagef("KMSFS_PASSPHRASE_FILE and KMSFS_KEY_FILE are set: want one of them")
	}
	return nil
}

// Secret is what opens a home. It reaches the daemon as JSON.
type Secret struct {
	// Kind is a kind of sealer.
	Kind string
	// Passphrase is for the passphrase sealer, Path is the file of the others.
	Passphrase []byte
	Path       string
}

// Wipe overwrites the passphrase. It does nothing to a nil secret.
func (s *Secret) Wipe() {
	if s != nil {
		clear(s.Passphrase)
	}
}

// String names the kind of secret and its file.
func (s *Secret) String() string {
	if s.Path != "" {
		return "key file " + s.Path
	}
	return "passphrase"
}

// check fails if there is no such file, before anything else is done.
func (s *Secret) check() error {
	if s.Path == "" {
		return nil
	}
	_, err := os.Stat(s.Path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: %w", s.Path, errKeyFileMissing)
	case err != nil:
		return fmt.Errorf("key file: %w", PathError(err))
	}
	return nil
}

// Sealer is what seals the home's root key with the secret.
func (s *Secret) Sealer() (sealer.Sealer, error) {
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

// Read returns what opens the home, and asks for it if need be. While another process serves the
// home, no secret is needed: Read then does not ask, and may return nil. What is given without
// asking is returned for the case that the other process is about to end.
func (o SecretOptions) Read(home string) (*Secret, error) {
	if err := Harden(); err != nil {
		return nil, err
	}
	kind, err := keyhome.SealerKind(home)
	if err != nil {
		return nil, err
	}
	s, err := o.given(kind)
	if s != nil && err == nil {
		err = s.check()
	}
	if IsServed(home) {
		if err != nil {
			s.Wipe()
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
	return o.ReadFor("the key service home " + home)
}

// ReadNew returns the secret of a new home, and asks for a passphrase if need be.
func (o SecretOptions) ReadNew() (*Secret, error) {
	s, err := o.given(sealer.KindCredential)
	if s == nil && err == nil {
		s, err = askNew()
	}
	if err == nil && s.Kind == sealer.KindPassphrase && utf8.RuneCount(s.Passphrase) < shortPassphrase {
		cli.Warn("warning: the passphrase has fewer than %d characters, and may be guessed", shortPassphrase)
	}
	return s, err
}

// askNew asks for a new passphrase, twice.
func askNew() (*Secret, error) {
	first, err := ask("New passphrase for the key service home: ")
	if err != nil {
		return nil, err
	}
	second, err := ask("The same again: ")
	defer clear(second)
	if err == nil && !bytes.Equal(first, second) {
		err = errDifferent
	}
	if err != nil {
		clear(first)
		return nil, err
	}
	return &Secret{Kind: sealer.KindPassphrase, Passphrase: first}, nil
}

// ReadFor returns the secret that is given, or else asks for the passphrase of what is named.
func (o SecretOptions) ReadFor(what string) (*Secret, error) {
	s, err := o.given(sealer.KindCredential)
	if s != nil || err != nil {
		return s, err
	}
	passphrase, err := ask("Passphrase of " + what + ": ")
	if err != nil {
		return nil, err
	}
	return &Secret{Kind: sealer.KindPassphrase, Passphrase: passphrase}, nil
}

// given returns the secret that the options name, or else the systemd credential, as that kind of
// sealer. It returns nil if there is neither.
func (o SecretOptions) given(credentialKind string) (*Secret, error) {
	switch {
	case o.PassphraseFile != "":
		passphrase, err := readPassphrase(o.PassphraseFile)
		return &Secret{Kind: sealer.KindPassphrase, Passphrase: passphrase}, err
	case o.KeyFile != "":
		return &Secret{Kind: sealer.KindKeyFile, Path: o.KeyFile}, nil
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
		return &Secret{Kind: credentialKind, Path: path}, nil
	}
	passphrase, err := readPassphrase(path)
	return &Secret{Kind: credentialKind, Passphrase: passphrase}, err
}

// readPassphrase returns the first line of a file.
func readPassphrase(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("passphrase file: %w", PathError(err))
	}
	defer f.Close()
	text := make([]byte, maxPassphrase+2) // and its line end
	n, err := io.ReadFull(f, text)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("passphrase file: %w", PathError(err))
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

// ask reads a passphrase from the terminal. A signal ends the program and restores the terminal.
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
			_ = term.Restore(fd, state) // the program ends, whether it worked or not
			fmt.Fprintln(os.Stderr)
			signal.Reset(got)
			_ = unix.Kill(os.Getpid(), got.(unix.Signal))
		case <-answered:
		}
	}()
	if err := hideTyping(fd); err != nil { // before the prompt invites to type
		return nil, fmt.Errorf("read the passphrase: %w", err)
	}
	defer func() { _ = term.Restore(fd, state) }() // there is nothing to do if it fails
	fmt.Fprint(os.Stderr, prompt)
	passphrase, err := term.ReadPassword(fd)
	fmt.Fprintln(os.Stderr)
	if err != nil {
		return nil, fmt.Errorf("read the passphrase: %w", err)
	}
	return passphrase, checkPassphrase(passphrase)
}

// hideTyping ends the terminal's echo of what is typed.
func hideTyping(fd int) error {
	settings, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return err
	}
	settings.Lflag &^= unix.ECHO
	return unix.IoctlSetTermios(fd, unix.TCSETS, settings)
}
