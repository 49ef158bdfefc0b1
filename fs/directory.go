package fs

import (
	"container/list"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	"kmsfs/fs/lock"
	disk "kmsfs/fs/volume"
	"kmsfs/fs/volume/backing"
)

// directory is what an inode has if it is a directory: its record, which is read once, and a
// descriptor, which is closed when too many are open.
type directory struct {
	recordMu lock.Mutex[lock.Record] // guards what follows up to fresh; directoryCache.mu is taken under it
	record   *envelope.Directory
	// id is the directory's ID by the first record that was read; zero until then. A record with
	// another ID is another directory's.
	id envelope.DirectoryID
	// unsynced says that the record, or the directory's own entry, may not be durable.
	unsynced bool
	// fresh are directories made in this one that it has not been synced with.
	fresh []*inode

	descriptor // guarded by directoryCache.mu
}

// descriptor is an open directory.
type descriptor struct {
	fd   int // opened with O_PATH; -1 if closed
	pins int
	idle *list.Element // in directoryCache.idle, while there are no pins
}

// directoryCache keeps descriptors of directories open.
type directoryCache struct {
	mu   lock.Mutex[lock.Directories]
	idle *list.List // of *inode, the one used longest ago first
	open int
	most int // how many may be open
}

// newDirectoryCache returns a cache that holds the root's descriptor, which is always in use.
func newDirectoryCache(root *inode, fd int) *directoryCache {
	root.fd, root.pins = fd, 1
	return &directoryCache{idle: list.New(), open: 1, most: mostDescriptors()}
}

// mostDescriptors is how many directories may be open: half of the files that the process may have
// open at all.
func mostDescriptors() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 256
	}
	return int(min(limit.Cur/2, 16384))
}

// pin pins a descriptor that is open.
func (d *directoryCache) pin(in *inode) (fd int, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if in.fd < 0 {
		return -1, false
	}
	d.count(in)
	return in.fd, true
}

func (d *directoryCache) count(in *inode) {
	in.pins++
	if in.idle != nil {
		d.idle.Remove(in.idle)
		in.idle = nil
	}
}

// put keeps a descriptor that was just opened, unless there is one by now, and pins it.
func (d *directoryCache) put(in *inode, fd int) int {
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
func (d *directoryCache) drop(in *inode) {
	d.idle.Remove(in.idle)
	in.idle = nil
	unix.Close(in.fd)
	in.fd = -1
	d.open--
}

func (d *directoryCache) unpin(in *inode) {
	d.mu.Lock()
	defer d.mu.Unlock()
	in.pins--
	if in.pins == 0 {
		in.idle = d.idle.PushBack(in)
	}
}

// forget closes the descriptor of a directory that the kernel has forgotten.
func (d *directoryCache) forget(in *inode) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if in.idle != nil {
		d.drop(in)
	}
}

// close closes all idle descriptors.
func (d *directoryCache) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for d.idle.Len() > 0 {
		d.drop(d.idle.Front().Value.(*inode))
	}
}

// dirRef is a pinned directory: its descriptor stays open until release.
type dirRef struct {
	cache *directoryCache
	in    *inode
	fd    int
	// record is the directory's when it was pinned.
	record *envelope.Directory
}

func (d dirRef) release() { d.cache.unpin(d.in) }

func (d dirRef) id() envelope.DirectoryID { return d.record.ID }

// step is a directory on the way down to one that is pinned.
type step struct {
	in   *inode
	link link
}

// pin opens a directory, and reads its record. The caller holds volume.tree, and releases the
// dirRef.
func (o *resolver) pin(in *inode) (dirRef, error) {
	ref, way, err := o.nearest(in)
	for i := len(way) - 1; err == nil && i >= 0; i-- {
		var next dirRef
		next, err = o.descend(ref, way[i])
		ref.release()
		ref = next
	}
	return ref, err
}

