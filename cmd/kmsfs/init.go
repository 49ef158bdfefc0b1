package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/control"
	disk "kmsfs/fs/volume"
	"kmsfs/keyservice"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/remote"
)

const (
	// volumeFile is the file that makes a directory a volume.
	volumeFile = envelope.ConfigName
	// defaultKeyAlias names the KMS key of volumes whose owner names none.
	defaultKeyAlias = "alias/kmsfs-default"
)

var (
	errKeyNotFound = errors.New("no such KMS key")
	errNested      = errors.New("the volume and the key service home must not lie in each other")
)

type initOptions struct {
	home, kms      string
	key            string
	plaintextNames bool
	secret         secretOptions
}

func initCommand() command {
	return command{
		name:      "init",
		arguments: "[OPTIONS] VOLUME",
		summary:   "make a new encrypted volume",
		details: `
Makes a volume: a directory that holds ciphertext, empty or not there yet. Makes the key service home too, if there is none,
and a KMS key with alias/kmsfs-default, if no key is named and it isn't there.

A new home is sealed with what is given first: a passphrase file or a key file by option; $KMSFS_PASSPHRASE_FILE or
$KMSFS_KEY_FILE; the systemd credential "kmsfs"; a passphrase asked for on the terminal. A key file that doesn't exist is made.

With --kms, the volume's keys are at a key service elsewhere, no home is made, and --key has to name a KMS key there.

Examples:
  kmsfs init ~/vault
  kmsfs init --key-file /etc/kmsfs.key /srv/vault
  kmsfs init --kms aws:eu-central-1 --key alias/vault ~/vault
  kmsfs init --key alias/finance --plaintext-names ~/invoices`,
		prepare: func(flags *pflag.FlagSet) func([]string) error {
			var o initOptions
			flags.StringVar(&o.key, "key", "", "KMS `KEY` for the volume: ID, alias or ARN (default "+defaultKeyAlias+")")
			flags.BoolVar(&o.plaintextNames, "plaintext-names", false, "encrypt contents, but not names")
			o.secret.declare(flags)
			declareHome(flags, &o.home)
			declareKMS(flags, &o.kms)
			return o.run
		},
	}
}

func (o *initOptions) run(args []string) (err error) {
	if len(args) != 1 {
		return usagef("init", "want one VOLUME, got %d arguments", len(args))
	}
	if err := o.secret.complete(); err != nil {
		return err
	}
	volume, err := control.Resolve(args[0], true)
	if err != nil {
		return err
	}
	if o.home, err = homeDir(o.home); err != nil {
		return err
	}
	if o.home, err = control.Resolve(o.home, true); err != nil {
		return err
	}
	if o.kms != "" {
		return o.initRemote(volume, args[0])
	}
	if err := checkNewVolume(volume, o.home); err != nil {
		return err
	}
	if err := harden(); err != nil {
		return err
	}
	var made made
	home, err := o.homeToUse(&made)
	if err != nil {
		return errors.Join(err, made.undo())
	}
	defer func() { err = errors.Join(err, home.close()) }()
	arn, err := o.makeVolume(home, volume)
	if err != nil {
		return errors.Join(err, home.close(), made.undo())
	}
	if len(made) > 0 {
		fmt.Printf("Key service home %s is made. Back it up, and what opens it: without both, no file can be read.\n", o.home)
	}
	announce(volume, arn, args[0])
	return nil
}

func announce(volume, arn, arguments string) {
	fmt.Printf("Volume %s is ready, its files sealed under %s.\n", volume, arn)
	fmt.Printf("Mount it with: kmsfs mount %s MOUNTPOINT\n", arguments)
}

