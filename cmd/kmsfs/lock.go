package main

import (
	"fmt"

	"github.com/spf13/pflag"

	"kmsfs/fs/control"
	"kmsfs/keyservice/kms"
)

func lockCommand() command {
	return command{
		name: "lock", arguments: "[OPTIONS] MOUNTPOINT|KEY", summary: "take data away at once, until it is unlocked",
		details: `
Locks a mount: its files' keys are wiped, what is open fails, and nothing can be opened until kmsfs unlock. Names stay visible. Or locks a KMS key, in all
mounts and for all uses: that is kmsfs key disable.

Examples:
  kmsfs lock ~/clear
  kmsfs lock alias/finance`,
		prepare: func(flags *pflag.FlagSet) func([]string) error { return prepareLock(flags, true) },
	}
}

func unlockCommand() command {
	return command{
		name: "unlock", arguments: "[OPTIONS] MOUNTPOINT|KEY", summary: "give back what was locked",
		details: `
Ends what kmsfs lock has begun: files can be opened again, and those that were open can be used again. A KMS key is enabled, as by kmsfs key enable.

Examples:
  kmsfs unlock ~/clear
  kmsfs unlock alias/finance`,
		prepare: func(flags *pflag.FlagSet) func([]string) error { return prepareLock(flags, false) },
	}
}

// prepareLock locks or unlocks a mount, or else the KMS key of that name.
func prepareLock(flags *pflag.FlagSet, lock bool) func([]string) error {
	var o serviceOptions
	o.declare(flags)
	return func(args []string) error {
		if len(args) != 1 {
			return usagef("", "want one MOUNTPOINT or KEY, got %d arguments", len(args))
		}
		path, _, ok, err := control.Find(args[0])
		if err != nil {
			return err
		}
		if ok {
			return lockMount(args[0], lock)
		}
		if isDirectory(path) {
			return fmt.Errorf("%s: %w", args[0], control.ErrNotMounted)
		}
		return o.call(func(s *session) error { return s.lockKey(args[0], lock) })
	}
}

func lockMount(mountpoint string, lock bool) error {
	dir, err := control.Open(mountpoint)
	if err != nil {
		return err
	}
	defer dir.Close()
	if lock {
		return dir.Set(control.Locked, control.Yes)
	}
	return dir.Remove(control.Locked)
}

// lockKey disables a KMS key, or enables it.
func (s *session) lockKey(key string, lock bool) error {
	arn, err := s.keyARN(key)
	if err != nil {
		return err
	}
	if lock {
		_, err = kms.DisableKey.Call(s.ctx, s, s.caller, &kms.DisableKeyInput{KeyId: arn})
	} else {
		_, err = kms.EnableKey.Call(s.ctx, s, s.caller, &kms.EnableKeyInput{KeyId: arn})
	}
	return err
}
