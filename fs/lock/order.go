// Package lock declares the order of the file system's locks, and mutexes that know their place in
// it. docs/locking.md says what each lock guards.
//
// A program built with the tag lockorder checks the order whenever it takes a lock, and measures
// how long each lock is held. Without the tag, the mutexes are package sync's.
package lock

// Rank is a place in the order: a goroutine may take a lock only if all locks that it holds come
// before it.
type Rank int

// The order of all locks.
const (
	rankNames Rank = iota
	rankHosts
	rankOpenFile
	rankTurn
	rankRecord
	rankTimes
	rankConfig
	// rankLeaf is that of all locks under which no other lock is taken.
	rankLeaf
)

// Kind is what a mutex guards, as a type without state.
type Kind interface {
	place() (Rank, string)
}

// The kinds of locks, in their order; from OpenFiles on, they are leaves.
type (
	// Names is the lock of a volume's names.
	Names struct{}
	// Hosts guards how the readers of one mount share the names with other mounts.
	Hosts struct{}
	// OpenFile serializes opening a file and changes of its header.
	OpenFile struct{}
	// Turn is a mount's turn with a file of a shared volume.
	Turn struct{}
	// Record guards a directory's record.
	Record struct{}
	// Times guards an open file's modification time.
	Times struct{}
	// Config is held while the volume's configuration is replaced.
	Config struct{}
	// OpenFiles guards the table of open files.
	OpenFiles struct{}
	// Holders guards the handles of an open file.
	Holders struct{}
	// Inodes guards the table of inodes.
	Inodes struct{}
	// Links guards the names of an inode.
	Links struct{}
	// Directories guards the descriptors of directories.
	Directories struct{}
	// FreshKey guards a data key that waits for a file to become empty.
	FreshKey struct{}
	// Reports guards the events that wait to be recorded.
	Reports struct{}
	// Round guards the question of the revocation that is under way.
	Round struct{}
)

func (Names) place() (Rank, string)       { return rankNames, "names" }
func (Hosts) place() (Rank, string)       { return rankHosts, "hosts" }
func (OpenFile) place() (Rank, string)    { return rankOpenFile, "open file" }
func (Turn) place() (Rank, string)        { return rankTurn, "turn" }
func (Record) place() (Rank, string)      { return rankRecord, "record" }
func (Times) place() (Rank, string)       { return rankTimes, "times" }
func (Config) place() (Rank, string)      { return rankConfig, "configuration" }
func (OpenFiles) place() (Rank, string)   { return rankLeaf, "open files" }
func (Holders) place() (Rank, string)     { return rankLeaf, "holders" }
func (Inodes) place() (Rank, string)      { return rankLeaf, "inodes" }
func (Links) place() (Rank, string)       { return rankLeaf, "links" }
func (Directories) place() (Rank, string) { return rankLeaf, "directories" }
func (FreshKey) place() (Rank, string)    { return rankLeaf, "fresh key" }
func (Reports) place() (Rank, string)     { return rankLeaf, "reports" }
func (Round) place() (Rank, string)       { return rankLeaf, "round" }
