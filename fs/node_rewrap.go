package fs

import (
	"errors"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
)

// rewrap wraps the data key of the file of that name in a directory anew: under the KMS key that
// holds there, its current key material, and the path where the file is. What is wrapped so already
// is left alone, and directories have no data key. "" on the root stands for the volume's metadata
// key.
func (o *operation) rewrap(call keys.Call, in *inode, name string) error {
	return o.run(resolving, func() error {
		under, err := o.effective(in)
		if err != nil {
			return err
		}
		if name == "" {
			return o.rewrapMetadata(call, in, under.key)
		}
		e, err := o.entry(link{in, name})
		if err != nil {
			return err
		}
		defer e.release()
		return o.rewrapEntry(call, e, under.key)
	})
}

func (o *operation) rewrapEntry(call keys.Call, e dirEntry, key string) error {
	st, err := e.stat()
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return err
	}
	if call.Caller.UID != st.Uid && call.Caller.UID != 0 {
		return unix.EPERM
	}
	c, err := o.open(call, o.found(e, st), e.place(), true)
	if err != nil {
		return err
	}
	return errors.Join(c.rewrapUnder(o, call, key, e.link.path()), c.release())
}

func (c *openFile) rewrapUnder(o *operation, call keys.Call, key, path string) error {
	call.Path = o.seen(path)
	h := c.unsealed().Header()
	if h.Path == path {
		use := keys.Use{Caller: call.Caller, Action: keys.ActionDecrypt, Wrap: keys.Wrap{Key: key, Context: h.Context(o.sealed.ID())}, Wrapped: h.WrappedKey}
		if answers, err := o.check([]keys.Use{use}); err != nil || answers[0].Current {
			return err
		}
	}
	next, err := c.broughtUnder(o, call, key, path)
	if err != nil {
		return err
	}
	return c.changeWrap(o, next)
}

// rewrapMetadata wraps the volume's metadata key under the KMS key that holds in the root. From then
// on, that is the volume's key.
func (o *operation) rewrapMetadata(call keys.Call, in *inode, key string) error {
	if in != o.root {
		return unix.EINVAL
	}
	if !o.isAdministrator(call) {
		return unix.EPERM
	}
	config := o.sealed.Config()
	to := keys.Wrap{Key: key, Context: config.Context()}
	if _, err := o.mayGenerate(call, to); err != nil {
		return err
	}
	made, err := o.reEncrypt(call.BySelf(), config.MetadataKey, keys.Wrap{Key: config.MetadataKeyARN, Context: config.Context()}, to)
	if err != nil {
		return err
	}
	if err := o.allow(made.KeyARN); err != nil {
		return err
	}
	return o.disk.ChangeConfig(func(c *envelope.Config) error {
		c.KeyARN, c.MetadataKeyARN, c.MetadataKey = made.KeyARN, made.KeyARN, made.Wrapped
		return nil
	})
}
