// Package session is how a command reaches its key service: the options that say where its home is
// and what opens it, and calls to the service that is open.
//
//   - session.go: a command's session with a key service
//   - home.go: where the home is, and opening it, in this process or through another
//   - secret.go: what opens a home
//   - create.go: making a home
//   - remote.go: remote key services
//   - complete.go: what shells complete for keys
package session

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	keyhome "kmsfs/keyservice/home"
	"kmsfs/keyservice/kms"
)

// Options say which key service a command calls, and how it shows the answers.
type Options struct {
	Home   string
	Secret SecretOptions
	JSON   bool
}

// Declare declares the options of all commands for key services.
func (o *Options) Declare(flags *pflag.FlagSet) {
	o.Secret.Declare(flags)
	DeclareHome(flags, &o.Home)
}

// DeclareJSON declares the option of commands that can print JSON.
func (o *Options) DeclareJSON(flags *pflag.FlagSet) {
	flags.BoolVar(&o.JSON, "json", false, "print JSON with AWS KMS's field names")
}

// Call calls f with the key service, whether this process opens the home or another has it open.
func (o *Options) Call(f func(s *Session) error) (err error) {
	if err := o.Secret.Complete(); err != nil {
		return err
	}
	dir, err := HomeDir(o.Home)
	if err != nil {
		return err
	}
	secret, err := o.Secret.Read(dir)
	if err != nil {
		return err
	}
	defer secret.Wipe()
	home, err := Open(dir, secret)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, home.Close()) }()
	return f(New(home))
}

// Session is an open key service and its caller.
type Session struct {
	*Home
	Ctx    context.Context
	Caller kms.Caller
}

// New is a session of this process.
func New(home *Home) *Session {
	return &Session{home, context.Background(), kms.Caller{Caller: Self()}}
}

// KeyARN returns the ARN of a key, for operations that take no aliases.
func (s *Session) KeyARN(key string) (string, error) {
	if !strings.HasPrefix(key, "alias/") && !strings.Contains(key, ":alias/") {
		return key, nil
	}
	out, err := kms.DescribeKey.Call(s.Ctx, s, s.Caller, &kms.DescribeKeyInput{KeyId: key})
	if err != nil {
		return "", err
	}
	return out.KeyMetadata.Arn, nil
}

// EachAlias calls f with all aliases, or with those of a key.
func (s *Session) EachAlias(key string, f func(kms.AliasListEntry)) error {
	return EachPage(func(marker string) (string, error) {
		out, err := kms.ListAliases.Call(s.Ctx, s, s.Caller, &kms.ListAliasesInput{KeyId: key, Marker: marker})
		if err != nil {
			return "", err
		}
		for _, a := range out.Aliases {
			f(a)
		}
		return out.NextMarker, nil
	})
}

// EachPage calls a listing operation until it returns no marker.
func EachPage(page func(marker string) (next string, err error)) error {
	for marker := ""; ; {
		next, err := page(marker)
		if err != nil || next == "" {
			return err
		}
		marker = next
	}
}

// IsNotFound says whether an error is that of a key or alias that does not exist.
func IsNotFound(err error) bool {
	e, ok := errors.AsType[*kms.Error](err)
	return ok && e.Code == kms.CodeNotFound
}

// Harden keeps secrets out of core dumps. It is called before a secret enters the process.
func Harden() error {
	if err := keyhome.Harden(); err != nil {
		return fmt.Errorf("keep secrets out of core dumps: %w", err)
	}
	return nil
}

// InterruptibleContext ends on the signals by which users stop a program.
func InterruptibleContext() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
}

// Bind declares the options of a command, and has it call f with the key service and its arguments.
// What can be wrong with the call itself belongs into the command's PreRunE: opening the home may
// take a passphrase.
func (o *Options) Bind(c *cobra.Command, f func(s *Session, args []string) error) *cobra.Command {
	o.Declare(c.Flags())
	c.RunE = func(_ *cobra.Command, args []string) error {
		return o.Call(func(s *Session) error { return f(s, args) })
	}
	return c
}
