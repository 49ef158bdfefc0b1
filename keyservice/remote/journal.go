package remote

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/users"
	"kmsfs/policy"
)

// journal is this host's record of the uses of a key service elsewhere.
type journal struct {
	dir   *os.File
	log   *audit.Log
	users *users.Directory
}

// use is a use of a key.
type use struct {
	event, key  string
	context     map[string]string
	destination string
	newContext  map[string]string
	// branch names the branch key that was used; empty if the service itself was.
	branch string
}

// openJournal opens or makes the file of that name in a directory, which is made if need be, for
// its owner alone. Nobody else may have it open.
func openJournal(path, name string) (*journal, error) {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	dir := os.NewFile(uintptr(fd), path)
	log, err := openLog(dir, name)
	if err != nil {
		dir.Close()
		return nil, err
	}
	return &journal{dir, log, users.New(nil)}, nil
}

func openLog(dir *os.File, name string) (*audit.Log, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &stat); err != nil {
		return nil, err
	}
	if stat.Mode&0o022 != 0 || stat.Uid != uint32(os.Geteuid()) {
		return nil, fmt.Errorf("%s belongs to another user, or others may write to it", dir.Name())
	}
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDWR|unix.O_APPEND|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: dir.Name() + "/" + name, Err: err}
	}
	file := os.NewFile(uintptr(fd), name)
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		file.Close()
		return nil, fmt.Errorf("%s/%s is in use: %w", dir.Name(), name, err)
	}
	if err := dir.Sync(); err != nil {
		file.Close()
		return nil, err
	}
	log, err := audit.Open(audit.Options{Dir: dir, Name: name, File: file})
	if err != nil {
		file.Close()
	}
	return log, err
}

func (j *journal) close() error { return errors.Join(j.log.Close(), j.dir.Close()) }

// record writes what a use came to.
func (j *journal) record(c kms.Caller, u use, result error) error {
	r := j.newRecord(c, u.event, u.key, result)
	if u.destination == "" {
		r.Request = []audit.Field{audit.Text("keyId", u.key), audit.Pairs("encryptionContext", u.context)}
	} else {
		r.Request = []audit.Field{
			audit.Text("sourceKeyId", u.key), audit.Pairs("sourceEncryptionContext", u.context),
			audit.Text("destinationKeyId", u.destination), audit.Pairs("destinationEncryptionContext", u.newContext),
		}
	}
	if u.branch != "" {
		r.Additional = []audit.Field{audit.Text("branchKey", u.branch)}
	}
	return j.log.Append(r, false)
}

func (j *journal) recordEvent(c kms.Caller, e kms.Event) error {
	r := j.newRecord(c, e.Name, e.KeyARN, nil)
	r.ServiceEvent, r.ErrorCode, r.ErrorMessage = true, e.ErrorCode, e.ErrorMessage
	r.Details = audit.EventDetails(e.EncryptionContext, e.Details)
	return j.log.Append(r, true)
}

func (j *journal) newRecord(c kms.Caller, event, key string, result error) *audit.Record {
	now := time.Now()
	region, account := keyPlace(key)
	r := &audit.Record{
		Time: now, RequestID: uuid.New(), EventID: uuid.New(), SharedEventID: c.SharedEventID, Event: event, ReadOnly: true, Account: account, Region: region,
		Identity: j.users.Identity(&c, now),
	}
	r.Identity.ARN = policy.Principal{Kind: policy.User, Name: r.Identity.UserName}.ARN(account)
	if strings.HasPrefix(key, "arn:") {
		r.Resources = []audit.Resource{{Type: "AWS::KMS::Key", ARN: key}}
	}
	if refusal, ok := errors.AsType[*kms.Error](result); ok {
		r.ErrorCode, r.ErrorMessage = refusal.Code, refusal.Message
	} else if result != nil {
		r.ErrorCode, r.ErrorMessage = "ServiceUnreachable", result.Error()
	}
	return r
}

// keyPlace returns the region and the account of a key's ARN; empty for anything else.
func keyPlace(arn string) (region, account string) {
	if parts := strings.SplitN(arn, ":", 6); len(parts) == 6 {
		return parts[3], parts[4]
	}
	return "", ""
}
