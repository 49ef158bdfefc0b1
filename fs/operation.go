package fs

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"kmsfs/envelope"
	"kmsfs/fs/keys"
)

// request is what the kernel asks for, or what the file system does of itself: it has a context,
// and its questions to the key service.
type request struct {
	*volume
	questions
}

// resolver finds directories, names, and the policies that hold there. Its methods are called with
// volume.tree locked.
type resolver struct{ request }

// operation opens what a request is about. Its methods are called with volume.tree locked.
type operation struct{ resolver }

// operation begins one. The caller ends it.
func (v *volume) operation(ctx context.Context) *operation {
	return &operation{resolver{request{v, questions{ctx: ctx, service: v.keys}}}}
}

// end wipes the data keys that the operation was given.
func (o *request) end() { o.forget() }

// errAgain says that something has changed since an operation asked the key service about it: the
// operation starts again.
var errAgain = errors.New("changed meanwhile")

// run calls do with the names locked. When do needs an answer of the key service, run releases the
// lock, calls the service, and calls do again: see questions.
func (o *request) run(how nameAccess, do func() error) error {
	return o.repeat(func() error { return how.locked(o.tree, do) })
}

// repeat calls do, which takes and releases all locks that it needs, until it has all answers.
func (o *request) repeat(do func() error) error {
	var interrupted time.Time // when an interruption of the caller was seen first
	for {
		err := do()
		var open *unanswered
		switch {
		case errors.As(err, &open):
			if err := o.resolve(open); err != nil {
				return err
			}
		case errors.Is(err, errAgain):
			if err := o.ctx.Err(); err != nil && interrupted.IsZero() {
				interrupted = time.Now()
			} else if err != nil && time.Since(interrupted) > interruptGrace {
				return err
			}
		default:
			return err
		}
	}
}

// allow adds a KMS key to those that files of the volume may be wrapped under.
func (o *request) allow(keyARN string) error {
	if o.disk.Allows(keyARN) {
		return nil
	}
	event := keys.Event{Name: keys.EventKeyAllowed, KeyARN: keyARN, Details: map[string]string{"volume": o.path}}
	if err := o.record(keys.Self("policy"), event); err != nil {
		return err
	}
	err := o.disk.ChangeConfig(func(c *envelope.Config) error {
		if !slices.Contains(c.KeyARNs, keyARN) {
			c.KeyARNs = append(c.KeyARNs, keyARN)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%s: adding the KMS key %s: %w", o.path, keyARN, err)
	}
	return nil
}

// wrapOf is what a header says that the file's data key is bound to.
func (v *volume) wrapOf(h *envelope.Header) keys.Wrap {
	return keys.Wrap{Key: h.KeyARN, Context: h.Context(v.sealed.ID())}
}
