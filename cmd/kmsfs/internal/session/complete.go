package session

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"kmsfs/cmd/kmsfs/internal/cli"
	"kmsfs/keyservice/kms"
)

// completionPatience is how long a shell waits for keys to complete.
const completionPatience = time.Second

// Keys completes the argument with that index with keys. The keys are asked of the process that
// serves the home: if there is none, nothing is completed, as opening a home may take a passphrase.
func (o *Options) Keys(index int) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) != index {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return o.keys(), cobra.ShellCompDirectiveNoFileComp
	}
}

// CompleteKeyOption completes the value of the option --key with keys.
func (o *Options) CompleteKeyOption(c *cobra.Command) {
	cli.CompleteOption(c, "key", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return o.keys(), cobra.ShellCompDirectiveNoFileComp
	})
}

// keys lists the names of the home's keys: their aliases, and the IDs of those that have none.
func (o *Options) keys() []string {
	dir, err := HomeDir(o.Home)
	if err != nil {
		return nil
	}
	home, err := Dial(dir)
	if err != nil {
		return nil
	}
	defer func() { _ = home.Close() }() // nothing depends on it
	s := New(home)
	var cancel context.CancelFunc
	s.Ctx, cancel = context.WithTimeout(s.Ctx, completionPatience)
	defer cancel()
	names, err := s.keyNames()
	if err != nil {
		return nil
	}
	return names
}

func (s *Session) keyNames() (names []string, err error) {
	named := map[string]bool{}
	err = s.EachAlias("", func(a kms.AliasListEntry) {
		names, named[a.TargetKeyId] = append(names, a.AliasName), true
	})
	if err != nil {
		return nil, err
	}
	err = EachPage(func(marker string) (string, error) {
		out, err := kms.ListKeys.Call(s.Ctx, s, s.Caller, &kms.ListKeysInput{Marker: marker})
		if err != nil {
			return "", err
		}
		for _, k := range out.Keys {
			if !named[k.KeyId] {
				names = append(names, k.KeyId)
			}
		}
		return out.NextMarker, nil
	})
	return names, err
}
