package fs

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	disk "kmsfs/fs/volume"
)

// directory is what an inode has if it is a directory: a descriptor, which is closed when too many are open, and its
// record, which is read once.
type directory struct {
	// dirMu guards the record, dirID and unsynced. Locks of parents are taken under those of their children's, never the other way.
	dirMu  sync.Mutex
	record *envelope.Directory
	// dirID is what the first record that was read says: one that says otherwise is another directory's. Zero until then.
	dirID envelope.DirectoryID
	// unsynced says that the record, or the directory's own entry, may not be durable.
	unsynced bool
	// fresh are directories made in this one that it hasn't been synced with.
	fresh []*inode

	// The following are guarded by directories.mu.
	fd   int // open with O_PATH; -1 if closed
	uses int
	idle *list.Element // in directories.idle, if there are no uses
}

// directories keeps the descriptors of directories.
type directories struct {
	mu   sync.Mutex // taken after dirMu; no other lock is taken under it
	idle *list.List // of *inode, those used longest ago first
	open int
	most int // how many may be open
}

// use is a directory in use: a descriptor that stays open until release, and the directory's ID.
type use struct {
	v  *volume
	in *inode
	fd int
	id envelope.DirectoryID
}

// use opens a directory. The caller holds volume.tree, and releases the use.
func (v *volume) use(in *inode) (use, error) {
	if v.shared() {
		if err := v.checkPlace(in); err != nil {
			return use{}, err
		}
	}
	fd, err := v.descriptor(in)
	if err != nil {
		return use{}, err
	}
	record, err := v.recordOf(in, fd)
	if err != nil {
		v.release(in)
		return use{}, err
	}
	return use{v, in, fd, record.ID}, nil
}

// checkPlace returns ESTALE if another mount has moved or removed the directory, or one above it, since its name was looked up: its path is
// what callers are judged by.
func (v *volume) checkPlace(in *inode) error {
	l, ok := in.link()
	if !ok {
		return nil
	}
	s, err := v.spot(l)
	if err != nil {
		return err
	}
	defer s.release()
	return s.leadsTo(in)
}

func (u use) release() { u.v.release(u.in) }

// descriptor returns a descriptor of in and counts a use of it.
func (v *volume) descriptor(in *inode) (int, error) {
	if fd, ok := v.dirs.take(in); ok {
		return fd, nil
	}
	l, ok := in.link()
	if !ok {
		return -1, unix.ESTALE
	}
	parent, err := v.use(l.parent)
	if err != nil {
		return -1, err
	}
	defer parent.release()
	name, err := v.sealed.EncryptName(parent.id, l.name)
	if err != nil {
		return -1, err
	}
	fd, err := unix.Openat(parent.fd, name.Entry, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || !in.is(&st) {
		unix.Close(fd)
		return -1, unix.ESTALE
	}
	if v.shared() {
		in.dropRecord() // the number may be another directory's by now
	}
	return v.dirs.put(in, fd), nil
}

// take counts a use of a descriptor that is open.
func (d *directories) take(in *inode) (int, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if in.fd < 0 {
		return -1, false
	}
	d.count(in)
	return in.fd, true
}

func (d *directories) count(in *inode) {
	in.uses++
	if in.idle != nil {
		d.idle.Remove(in.idle)
		in.idle = nil
	}
}

// isGone says whether in is a directory that another mount has removed: a network file system may give its number to another while a
// descriptor of it is open here.
func (v *volume) isGone(in *inode) bool {
	fd, ok := v.dirs.take(in)
	if !ok {
		return false
	}
	defer v.release(in)
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return errors.Is(err, unix.ESTALE) || err == nil && st.Nlink == 0
}

// put keeps a descriptor that was just opened, unless somebody else was faster, and counts a use.
func (d *directories) put(in *inode, fd int) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	if in.fd >= 0 {
		unix.Close(fd)
	} else {
		in.fd = fd
		d.open++
	}
	d.count(in)
	for d.open > d.most && d.idle.Len() > 0 {
		d.drop(d.idle.Front().Value.(*inode))
	}
	return in.fd
}

// drop closes an idle descriptor.
func (d *directories) drop(in *inode) {
	d.idle.Remove(in.idle)
	in.idle = nil
	unix.Close(in.fd)
	in.fd = -1
	d.open--
}

func (v *volume) release(in *inode) {
	v.dirs.mu.Lock()
	defer v.dirs.mu.Unlock()
	in.uses--
	if in.uses == 0 {
		in.idle = v.dirs.idle.PushBack(in)
	}
}

// forget closes the descriptor of a directory that the kernel has forgotten.
func (d *directories) forget(in *inode) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if in.idle != nil {
		d.drop(in)
	}
}