// nearest returns the first directory, from in upward, that is known well enough, and the way from
// in up to it. In a shared volume that is the root: another mount may have moved any other.
func (o *resolver) nearest(in *inode) (ref dirRef, way []step, err error) {
	for {
		if in == o.root {
			ref, err := o.pinRoot()
			return ref, way, err
		}
		if ref, ok := o.pinKnown(in); ok {
			return ref, way, nil
		}
		l, ok := in.link()
		if !ok {
			return dirRef{}, nil, unix.ESTALE
		}
		way = append(way, step{in, l})
		in = l.parent
	}
}

func (o *resolver) pinKnown(in *inode) (dirRef, bool) {
	if o.shared() {
		return dirRef{}, false
	}
	record := in.knownRecord()
	if record == nil {
		return dirRef{}, false
	}
	fd, ok := o.dirs.pin(in)
	return dirRef{o.dirs, in, fd, record}, ok
}

// pinRoot pins the root, whose descriptor is always open.
func (o *resolver) pinRoot() (dirRef, error) {
	fd, _ := o.dirs.pin(o.root)
	record, err := o.readRecord(o.root, fd, envelope.Location{})
	if err != nil {
		o.dirs.unpin(o.root)
	}
	return dirRef{o.dirs, o.root, fd, record}, err
}

// descend pins a directory that lies in one that is pinned.
func (o *resolver) descend(parent dirRef, s step) (dirRef, error) {
	name, err := o.sealed.EncryptName(parent.id(), s.link.name)
	if err != nil {
		return dirRef{}, err
	}
	if o.shared() {
		at := dirEntry{parent, s.link, name}
		if err := at.leadsTo(s.in); err != nil {
			return dirRef{}, err
		}
	}
	fd, ok := o.dirs.pin(s.in)
	if !ok {
		if fd, err = o.openDirectory(parent, name.Entry, s.in); err != nil {
			return dirRef{}, err
		}
	}
	record, err := o.readRecord(s.in, fd, envelope.Location{Directory: parent.id(), Name: s.link.name})
	if err != nil {
		o.dirs.unpin(s.in)
		return dirRef{}, err
	}
	return dirRef{o.dirs, s.in, fd, record}, nil
}

