package main

import (
	"errors"
	"strings"

	"kmsfs/fs"
	"kmsfs/fs/control"
	"kmsfs/fs/fsck"
	"kmsfs/fs/keys"
	disk "kmsfs/fs/volume"
	"kmsfs/keyservice"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/sealer"
)

// hints say what to do about an error. Of several that match, the first is the one that helps: so causes come before what
// they cause.
func hints() []hint {
	return []hint{
		{is(keyservice.ErrNoHome), "make one with kmsfs init, or name another with --home or KMSFS_HOME"},
		{is(keyservice.ErrLocked), "unmount what that process serves, or wait until it has ended"},
		{is(errHomeServed), "unmount what it serves, and try again"},
		{is(keyservice.ErrDamagedBackup), "take another backup"},
		{is(errHolderStopped), "run the command again"},
		{is(keyservice.ErrWrongSecret), "give the one that the home was made with, or name another home with --home"},
		{is(keyservice.ErrSealerMismatch), "open it with what it was made with: a passphrase, a key file or a systemd credential"},
		{is(keyservice.ErrDamagedHome), "restore it from a backup, or name another home with --home"},
		{is(keyservice.ErrHomeExists), "name an empty directory, or one that doesn't exist yet, with --home or KMSFS_HOME"},
		{is(keyservice.ErrUnsafeHome), "take it from all other users with chown and chmod, if you trust what is in it"},
		{is(sealer.ErrBadSecret), "give one that fits, or make a new home with another"},
		{is(errNoPassphrase), "give --passphrase-file or KMSFS_PASSPHRASE_FILE, or start kmsfs on a terminal"},
		{is(errNoKeyFile), "give --key-file or KMSFS_KEY_FILE"},
		{is(errNoCredential), "start kmsfs from a unit with LoadCredential=" + credentialName + ":FILE"},
		{is(errKeyFileMissing), "name the one that the key service home was made with"},
		{is(errEmpty), "it takes at least one character, in a file on the first line"},
		{is(errNested), "name directories apart from each other"},
		{is(errKeyNotFound), "name another with --key, or leave --key out for " + defaultKeyAlias},
		{is(errNoDirectory), "make it with mkdir"},
		{is(errNoVolume), "make one with kmsfs init"},
		{is(disk.ErrNotVolume), "make one with kmsfs init"},
		{is(disk.ErrInUse), "unmount it there first; or mount it with --shared everywhere"},
		{is(fsck.ErrMounted), "unmount it first, or check it without --repair"},
		{is(disk.ErrDamaged), "restore " + volumeFile + " from a backup of the volume"},
		{is(disk.ErrNotEmpty), "name an empty directory, or one that doesn't exist yet"},
		{is(fs.ErrMountpointInUse), "name an empty directory, or unmount what is there"},
		{is(fs.ErrNoFusermount), "install the package fuse3, or run kmsfs as root"},
		{refusedWith(kms.CodeNotFound), "name the key service home that has the KMS key with --home or KMSFS_HOME"},
		{refusedWith(kms.CodeDisabled), "enable it with kmsfs key enable"},
		{refusedWith(kms.CodeKMSInvalidState), "cancel its deletion with kmsfs key cancel-deletion, or import its material with kmsfs key import"},
		{refusedWith(kms.CodeInvalidCiphertext), "give the whole ciphertext, and each --context that it was encrypted with"},
		{is(keys.ErrDenied), refusedHint},
		{refusedWith(kms.CodeAccessDenied), refusedHint},
		{is(control.ErrKeyDenied), "kmsfs key policy explain says who may use it, and the audit log what was refused"},
		{is(control.ErrNotOwner), "have its owner or root do it"},
		{is(errInsideVolume), "name a directory outside it"},
		{is(control.ErrIsDirectory), "--recursive does what lies in it"},
		{is(control.ErrIsMountpoint), "name what lies in it"},
		{is(control.ErrNotMounted), "findmnt -t " + control.FSType + " lists those that are"},
		{is(errBusy), "close the files and leave the directories in it; fuser -vm MOUNTPOINT says who has them"},
	}
}

const refusedHint = "have the KMS key's policy, or a grant, allow it; kmsfs key policy explain says who may"

// hint is what to do about the errors that match.
type hint struct {
	match func(error) bool
	text  string
}

func is(target error) func(error) bool {
	return func(err error) bool { return errors.Is(err, target) }
}

func refusedWith(code string) func(error) bool {
	return func(err error) bool {
		e, ok := errors.AsType[*kms.Error](err)
		return ok && e.Code == code
	}
}

// explainedError is an error whose text has its hint already.
type explainedError struct{ text string }

func (e *explainedError) Error() string { return e.text }

// explain is the error's text, on one line, with what to do about it.
func explain(err error) string {
	lines := strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' })
	text := strings.TrimSpace(strings.Join(lines, "; "))
	if _, ok := errors.AsType[*explainedError](err); ok {
		return text
	}
	for _, h := range hints() {
		if h.match(err) {
			return text + "; " + h.text
		}
	}
	return text
}
