package volume

import (
	"path/filepath"
	"strings"

	"kmsfs/cmd/kmsfs/internal/cli"
	"kmsfs/cmd/kmsfs/internal/session"
	"kmsfs/fs/control"
)

// mountOptions say what to mount, where and how. They reach the daemon as JSON.
type mountOptions struct {
	Home string
	// KMS is the URL of a remote key service; empty for the home's.
	KMS string
	// KMSCache is how long branch keys of that service are used: a duration, or "none".
	KMSCache           string
	Volume, Mountpoint string
	AllowOther         bool
	ReadOnly           bool
	// Shared says that other mounts may change the volume at the same time.
	Shared bool
	// Kernel has further options for the kernel, such as noexec.
	Kernel []string
	Secret session.SecretOptions
}

// kernelOptions are for the kernel.
var kernelOptions = set("suid", "nosuid", "dev", "nodev", "exec", "noexec", "atime", "noatime", "diratime", "nodiratime",
	"relatime", "norelatime", "strictatime", "nostrictatime", "lazytime", "nolazytime", "sync", "async", "dirsync")

// ignoredOptions are for mount(8) and systemd, which pass them on, or name what kmsfs does anyway.
var ignoredOptions = set("defaults", "auto", "noauto", "nofail", "_netdev", "user", "nouser", "users", "owner", "group",
	"default_permissions", "silent", "loud")

// apply takes options in mount(8)'s form: a list with commas between. With sloppy, it ignores
// unknown ones.
func (o *mountOptions) apply(list string, sloppy bool) error {
	for option := range strings.SplitSeq(list, ",") {
		name, value, hasValue := strings.Cut(option, "=")
		switch {
		case option == "":
		case option == "rw":
			o.ReadOnly = false
		case option == "ro":
			o.ReadOnly = true
		case option == "shared":
			o.Shared = true
		case option == "allow_other":
			o.AllowOther = true
		case hasValue && value != "" && name == "home":
			o.Home = value
		case hasValue && value != "" && name == "kms":
			o.KMS = value
		case hasValue && value != "" && name == "kms_cache":
			o.KMSCache = value
		case hasValue && value != "" && name == "passphrase_file":
			o.Secret.PassphraseFile = value
		case hasValue && value != "" && name == "key_file":
			o.Secret.KeyFile = value
		case kernelOptions[option]:
			o.Kernel = append(o.Kernel, option)
		case ignoredOptions[option], name == "user" && hasValue, name == "comment" && hasValue,
			strings.HasPrefix(option, "x-"), strings.HasPrefix(option, "X-"):
		case !sloppy:
			return cli.Usagef("unknown mount option %q", option)
		}
	}
	return nil
}

// absolute makes the paths valid in every working directory.
func (o *mountOptions) absolute() error {
	var err error
	for _, path := range []*string{&o.Home, &o.Secret.PassphraseFile, &o.Secret.KeyFile} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return err
		}
	}
	if o.Volume, err = control.Resolve(o.Volume, true); err != nil {
		return err
	}
	o.Mountpoint, err = control.Resolve(o.Mountpoint, true)
	return err
}

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, name := range names {
		m[name] = true
	}
	return m
}
