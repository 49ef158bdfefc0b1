package session

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"kmsfs/keyservice"
	keyhome "kmsfs/keyservice/home"
	"kmsfs/keyservice/kms"
	"kmsfs/policy/caller"
)

// rootHome is the key service home of root, who mounts at boot without an environment.
const rootHome = "/var/lib/kmsfs"

// DeclareHome declares the option for the place of the home.
func DeclareHome(flags *pflag.FlagSet, dir *string) {
	flags.StringVar(dir, "home", "", "key service home, a `DIR` (default $KMSFS_HOME, $XDG_DATA_HOME/kmsfs or ~/.local/share/kmsfs)")
}

// HomeDir returns the absolute path of the key service home. named is the option's value.
func HomeDir(named string) (string, error) {
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

// Home is a key service home that this process has open, or uses through another that has.
type Home struct {
	kms.Service
	// Dir is the home's directory.
	Dir string
	// Own is the key service of this process; nil if another process has the home open.
	Own *keyservice.Service
	// inUse is the home's directory. Processes that use the home through another hold a shared lock
	// on it, by which the other one knows of them.
	inUse *os.File
}

// lockPatience is how long Open waits for another process to answer or to close the home.
const lockPatience = 15 * time.Second

// Open opens the home, or reaches the process that has it open. Without a secret it only does the
// latter.
func Open(dir string, secret *Secret) (*Home, error) {
	if secret == nil {
		h, err := Dial(dir)
		if err != nil {
			return nil, fmt.Errorf("%w (%w)", errHolderStopped, err)
		}
		return h, nil
	}
	sealer, err := secret.Sealer()
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(lockPatience); ; time.Sleep(50 * time.Millisecond) {
		service, err := keyservice.Open(dir, sealer)
		if err == nil {
			return &Home{Service: service, Dir: dir, Own: service}, nil
		}
		if errors.Is(err, keyhome.ErrWrongSecret) {
			return nil, fmt.Errorf("%s for the key service home %s: %w", secret, dir, err)
		}
		if !errors.Is(err, keyhome.ErrLocked) {
			return nil, err
		}
		if h, dialErr := Dial(dir); dialErr == nil {
			return h, nil
		} else if time.Now().After(deadline) {
			return nil, fmt.Errorf("%w (%w)", err, dialErr)
		}
	}
}

// Dial reaches the process that has the home open.
func Dial(dir string) (*Home, error) {
	inUse, err := os.Open(dir)
	if err != nil {
		return nil, PathError(err)
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
	return &Home{Service: api, Dir: dir, inUse: inUse}, nil
}

// Serve lets other processes use the home while this one has it open.
func (h *Home) Serve() error {
	if h.Own == nil {
		return nil
	}
	return h.Own.Serve()
}

// Unused returns a channel. It is closed when no other process uses the home through this one, and
// none can begin to.
func (h *Home) Unused() (<-chan struct{}, error) {
	unused := make(chan struct{})
	if h.Own == nil {
		close(unused)
		return unused, nil
	}
	dir, err := os.Open(h.Dir)
	if err != nil {
		return nil, err
	}
	h.inUse = dir
	go func() {
		if err := Flock(dir, unix.LOCK_EX); err == nil {
			close(unused)
		}
	}()
	return unused, nil
}

// Close closes the home, or the connection to the process that has it open.
func (h *Home) Close() error {
	err := h.Service.Close()
	if h.inUse != nil {
		h.inUse.Close()
	}
	return err
}

// Flock waits for a lock on a file.
func Flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); err != unix.EINTR {
			return err
		}
	}
}

// IsServed says whether another process has the home open and serves this one.
func IsServed(dir string) bool {
	_, err := keyservice.DialHome(dir)
	return err == nil
}

// Self is this process as a caller of the key service.
func Self() caller.Caller {
	c := caller.Caller{UID: uint32(os.Geteuid()), GID: uint32(os.Getegid()), PID: int32(os.Getpid())}
	groups, _ := os.Getgroups() // without them, policies that name groups don't apply
	for _, g := range groups {
		c.Groups = append(c.Groups, uint32(g))
	}
	return c
}

// PathError says which path an error is about, without the name of the system call.
func PathError(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("%s: %w", e.Path, e.Err)
	}
	return err
}
