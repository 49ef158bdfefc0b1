package main

import (
	"errors"
	"strings"

	"kmsfs/fs"
	"kmsfs/keyservice"
)

// hints say what to do about an error. Of several that match, the first is the one that helps: so causes come before what
// they cause.
var hints = []struct {
	err  error
	hint string
}{
	{keyservice.ErrNoHome, "make one with kmsfs init, or name another with --home or KMSFS_HOME"},
	{keyservice.ErrLocked, "unmount what that process serves, or wait until it has ended"},
	{keyservice.ErrWrongSecret, "give the one that the home was made with, or name another home with --home"},
	{keyservice.ErrSealerMismatch, "open the home with what it was made with: a passphrase, a key file or a systemd credential"},
	{keyservice.ErrDamagedHome, "restore the home from a backup"},
	{errNoPassphrase, "give --passphrase-file or KMSFS_PASSPHRASE_FILE, or start kmsfs on a terminal"},
	{errNoKeyFile, "give --key-file or KMSFS_KEY_FILE"},
	{errKeyNotFound, "name the key service home that has it with --home or KMSFS_HOME"},
	{errInitKeyNotFound, "name another with --key, or leave --key out for " + defaultKeyAlias},
	{fs.ErrNotVolume, "make one with kmsfs init"},
	{fs.ErrVolumeInUse, "unmount it there first, or mount it with --read-only everywhere"},
	{fs.ErrVolumeDamaged, "restore kmsfs.volume from a backup of the volume"},
	{fs.ErrNotEmpty, "name an empty directory or one that doesn't exist"},
	{fs.ErrMountpointInUse, "name an empty directory that nothing is mounted on, or unmount what is there"},
	{fs.ErrNoFusermount, "install the package fuse3, or mount as root"},
	{fs.ErrRefused, "see that the KMS key is enabled and that its policy and grants let you use it"},
	{errInsideVolume, "name a directory outside it"},
	{errNotMounted, "findmnt -t " + fsType + " lists the mountpoints of kmsfs"},
	{errBusy, "close the files and leave the directories in it; fuser -vm MOUNTPOINT says whose they are"},
}

// explainedError is an error whose text has its hint already.
type explainedError struct{ text string }

func (e *explainedError) Error() string { return e.text }

// explain is the error's text, on one line, with what to do about it.
func explain(err error) string {
	text := strings.Join(strings.Fields(strings.ReplaceAll(err.Error(), "\n", "; ")), " ")
	if _, ok := errors.AsType[*explainedError](err); ok {
		return text
	}
	for _, h := range hints {
		if errors.Is(err, h.err) {
			return text + ": " + h.hint
		}
	}
	return text
}
