package session

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"time"

	"github.com/spf13/pflag"

	"kmsfs/cmd/kmsfs/internal/cli"
	"kmsfs/keyservice/remote"
)

// DeclareKMS declares the option that names a remote key service.
func DeclareKMS(flags *pflag.FlagSet, url *string) {
	flags.StringVar(url, "kms", "", "`URL` of a remote key service: aws:REGION, https://HOST[:PORT] or unix:PATH")
}

// OpenRemote prepares to use a remote key service, with branch keys that live as long as cache. Its
// journal lies beside the place of a home, and has that name.
func OpenRemote(url, home, journal string, cache time.Duration) (*remote.Service, error) {
	if err := Harden(); err != nil {
		return nil, err
	}
	return remote.Open(context.Background(), remote.Options{
		URL: url, JournalDir: JournalDir(home), JournalName: journal, Cache: cache,
	})
}

const (
	// noCache, in place of a time for branch keys, has none used.
	noCache = "none"
	// DefaultCache is how long branch keys live, unless the user says otherwise.
	DefaultCache = "1m"
	// The bounds of that time. When a KMS key is revoked, branch keys stay usable up to the end of
	// it.
	minCache = time.Second
	maxCache = time.Hour
)

// CacheTime returns how long branch keys live; 0 for not at all.
func CacheTime(text string) (time.Duration, error) {
	switch text {
	case noCache:
		return 0, nil
	case "":
		text = DefaultCache
	}
	cache, err := time.ParseDuration(text)
	if err != nil || cache < minCache || cache > maxCache {
		return 0, cli.Usagef("--kms-cache %q: want none, or a time from 1s to 1h", text)
	}
	return cache, nil
}

// VolumeJournal names the journal of a volume, which one process at a time mounts.
func VolumeJournal(volume string) string {
	name := sha256.Sum256([]byte(volume))
	return hex.EncodeToString(name[:8]) + ".jsonl"
}

// JournalDir is the directory of journals that belongs to the place of a home.
func JournalDir(home string) string { return home + "-remote" }
