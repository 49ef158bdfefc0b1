package fs

import (
	"bytes"

	"golang.org/x/sys/unix"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
)

// wrapping is a header that has its data key wrapped anew, and the wrapped form that it had before.
type wrapping struct {
	header envelope.Header
	former []byte
}

// rewrapped asks for the data key to be bound to a KMS key, a path and an owner. The file's header
// stays as it is until storeWrap.
func (c *openFile) rewrapped(o *operation, call keys.Call, key, path string, owner uint32) (wrapping, error) {
	call.Path = o.seen(path)
	h := c.unsealed().Header()
	former, old := h.WrappedKey, o.wrapOf(&h)
	h.Path, h.Owner = path, owner
	if h.NextOwner != nil && *h.NextOwner == owner {
		h.NextOwner = nil
	}
	made, err := o.reEncrypt(call.BySelf(), former, old, keys.Wrap{Key: key, Context: h.Context(o.sealed.ID())})
	if err != nil {
		return wrapping{}, explain(err)
	}
	if err := o.allow(made.KeyARN); err != nil {
		return wrapping{}, err
	}
	h.KeyARN, h.WrappedKey = made.KeyARN, made.Wrapped
	return wrapping{h, former}, nil
}

// storeWrap has the file's header say what rewrapped has returned. It returns errAgain if the file
// has another data key by now. mu is held.
func (c *openFile) storeWrap(w wrapping) error {
	return c.changeHeader(func(now *envelope.Header) error {
		if !bytes.Equal(now.WrappedKey, w.former) {
			return errAgain
		}
		now.KeyARN, now.WrappedKey, now.Path, now.Owner, now.NextOwner = w.header.KeyARN, w.header.WrappedKey, w.header.Path, w.header.Owner, w.header.NextOwner
		return nil
	})
}

// changeWrap is storeWrap in this mount's turn. mu is not held.
func (c *openFile) changeWrap(o *operation, w wrapping) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.writable {
		return unix.EACCES
	}
	return c.use(o, true, func(*envelope.File) error { return c.storeWrap(w) })
}

// broughtUnder asks for the data key to be wrapped under the KMS key of the directory that the file
// is about to lie in. The caller needs the permission to make files there.
func (c *openFile) broughtUnder(o *operation, call keys.Call, key, path string) (wrapping, error) {
	h := c.unsealed().Header()
	h.Path = path
	if _, err := o.mayGenerate(call, keys.Wrap{Key: key, Context: h.Context(o.sealed.ID())}); err != nil {
		return wrapping{}, err
	}
	return c.rewrapped(o, call, key, path, h.Owner)
}
