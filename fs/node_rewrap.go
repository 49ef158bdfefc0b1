package fs

import (
	"errors"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
)

// rewrap wraps data keys anew.
type rewrap struct {
	*operation
	call keys.Call
	in   *inode // the directory
}

// named wraps the data key of the file of that name in a directory anew: under the KMS key that
// holds there, its current key material, and the path where the file is. What is wrapped so already
// is left alone, and directories have no data key. "" on the root stands for the volume's metadata
// key.
func (r rewrap) named(name string) error {
	return r.run(resolving, func() error {
		under, err := r.effective(r.in)
		if err != nil {
			return err
		}
		if name == "" {
			return r.metadata(under.key)
		}
		e, err := r.entry(link{r.in, name})
		if err != nil {
			return err
		}
		defer e.release()
		return r.entryAt(e, under.key)
	})
}

func (r rewrap) entryAt(e dirEntry, key string) error {
	st, err := e.stat()
	if err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return err
	}
	if r.call.Caller.UID != st.Uid && r.call.Caller.UID != 0 {
		return unix.EPERM
	}
	c, err := r.open(r.call, r.found(e, st), e.place(), true)
	if err != nil {
		return err
	}
	return errors.Join(r.file(c, key, e.link.path()), c.release())
}

func (r rewrap) file(c *openFile, key, path string) error {
	r.call.Path = r.seen(path)
	h := c.unsealed().Header()
	if h.Path == path {
		use := keys.Use{Caller: r.call.Caller, Action: keys.ActionDecrypt, Wrap: keys.Wrap{Key: key, Context: h.Context(r.sealed.ID())}, Wrapped: h.WrappedKey}
		if answers, err := r.check([]keys.Use{use}); err != nil || answers[0].Current {
			return err
		}
	}
	next, err := c.broughtUnder(r.operation, r.call, key, path)
	if err != nil {
		return err
	}
	return c.changeWrap(r.operation, next)
}

// metadata wraps the volume's metadata key under the KMS key that holds in the root. From then
// on, that is the volume's key.
func (r rewrap) metadata(key string) error {
	if r.in != r.root {
		return unix.EINVAL
	}
	if !r.isAdministrator(r.call) {
		return unix.EPERM
	}
	config := r.sealed.Config()
	to := keys.Wrap{Key: key, Context: config.Context()}
	if _, err := r.mayGenerate(r.call, to); err != nil {
		return err
	}
	made, err := r.reEncrypt(r.call.BySelf(), config.MetadataKey, keys.Wrap{Key: config.MetadataKeyARN, Context: config.Context()}, to)
	if err != nil {
		return err
	}
	if err := r.allow(made.KeyARN); err != nil {
		return err
	}
	return r.disk.ChangeConfig(func(c *envelope.Config) error {
		c.KeyARN, c.MetadataKeyARN, c.MetadataKey = made.KeyARN, made.KeyARN, made.Wrapped
		return nil
	})
}
