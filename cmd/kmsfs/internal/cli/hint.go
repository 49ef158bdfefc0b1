package cli

import (
	"errors"
	"strings"

	"kmsfs/envelope"
	"kmsfs/fs"
	"kmsfs/fs/control"
	"kmsfs/fs/fsck"
	"kmsfs/fs/keys"
	disk "kmsfs/fs/volume"
	keyhome "kmsfs/keyservice/home"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/printable"
	"kmsfs/keyservice/sealer"
)

// hinted is an error that knows what to do about it.
type hinted struct{ text, hint string }

// Hinted is a new error, and what to do about it.
func Hinted(text, hint string) error { return &hinted{text, hint} }

func (e *hinted) Error() string { return e.text }

// hints say what to do about the errors of other packages. Of several that match, the first one
// helps: causes come before their effects.
func hints() []hint {
	return []hint{
		{is(keyhome.ErrMissing), "make one with kmsfs init, or name another with --home or KMSFS_HOME"},
		{is(keyhome.ErrLocked), "unmount what that process serves, or wait until it has ended"},
		{is(keyhome.ErrDamagedBackup), "take another backup"},
		{is(keyhome.ErrWrongSecret), "give the one that the home was made with, or name another home with --home"},
		{is(keyhome.ErrSealerMismatch), "open it with what it was made with: a passphrase, a key file or a systemd credential"},
		{is(keyhome.ErrDamaged), "restore it from a backup, or name another home with --home"},
		{is(keyhome.ErrExists), "name an empty directory, or one that doesn't exist yet, with --home or KMSFS_HOME"},
		{is(keyhome.ErrUnsafe), "if you trust its content, take it from all other users with chown and chmod"},
		{is(sealer.ErrBadSecret), "give one that fits, or make a new home with another"},
		{is(disk.ErrNotVolume), "make one with kmsfs init"},
		{is(disk.ErrInUse), "unmount it there first; or mount it with --shared everywhere"},
		{is(fsck.ErrMounted), "unmount it first, or check it without --repair"},
		{is(disk.ErrDamaged), "restore " + envelope.ConfigName + " from a backup of the volume"},
		{is(disk.ErrNotEmpty), "name an empty directory, or one that doesn't exist yet"},
		{is(fs.ErrMountpointInUse), "name an empty directory, or unmount what is there"},
		{is(fs.ErrNoFusermount), "install the package fuse3, or run kmsfs as root"},
		{hasCode(kms.CodeNotFound), "kmsfs key list shows the keys of this key service home; --home or KMSFS_HOME names another"},
		{hasCode(kms.CodeDisabled), "enable it with kmsfs key enable"},
		{hasCode(kms.CodeKMSInvalidState), "cancel its deletion with kmsfs key cancel-deletion, or import its material with kmsfs key import"},
		{hasCode(kms.CodeInvalidCiphertext), "give the whole ciphertext, and each --context that it was encrypted with"},
		{is(keys.ErrDenied), deniedHint},
		{hasCode(kms.CodeAccessDenied), deniedHint},
		{is(control.ErrKeyDenied), "kmsfs key policy explain says who may use it, and the audit log what was denied"},
		{is(control.ErrNotOwner), "have the owner or root do it"},
		{is(control.ErrIsDirectory), "give --recursive for all that lies in it"},
		{is(control.ErrIsMountpoint), "name what lies in it"},
		{is(control.ErrNotMounted), "findmnt -t " + control.FSType + " lists the mountpoints"},
	}
}

const deniedHint = "have the KMS key's policy, or a grant, allow it; kmsfs key policy explain says who may"

// hint is what to do about the errors that match.
type hint struct {
	match func(error) bool
	text  string
}

func is(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

func hasCode(code string) func(error) bool {
	return func(err error) bool {
		e, ok := errors.AsType[*kms.Error](err)
		return ok && e.Code == code
	}
}

// explained is an error whose text has its hint already.
type explained string

// Explained is an error that another process has explained.
func Explained(text string) error { return explained(text) }

func (e explained) Error() string { return string(e) }

// Explain returns an error's text, on one line, with what to do about it.
func Explain(err error) string {
	lines := strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' })
	text := printable.Line(strings.TrimSpace(strings.Join(lines, "; ")))
	if _, ok := errors.AsType[explained](err); ok {
		return text
	}
	if e, ok := errors.AsType[*hinted](err); ok {
		return text + "; " + e.hint
	}
	for _, h := range hints() {
		if h.match(err) {
			return text + "; " + h.text
		}
	}
	return text
}
