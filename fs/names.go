package fs

import disk "kmsfs/fs/volume"

// nameAccess is how an operation uses the volume's names while it holds their lock, volume.tree.
// That lock comes before all others and is never taken twice.
type nameAccess int

const (
	// resolving names: no name changes meanwhile.
	resolving nameAccess = iota
	// making what has no name yet: other mounts of a shared volume must not see it unfinished.
	making
	// changing names, or what a directory's record says.
	changing
)

// locked calls do with the names locked.
func (a nameAccess) locked(names disk.Sharing, do func() error) error {
	lock, unlock := names.RLock, names.RUnlock
	switch a {
	case making:
		lock, unlock = names.LockToMake, names.UnlockMade
	case changing:
		lock, unlock = names.Lock, names.Unlock
	}
	if err := lock(); err != nil {
		return err
	}
	defer unlock()
	return do()
}
