package cli_test

import (
	"errors"
	"fmt"
	"testing"

	"kmsfs/cmd/kmsfs/internal/cli"
	disk "kmsfs/fs/volume"
	"kmsfs/keyservice/kms"
)

func TestExplain(t *testing.T) {
	hinted := cli.Hinted("no such volume", "make one")
	for _, test := range []struct {
		err  error
		want string
	}{
		{errors.New("plain"), "plain"},
		{fmt.Errorf("/vault: %w", hinted), "/vault: no such volume; make one"},
		{fmt.Errorf("/vault: %w", disk.ErrNotVolume), "/vault: not a kmsfs volume; make one with kmsfs init"},
		{fmt.Errorf("%w: %w", hinted, disk.ErrNotVolume), "no such volume: not a kmsfs volume; make one"},
		{errors.Join(errors.New("one"), errors.New("two")), "one; two"},
		{&kms.Error{Code: kms.CodeDisabled, Message: "off"}, "DisabledException: off; enable it with kmsfs key enable"},
		{cli.Explained("failed; do this"), "failed; do this"},
		{errors.New("clear/\x1b[2J: gone"), `clear/\x1b[2J: gone`},
	} {
		if got := cli.Explain(test.err); got != test.want {
			t.Errorf("got  %s\nwant %s", got, test.want)
		}
	}
}
