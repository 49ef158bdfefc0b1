package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"kmsfs/cmd/kmsfs/internal/cli"
	"kmsfs/cmd/kmsfs/internal/filekeys"
	"kmsfs/cmd/kmsfs/internal/session"
	"kmsfs/fs/control"
	disk "kmsfs/fs/volume"
	keyhome "kmsfs/keyservice/home"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/printable"
	"kmsfs/keyservice/remote"
)

// defaultKeyAlias names the KMS key of volumes, unless the user names another.
const defaultKeyAlias = "alias/kmsfs-default"

var (
	errKeyNotFound = cli.Hinted("no such KMS key",
		"name another with --key, or leave --key out for "+defaultKeyAlias)
	errNested = cli.Hinted("the volume and the key service home must not lie in each other",
		"name directories apart from each other")
)

type initOptions struct {
	home, kms      string
	key            string
	plaintextNames bool
	secret         session.SecretOptions
}

// Init is the command "kmsfs init".
func Init() *cobra.Command {
	var o initOptions
	c := &cobra.Command{
		Use: "init [OPTIONS] VOLUME", GroupID: cli.Volumes, Short: "Make a new encrypted volume",
		Long: `
VOLUME is the directory for the ciphertext. It must be empty or not exist.

If there is no key service home, init makes one, and seals it with the first
of these that is given: --passphrase-file or --key-file; $KMSFS_PASSPHRASE_FILE
or $KMSFS_KEY_FILE; the systemd credential "kmsfs". Otherwise it asks for a
passphrase on the terminal. A key file that does not exist is made.

Without --key, the volume's KMS key is alias/kmsfs-default. It is made if it
does not exist.

With --kms, the keys are at a remote key service: no home is made, and --key
names a KMS key there.`,
		Example: `
  kmsfs init ~/vault
  kmsfs init --key-file /etc/kmsfs.key /srv/vault
  kmsfs init --kms aws:eu-central-1 --key alias/vault ~/vault`,
		Args: cli.Exactly(1, "one VOLUME"), ValidArgsFunction: cli.Directories(1),
		RunE: func(_ *cobra.Command, args []string) error { return o.run(args[0]) },
	}
	flags := c.Flags()
	flags.StringVar(&o.key, "key", "", "seal the volume under a KMS `KEY`: ID, alias or ARN")
	flags.BoolVar(&o.plaintextNames, "plaintext-names", false, "encrypt contents, but not names")
	o.secret.Declare(flags)
	session.DeclareHome(flags, &o.home)
	session.DeclareKMS(flags, &o.kms)
	keys := session.Options{}
	keys.CompleteKeyOption(c)
	return c
}

func (o *initOptions) run(named string) (err error) {
	if err := o.secret.Complete(); err != nil {
		return err
	}
	volume, err := control.Resolve(named, true)
	if err != nil {
		return err
	}
	if o.home, err = session.HomeDir(o.home); err != nil {
		return err
	}
	if o.home, err = control.Resolve(o.home, true); err != nil {
		return err
	}
	if o.kms != "" {
		return o.initRemote(volume, named)
	}
	if err := checkNewVolume(volume, o.home); err != nil {
		return err
	}
	if err := session.Harden(); err != nil {
		return err
	}
	var created session.Created
	home, err := o.homeToUse(&created)
	if err != nil {
		return errors.Join(err, created.Undo())
	}
	defer func() { err = errors.Join(err, home.Close()) }()
	arn, err := o.makeVolume(home, volume)
	if err != nil {
		return errors.Join(err, home.Close(), created.Undo())
	}
	if len(created) > 0 {
		fmt.Printf("Key service home %s is made. Back it up, and what opens it: without both, no file can be read.\n",
			printable.Text(o.home))
	}
	announce(volume, arn, named)
	return nil
}

func announce(volume, arn, arguments string) {
	fmt.Printf("Volume %s is ready, its files sealed under %s.\n", printable.Text(volume), printable.Text(arn))
	fmt.Printf("Mount it with: kmsfs mount %s MOUNTPOINT\n", printable.Text(arguments))
}

// initRemote makes a volume whose keys are at a remote key service.
func (o *initOptions) initRemote(volume, named string) (err error) {
	if o.key == "" {
		return cli.Usagef("--kms wants --key: make the KMS key at the key service first")
	}
	if err := remote.CheckURL(o.kms); err != nil {
		return err
	}
	if err := checkNewVolume(volume, session.JournalDir(o.home)); err != nil {
		return err
	}
	service, err := session.OpenRemote(o.kms, o.home, session.VolumeJournal(volume), 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, service.Close()) }()
	arn, err := service.DescribeKey(context.Background(), o.key)
	if session.IsNotFound(err) {
		return fmt.Errorf("%w: %s", errKeyNotFound, o.key)
	}
	if err != nil {
		return err
	}
	if err := o.create(service, volume, arn, session.Self().UID); err != nil {
		return err
	}
	announce(volume, arn, "--kms "+o.kms+" "+named)
	return nil
}

func (o *initOptions) create(service kms.Invoker, volume, arn string, owner uint32) error {
	return disk.Create(disk.CreateOptions{
		Volume: volume, Keys: filekeys.ForCommand(service), Key: arn, PlaintextNames: o.plaintextNames, Owner: owner,
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
		return session.PathError(err)
	case len(entries) > 0:
		return fmt.Errorf("%s: %w", volume, disk.ErrNotEmpty)
	}
	return nil
}

// homeToUse opens the home. If there is none, it makes one, and its key file.
func (o *initOptions) homeToUse(created *session.Created) (*session.Home, error) {
	exists, err := keyhome.Exists(o.home)
	if err != nil {
		return nil, err
	}
	var secret *session.Secret
	if exists {
		secret, err = o.secret.Read(o.home)
	} else {
		secret, err = o.secret.ReadNew()
	}
	if err != nil {
		return nil, err
	}
	defer secret.Wipe()
	session.FinishOnSignals()
	if !exists {
		if err := created.KeyFile(secret); err != nil {
			return nil, err
		}
		if err := created.Home(o.home, secret); err != nil {
			return nil, err
		}
	}
	return session.Open(o.home, secret)
}

// makeVolume writes the volume, after it has made the default key if need be. It returns the KMS
// key's ARN.
func (o *initOptions) makeVolume(h *session.Home, volume string) (arn string, err error) {
	ctx, caller := context.Background(), kms.Caller{Caller: session.Self()}
	key := o.key
	if key == "" {
		key = defaultKeyAlias
	}
	described, err := kms.DescribeKey.Call(ctx, h, caller, &kms.DescribeKeyInput{KeyId: key})
	switch {
	case err == nil:
		arn = described.KeyMetadata.Arn
	case !session.IsNotFound(err):
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

func makeDefaultKey(ctx context.Context, h *session.Home, caller kms.Caller) (arn string, err error) {
	created, err := kms.CreateKey.Call(ctx, h, caller, &kms.CreateKeyInput{Description: "kmsfs volumes"})
	if err != nil {
		return "", err
	}
	_, err = kms.CreateAlias.Call(ctx, h, caller, &kms.CreateAliasInput{
		AliasName: defaultKeyAlias, TargetKeyId: created.KeyMetadata.KeyId,
	})
	return created.KeyMetadata.Arn, err
}