// recordOf returns the record of in, whose descriptor is fd: authentic, and of a directory that lies where it says and is whose it says.
func (v *volume) recordOf(in *inode, fd int) (*envelope.Directory, error) {
	in.dirMu.Lock()
	defer in.dirMu.Unlock()
	if in.record != nil {
		return in.record, nil
	}
	record, err := v.disk.ReadDirectory(fd)
	if err != nil {
		return nil, err
	}
	found, err := v.locationOf(in)
	if err != nil {
		return nil, err
	}
	owner, err := disk.OwnerOf(fd)
	if err != nil {
		return nil, err
	}
	if !record.LiesAt(found) || !record.OwnedBy(owner) {
		if err := v.acceptDirectory(fd, in, record, found, owner); err != nil {
			return nil, err
		}
	}
	if in.dirID != record.ID && in.dirID != (envelope.DirectoryID{}) {
		return nil, unix.ESTALE // what is known beneath it is the other one's
	}
	in.record, in.dirID = record, record.ID
	return record, nil
}

// mayBe says whether a directory may have that ID.
func (in *inode) mayBe(id envelope.DirectoryID) bool {
	in.dirMu.Lock()
	defer in.dirMu.Unlock()
	return in.dirID == id || in.dirID == envelope.DirectoryID{}
}

// dropRecord sees to it that the record is read anew.
func (in *inode) dropRecord() {
	in.dirMu.Lock()
	defer in.dirMu.Unlock()
	in.record = nil
}

// locationOf returns where a directory was found.
func (v *volume) locationOf(in *inode) (envelope.Location, error) {
	l, ok := in.link()
	if !ok {
		if in == v.root {
			return envelope.Location{}, nil
		}
		return envelope.Location{}, unix.ESTALE
	}
	parent, err := v.use(l.parent)
	if err != nil {
		return envelope.Location{}, err
	}
	defer parent.release()
	return envelope.Location{Directory: parent.id, Name: l.name}, nil
}

// acceptDirectory decides on a directory that was found elsewhere, or somebody else's, than its record says: it is refused, unless a power
// failure may have left the record behind a rename.
func (v *volume) acceptDirectory(fd int, in *inode, record *envelope.Directory, found envelope.Location, owner uint32) error {
	event := keys.Event{Name: keys.EventContextMismatch, Details: places(record.Locations, found, in.path())}
	event.Details["foundOwner"] = disk.OwnerName(owner)
	var st unix.Stat_t
	err := unix.Fstatat(fd, envelope.DirectoryName, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil || !record.OwnedBy(owner) || !v.tolerance.Rebooted || !v.tolerance.Covers(st.Ctim) {
		event.Error = disk.ErrMismatch
		return errors.Join(disk.ErrMismatch, v.keys.Record(context.Background(), keys.Self("lookup"), event))
	}
	event.Name = keys.EventRepaired
	if err := v.keys.Record(context.Background(), keys.Self("lookup"), event); err != nil {
		return err
	}
	v.log.Warn("a directory lay one rename behind its record: accepted after an unclean end", "path", in.path())
	record.Locations = []envelope.Location{found}
	if v.readOnly {
		return nil
	}
	return v.disk.WriteDirectory(fd, record, true)
}

// places describes a mismatch for the audit log.
func places(sealed []envelope.Location, found envelope.Location, path string) map[string]string {
	details := map[string]string{"foundPath": path, "foundDirectory": found.Directory.String(), "foundName": disk.TextPath(found.Name)}
	for i, l := range sealed {
		details[fmt.Sprintf("sealedDirectory%d", i)] = l.Directory.String()
		details[fmt.Sprintf("sealedName%d", i)] = disk.TextPath(l.Name)
	}
	return details
}

// syncRecords makes the records of in and of all directories above it durable: what lies beneath can't be found
// without them.
func (v *volume) syncRecords(in *inode) error {
	for in != nil {
		if err := v.syncRecord(in); err != nil {
			return err
		}
		l, ok := in.link()
		if !ok {
			break
		}
		in = l.parent
	}
	return nil
}

func (v *volume) syncRecord(in *inode) error {
	in.dirMu.Lock()
	unsynced := in.unsynced
	in.dirMu.Unlock()
	if !unsynced {
		return nil
	}
	u, err := v.use(in)
	if err != nil {
		return err
	}
	defer u.release()
	if err := disk.SyncControl(u.fd, envelope.DirectoryName); err != nil {
		return err
	}
	if err := disk.SyncDir(u.fd); err != nil {
		return err
	}
	in.dirMu.Lock()
	in.unsynced = false
	in.dirMu.Unlock()
	return nil
}

func (in *inode) addFresh(child *inode) {
	in.dirMu.Lock()
	defer in.dirMu.Unlock()
	in.fresh = append(in.fresh, child)
}

// syncDirectory makes durable what fsync(2) of a directory promises: its entries, and that the directories among them can be
// opened.
func (v *volume) syncDirectory(in *inode) error {
	in.dirMu.Lock()
	fresh := in.fresh
	in.fresh = nil
	in.dirMu.Unlock()
	for i, child := range fresh {
		err := v.syncRecord(child)
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ESTALE) { // it may be gone again
			in.dirMu.Lock()
			in.fresh = append(in.fresh, fresh[i:]...)
			in.dirMu.Unlock()
			return err
		}
	}
	u, err := v.use(in)
	if err != nil {
		return err
	}
	defer u.release()
	if err := disk.SyncDir(u.fd); err != nil {
		return err
	}
	return v.syncRecords(in)
}
