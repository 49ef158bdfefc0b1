package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/pflag"

	"kmsfs/keyservice/kms"
)

// serviceOptions say which key service a command calls, and how it shows what it answers.
type serviceOptions struct {
	home   string
	secret secretOptions
	json   bool
}

func (o *serviceOptions) declare(flags *pflag.FlagSet) {
	o.secret.declare(flags)
	declareHome(flags, &o.home)
}

func (o *serviceOptions) declareJSON(flags *pflag.FlagSet) {
	flags.BoolVar(&o.json, "json", false, "print JSON with AWS KMS's field names")
}

// call has f call the key service, whether this process opens the home or another has it open.
func (o *serviceOptions) call(f func(s *session) error) (err error) {
	if err := o.secret.complete(); err != nil {
		return err
	}
	dir, err := homeDir(o.home)
	if err != nil {
		return err
	}
	secret, err := o.secret.read(dir)
	if err != nil {
		return err
	}
	defer secret.wipe()
	home, err := openHome(dir, secret)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, home.close()) }()
	return f(&session{home, context.Background(), kms.Caller{Caller: self()}})
}

// session is an open key service, and who calls it.
type session struct {
	*home
	ctx    context.Context
	caller kms.Caller
}

// keyARN is the ARN of a key, for operations that take no aliases.
func (s *session) keyARN(key string) (string, error) {
	if !strings.HasPrefix(key, "alias/") && !strings.Contains(key, ":alias/") {
		return key, nil
	}
	out, err := kms.DescribeKey.Call(s.ctx, s, s.caller, &kms.DescribeKeyInput{KeyId: key})
	if err != nil {
		return "", err
	}
	return out.KeyMetadata.Arn, nil
}

// serviceCommand is a command that calls the key service with the arguments, as many as the synopsis has words.
func serviceCommand(c command, prepare func(o *serviceOptions, flags *pflag.FlagSet) func(s *session, args []string) error) command {
	wanted := len(strings.Fields(strings.TrimPrefix(c.arguments, "[OPTIONS]")))
	c.prepare = func(flags *pflag.FlagSet) func([]string) error {
		var o serviceOptions
		run := prepare(&o, flags)
		o.declare(flags)
		return func(args []string) error {
			if len(args) != wanted {
				return usagef(c.name, "want %d arguments, got %d", wanted, len(args))
			}
			return o.call(func(s *session) error { return run(s, args) })
		}
	}
	return c
}

// keyCommandOf is a command that does one thing with the key that its one argument names.
func keyCommandOf(name, summary string, do func(s *session, arn string) error) command {
	return serviceCommand(command{
		name: name, arguments: "[OPTIONS] KEY", summary: summary,
		details: strings.ToUpper(summary[:1]) + summary[1:] + ". KEY is a key's ID, ARN or alias.\n\nExample:\n  kmsfs key " + name + " alias/finance",
	}, func(_ *serviceOptions, _ *pflag.FlagSet) func(*session, []string) error {
		return func(s *session, args []string) error {
			arn, err := s.keyARN(args[0])
			if err != nil {
				return err
			}
			return do(s, arn)
		}
	})
}

// printJSON prints what an operation returned.
func printJSON(out any) error {
	text, err := json.MarshalIndent(out, "", "    ")
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(append(text, '\n'))
	return err
}

// table prints rows in columns, the first row being the heads.
func table(rows [][]string) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	for _, row := range rows {
		if _, err := fmt.Fprintln(w, strings.Join(row, "\t")); err != nil {
			return err
		}
	}
	return w.Flush()
}

// facts prints pairs of names and values, without those that have no value.
func facts(pairs ...string) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			continue
		}
		if _, err := fmt.Fprintf(w, "%s:\t%s\n", pairs[i], pairs[i+1]); err != nil {
			return err
		}
	}
	return w.Flush()
}

// when is a time for people; empty for none.
func when(t *kms.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.Local().Format(time.DateTime)
}

// parsePairs reads options of the form NAME=VALUE.
func parsePairs(option string, pairs []string) (map[string]string, error) {
	parsed := make(map[string]string, len(pairs))
	for _, pair := range pairs {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			return nil, usagef("", "--%s %q: want NAME=VALUE", option, pair)
		}
		if _, twice := parsed[name]; twice {
			return nil, usagef("", "--%s %s is given twice", option, name)
		}
		parsed[name] = value
	}
	return parsed, nil
}

// each calls a listing operation for page after page, as long as it returns a marker.
func each(page func(marker string) (next string, err error)) error {
	for marker := ""; ; {
		next, err := page(marker)
		if err != nil || next == "" {
			return err
		}
		marker = next
	}
}
