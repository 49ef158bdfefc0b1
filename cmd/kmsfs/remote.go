package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"time"

	"github.com/spf13/pflag"

	"kmsfs/keyservice/remote"
)

func declareKMS(flags *pflag.FlagSet, url *string) {
	flags.StringVar(url, "kms", "", "`URL` of a key service elsewhere: aws:REGION, https://HOST[:PORT] or unix:PATH")
}

// openRemote prepares to use a key service elsewhere, with branch keys that are used so long. Its journal, of that name, lies beside the place of a home.
func openRemote(url, home, journal string, cache time.Duration) (*remote.Service, error) {
	if err := harden(); err != nil {
		return nil, err
	}
	return remote.Open(context.Background(), remote.Options{URL: url, JournalDir: journalDir(home), JournalName: journal, Cache: cache})
}

const (
	// noCache is in the place of a time for branch keys: none are used.
	noCache      = "none"
	defaultCache = "1m"
	// The bounds of that time: revoking a KMS key takes hold of branch keys by the end of it.
	minCache = time.Second
	maxCache = time.Hour
)

// cacheTime is how long branch keys are used; 0 for not at all.
func cacheTime(text string) (time.Duration, error) {
	switch text {
	case noCache:
		return 0, nil
	case "":
		text = defaultCache
	}
	cache, err := time.ParseDuration(text)
	if err != nil || cache < minCache || cache > maxCache {
		return 0, usagef("mount", "--kms-cache %q: want none, or a time from 1s to 1h", text)
	}
	return cache, nil
}

// volumeJournal names the journal of a volume, which one process at a time mounts.
func volumeJournal(volume string) string {
	name := sha256.Sum256([]byte(volume))
	return hex.EncodeToString(name[:8]) + ".jsonl"
}

// inspectJournal names the journal of "kmsfs inspect".
const inspectJournal = "inspect.jsonl"

func journalDir(home string) string { return home + "-remote" }
