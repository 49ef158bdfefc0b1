package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"

	"kmsfs/keyservice"
	"kmsfs/policy"
)

// rootHome is the key service home of root, who mounts at boot, where no environment tells of another.
const rootHome = "/var/lib/kmsfs"

func declareHome(flags *pflag.FlagSet, dir *string) {
	flags.StringVar(dir, "home", "", "key service home `DIR` (default $KMSFS_HOME, $XDG_DATA_HOME/kmsfs, ~/.local/share/kmsfs)")
}

// homeDir returns the absolute path of the key service home; named is what the options say.
func homeDir(named string) (string, error) {
	if named == "" {
		named = os.Getenv("KMSFS_HOME")
	}
	if named != "" {
		return filepath.Abs(named)
	}
	if os.Geteuid() == 0 {
		return rootHome, nil
	}
	if data := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(data) {
		return filepath.Join(data, "kmsfs"), nil
	}
	dir, err := os.UserHomeDir()
	if err != nil {
		u, err := user.Current()
		if err != nil {
			return "", fmt.Errorf("find your home directory: %w", err)
		}
		dir = u.HomeDir
	}
	return filepath.Join(dir, ".local/share/kmsfs"), nil
}

// home is a key service home that this process has opened, or uses through the process that has.
type home struct {
	keyservice.API
	service *keyservice.Service // nil if it is another process's
}

// lockPatience is how long openHome waits for a process that has the home open to answer, or to be done with it.
const lockPatience = 5 * time.Second

// openHome opens the home, or reaches the process that has it open: only the latter without a secret.
func openHome(dir string, secret *secret) (*home, error) {
	if secret == nil {
		api, err := keyservice.DialHome(dir)
		if err != nil {
			return nil, fmt.Errorf("%w (%w)", errHolderStopped, err)
		}
		return &home{api, nil}, nil
	}
	sealer, err := secret.sealer()
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(lockPatience); ; time.Sleep(50 * time.Millisecond) {
		service, err := keyservice.Open(dir, sealer)
		if err == nil {
			return &home{service, service}, nil
		}
		if !errors.Is(err, keyservice.ErrLocked) {
			return nil, err
		}
		if api, dialErr := keyservice.DialHome(dir); dialErr == nil {
			return &home{api, nil}, nil
		} else if time.Now().After(deadline) {
			return nil, fmt.Errorf("%w (%w)", err, dialErr)
		}
	}
}

// serve lets other processes use the home as long as this one has it open.
func (h *home) serve() error {
	if h.service == nil {
		return nil
	}
	return h.service.Serve()
}

func (h *home) close() error {
	if h.service == nil {
		return nil
	}
	return h.service.Close()
}

// isServed says whether another process has the home open and lets this one in.
func isServed(dir string) bool {
	_, err := keyservice.DialHome(dir)
	return err == nil
}

// self is this process as a caller of the key service.
func self() policy.Caller {
	caller := policy.Caller{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), PID: int32(os.Getpid())}
	groups, _ := os.Getgroups() // without them, policies that name groups don't apply
	for _, g := range groups {
		caller.Groups = append(caller.Groups, uint32(g))
	}
	return caller
}
