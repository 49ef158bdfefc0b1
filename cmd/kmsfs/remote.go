package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"

	"github.com/spf13/pflag"

	"kmsfs/keyservice/remote"
)

func declareKMS(flags *pflag.FlagSet, url *string) {
	flags.StringVar(url, "kms", "", "`URL` of a key service elsewhere: aws:REGION, https://HOST[:PORT] or unix:PATH")
}

// openRemote prepares to use a key service elsewhere. Its journal, of that name, lies beside the place of a home.
func openRemote(url, home, journal string) (*remote.Service, error) {
	if err := harden(); err != nil {
		return nil, err
	}
	return remote.Open(context.Background(), url, journalDir(home), journal)
}

// volumeJournal names the journal of a volume, which one process at a time mounts.
func volumeJournal(volume string) string {
	name := sha256.Sum256([]byte(volume))
	return hex.EncodeToString(name[:8]) + ".jsonl"
}

// inspectJournal names the journal of "kmsfs inspect".
const inspectJournal = "inspect.jsonl"

func journalDir(home string) string { return home + "-remote" }