// openDirectory opens and pins a directory.
func (o *resolver) openDirectory(parent dirRef, entry string, in *inode) (int, error) {
	fd, err := unix.Openat(parent.fd, entry, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || !in.is(&st) {
		unix.Close(fd)
		return -1, unix.ESTALE
	}
	if o.shared() {
		in.dropRecord() // the number may be another directory's by now
	}
	return o.dirs.put(in, fd), nil
}

// isGone says whether in is a directory that another mount has removed: a network file system may
// give its number to another one while a descriptor of it is open here.
func (v *volume) isGone(in *inode) bool {
	fd, ok := v.dirs.pin(in)
	if !ok {
		return false
	}
	defer v.dirs.unpin(in)
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return errors.Is(err, unix.ESTALE) || err == nil && st.Nlink == 0
}

func (in *inode) knownRecord() *envelope.Directory {
	in.recordMu.Lock()
	defer in.recordMu.Unlock()
	return in.record
}

// readRecord returns the record of in, which was found at that location and is open as fd. The
// record is authentic, and names this location and the directory's owner.
func (o *resolver) readRecord(in *inode, fd int, found envelope.Location) (*envelope.Directory, error) {
	in.recordMu.Lock()
	defer in.recordMu.Unlock()
	if in.record != nil {
		return in.record, nil
	}
	record, err := o.disk.ReadDirectory(backing.FromDescriptor(fd))
	if err != nil {
		return nil, err
	}
	owner, err := disk.OwnerOf(backing.FromDescriptor(fd))
	if err != nil {
		return nil, err
	}
	if !record.LiesAt(found) || !record.OwnedBy(owner) {
		if err := o.acceptDirectory(fd, in, record, found, owner); err != nil {
			return nil, err
		}
	}
	if in.id != record.ID && in.id != (envelope.DirectoryID{}) {
		return nil, unix.ESTALE // what is known beneath it is the other one's
	}
	in.record, in.id = record, record.ID
	return record, nil
}

// mayBe says whether a directory may have that ID.
func (in *inode) mayBe(id envelope.DirectoryID) bool {
	in.recordMu.Lock()
	defer in.recordMu.Unlock()
	return in.id == id || in.id == envelope.DirectoryID{}
}

// dropRecord has the record read again when it is needed.
func (in *inode) dropRecord() {
	in.recordMu.Lock()
	defer in.recordMu.Unlock()
	in.record = nil
}

// setRecord notes the record of a directory.
func (in *inode) setRecord(record *envelope.Directory, unsynced bool) {
	in.recordMu.Lock()
	defer in.recordMu.Unlock()
	in.record, in.id = record, record.ID
	in.unsynced = in.unsynced || unsynced
}

// acceptDirectory decides on a directory that was found at another location, or has another owner,
// than its record says. It is refused, unless a power failure may have left the record behind a
// rename.
func (o *resolver) acceptDirectory(fd int, in *inode, record *envelope.Directory, found envelope.Location, owner uint32) error {
	event := keys.Event{Name: keys.EventContextMismatch, Details: places(record.Locations, found, in.path())}
	event.Details["foundOwner"] = disk.OwnerName(owner)
	var st unix.Stat_t
	err := unix.Fstatat(fd, envelope.DirectoryName, &st, unix.AT_SYMLINK_NOFOLLOW)
	if err != nil || !record.OwnedBy(owner) || !o.tolerance.Rebooted || !o.tolerance.Covers(st.Ctim) {
		event.Error = disk.ErrMismatch
		return errors.Join(disk.ErrMismatch, o.record(keys.Self("lookup"), event))
	}
	event.Name = keys.EventRepaired
	if err := o.record(keys.Self("lookup"), event); err != nil {
		return err
	}
	o.log.Warn("accepted after an unclean end: a directory lies one rename ahead of its record", "path", in.path())
	record.Locations = []envelope.Location{found}
	if o.readOnly {
		return nil
	}
	return o.disk.WriteDirectory(backing.FromDescriptor(fd), record, true)
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

// syncRecords makes the records of in and of all directories above it durable: without them,
// nothing beneath them can be found.
func (o *resolver) syncRecords(in *inode) error {
	for in != nil {
		if err := o.syncRecord(in); err != nil {
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

func (o *resolver) syncRecord(in *inode) error {
	in.recordMu.Lock()
	unsynced := in.unsynced
	in.recordMu.Unlock()
	if !unsynced {
		return nil
	}
	dir, err := o.pin(in)
	if err != nil {
		return err
	}
	defer dir.release()
	if err := disk.SyncControl(backing.FromDescriptor(dir.fd), envelope.DirectoryName); err != nil {
		return err
	}
	if err := disk.SyncDir(backing.FromDescriptor(dir.fd)); err != nil {
		return err
	}
	in.recordMu.Lock()
	in.unsynced = false
	in.recordMu.Unlock()
	return nil
}

func (in *inode) addFresh(child *inode) {
	in.recordMu.Lock()
	defer in.recordMu.Unlock()
	in.fresh = append(in.fresh, child)
}

// syncDirectory makes durable what fsync(2) of a directory promises: its entries, and that the
// directories among them can be opened.
func (o *resolver) syncDirectory(in *inode) error {
	in.recordMu.Lock()
	fresh := in.fresh
	in.fresh = nil
	in.recordMu.Unlock()
	for i, child := range fresh {
		err := o.syncRecord(child)
		if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ESTALE) { // it may be gone again
			in.recordMu.Lock()
			in.fresh = append(in.fresh, fresh[i:]...)
			in.recordMu.Unlock()
			return err
		}
	}
	dir, err := o.pin(in)
	if err != nil {
		return err
	}
	defer dir.release()
	if err := disk.SyncDir(backing.FromDescriptor(dir.fd)); err != nil {
		return err
	}
	return o.syncRecords(in)
}
