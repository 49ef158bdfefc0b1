package fs

import (
	"bytes"
	"context"
	"errors"
	"slices"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
	"kmsfs/fs/lock"
)

// errNoFreshKey says that a file needs a new data key before it can be changed: it was or is made
// empty.
var errNoFreshKey = errors.New("the file needs a new data key")

// freshKey is a data key for a file that becomes empty. Package envelope asks for it with the
// file's lock held, so it is fetched before: the first attempt to change the file fails with
// errNoFreshKey, and the next one finds the key.
type freshKey struct {
	mu     lock.Mutex[lock.FreshKey] // guards what follows
	former []byte                    // the wrapped form of the data key that the file has until then
	header envelope.Header
	key    []byte
}

// take gives the key to package envelope, which copies what it needs.
func (k *freshKey) take(old envelope.Header) (envelope.Header, []byte, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.key == nil || !bytes.Equal(k.former, old.WrappedKey) {
		return envelope.Header{}, nil, errNoFreshKey
	}
	old.KeyARN, old.WrappedKey = k.header.KeyARN, k.header.WrappedKey
	return old, k.key, nil
}

func (k *freshKey) put(former envelope.Header, made keys.DataKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.key)
	k.former, k.key = former.WrappedKey, made.Plaintext
	k.header = envelope.Header{KeyARN: made.KeyARN, WrappedKey: made.Wrapped}
}

func (k *freshKey) wipe() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.key)
	k.key = nil
}

// fetchFreshKey asks the key service for a new data key for the file. The operation is to be tried
// again then.
func (c *openFile) fetchFreshKey(o *operation) error {
	h := c.unsealed().Header()
	w := c.v.wrapOf(&h)
	question := unambiguous("fresh", string(h.WrappedKey)) // each data key of the file is replaced by one of its own
	a, err := o.ask(question, func(ctx context.Context) (a answer) {
		a.key, a.err = o.service.GenerateDataKey(ctx, keys.Self("truncate"), w.Key, w.Context)
		return a
	})
	if err != nil {
		return err
	}
	made := a.key
	made.Plaintext = slices.Clone(made.Plaintext)
	c.fresh.put(h, made)
	return errAgain
}