// initRemote makes a volume whose keys are at a key service elsewhere.
func (o *initOptions) initRemote(volume, named string) (err error) {
	if o.key == "" {
		return usagef("init", "--kms wants --key: the KMS key is made at the key service")
	}
	if err := remote.CheckURL(o.kms); err != nil {
		return err
	}
	if err := checkNewVolume(volume, journalDir(o.home)); err != nil {
		return err
	}
	service, err := openRemote(o.kms, o.home, volumeJournal(volume), 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, service.Close()) }()
	arn, err := service.DescribeKey(context.Background(), o.key)
	if notFound(err) {
		return fmt.Errorf("%w: %s", errKeyNotFound, o.key)
	}
	if err != nil {
		return err
	}
	if err := o.create(service, volume, arn, self().UID); err != nil {
		return err
	}
	announce(volume, arn, "--kms "+o.kms+" "+named)
	return nil
}

func (o *initOptions) create(service kms.Invoker, volume, arn string, owner uint32) error {
	return disk.Create(disk.CreateOptions{
		Volume: volume, Keys: keyAdapter{api: service}, Key: arn, PlaintextNames: o.plaintextNames, Owner: owner,
	})
}

// checkNewVolume refuses a place for a volume before anything is made for it.
func checkNewVolume(volume, home string) error {
	if control.Within(volume, home) || control.Within(home, volume) {
		return fmt.Errorf("volume %s, home %s: %w", volume, home, errNested)
	}
	entries, err := os.ReadDir(volume)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return checkDirectory(filepath.Dir(volume), errNoDirectory)
	case err != nil:
		return pathError(err)
	case len(entries) > 0:
		return fmt.Errorf("%s: %w", volume, disk.ErrNotEmpty)
	}
	return nil
}

// homeToUse opens the home, or makes it, with the key file that opens it.
func (o *initOptions) homeToUse(made *made) (*home, error) {
	exists, err := keyservice.Exists(o.home)
	if err != nil {
		return nil, err
	}
	var secret *secret
	if exists {
		secret, err = o.secret.read(o.home)
	} else {
		secret, err = o.secret.readNew()
	}
	if err != nil {
		return nil, err
	}
	defer secret.wipe()
	finishOnSignals()
	if !exists {
		if err := made.keyFile(secret); err != nil {
			return nil, err
		}
		if err := made.home(o.home, secret); err != nil {
			return nil, err
		}
	}
	return openHome(o.home, secret)
}

// makeVolume writes the volume, and the default key if it is needed and isn't there. It returns the KMS key's ARN.
func (o *initOptions) makeVolume(h *home, volume string) (arn string, err error) {
	ctx, caller := context.Background(), kms.Caller{Caller: self()}
	key := o.key
	if key == "" {
		key = defaultKeyAlias
	}
	described, err := kms.DescribeKey.Call(ctx, h, caller, &kms.DescribeKeyInput{KeyId: key})
	switch {
	case err == nil:
		arn = described.KeyMetadata.Arn
	case !notFound(err):
		return "", err
	case o.key != "":
		return "", fmt.Errorf("%w: %s", errKeyNotFound, o.key)
	default:
		if arn, err = makeDefaultKey(ctx, h, caller); err != nil {
			return "", err
		}
	}
	return arn, o.create(h, volume, arn, caller.UID)
}

func makeDefaultKey(ctx context.Context, h *home, caller kms.Caller) (arn string, err error) {
	created, err := kms.CreateKey.Call(ctx, h, caller, &kms.CreateKeyInput{Description: "kmsfs volumes"})
	if err != nil {
		return "", err
	}
	_, err = kms.CreateAlias.Call(ctx, h, caller, &kms.CreateAliasInput{
		AliasName: defaultKeyAlias, TargetKeyId: created.KeyMetadata.KeyId,
	})
	return created.KeyMetadata.Arn, err
}

func notFound(err error) bool {
	e, ok := errors.AsType[*kms.Error](err)
	return ok && e.Code == kms.CodeNotFound
}

// finishOnSignals lets what has begun come to its end, which is a matter of seconds, rather than leave it half-made.
func finishOnSignals() {
	signal.Notify(make(chan os.Signal, 1), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
}
