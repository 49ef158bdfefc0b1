package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"kmsfs/keyservice"
	"kmsfs/keyservice/kms"
	"kmsfs/policy/caller"
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
	kms.Service
	dir string
	// service is the key service of this process; nil if it is another process's.
	service *keyservice.Service
	// inUse is locked, shared, by those who use the home through the process that has it open, which thereby knows of them.
	inUse *os.File
}

// lockPatience is how long openHome waits for a process that has the home open to answer, or to be done with it.
const lockPatience = 5 * time.Second

// openHome opens the home, or reaches the process that has it open: only the latter without a secret.
func openHome(dir string, secret *secret) (*home, error) {
	if secret == nil {
		h, err := dialHome(dir)
		if err != nil {
			return nil, fmt.Errorf("%w (%w)", errHolderStopped, err)
		}
		return h, nil
	}
	sealer, err := secret.sealer()
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(lockPatience); ; time.Sleep(50 * time.Millisecond) {
		service, err := keyservice.Open(dir, sealer)
		if err == nil {
			return &home{Service: service, dir: dir, service: service}, nil
		}
		if errors.Is(err, keyservice.ErrWrongSecret) {
			return nil, fmt.Errorf("%s for the key service home %s: %w", secret, dir, err)
		}
		if !errors.Is(err, keyservice.ErrLocked) {
			return nil, err
		}
		if h, dialErr := dialHome(dir); dialErr == nil {
			return h, nil
		} else if time.Now().After(deadline) {
			return nil, fmt.Errorf("%w (%w)", err, dialErr)
		}
	}
}

// dialHome reaches the process that has the home open.
func dialHome(dir string) (*home, error) {
	inUse, err := os.Open(dir)
	if err != nil {
		return nil, pathError(err)
	}
	if err := unix.Flock(int(inUse.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		inUse.Close()
		return nil, fmt.Errorf("the process that has %s open is ending: %w", dir, err)
	}
	api, err := keyservice.DialHome(dir)
	if err != nil {
		inUse.Close()
		return nil, err
	}
	return &home{Service: api, dir: dir, inUse: inUse}, nil
}

// serve lets other processes use the home as long as this one has it open.
func (h *home) serve() error {
	if h.service == nil {
		return nil
	}
	return h.service.Serve()
}

// unused returns a channel that is closed when no other process uses the home through this one, and none begins to any more.
func (h *home) unused() (<-chan struct{}, error) {
	unused := make(chan struct{})
	if h.service == nil {
		close(unused)
		return unused, nil
	}
	dir, err := os.Open(h.dir)
	if err != nil {
		return nil, err
	}
	h.inUse = dir
	go func() {
		if err := flock(dir, unix.LOCK_EX); err == nil {
			close(unused)
		}
	}()
	return unused, nil
}

func (h *home) close() error {
	err := h.Close()
	if h.inUse != nil {
		h.inUse.Close()
	}
	return err
}

// flock waits for a lock.
func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); err != unix.EINTR {
			return err
		}
	}
}

// isServed says whether another process has the home open and lets this one in.
func isServed(dir string) bool {
	_, err := keyservice.DialHome(dir)
	return err == nil
}

// self is this process as a caller of the key service.
func self() caller.Caller {
	c := caller.Caller{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), PID: int32(os.Getpid())}
	groups, _ := os.Getgroups() // without them, policies that name groups don't apply
	for _, g := range groups {
		c.Groups = append(c.Groups, uint32(g))
	}
	return c
}
