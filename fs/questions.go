package fs

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"kmsfs/fs/keys"
	"kmsfs/fs/lock"
)

// questions are what an operation asks of the key service, and the answers that it has.
//
// Code that holds locks asks as if it called the service. A question without an answer is an error,
// *unanswered, that the code returns like any other error. request.run then releases all locks,
// calls the service, and runs the code again. The code resolves everything anew, finds the answers
// to the questions that it asks again, and asks anew what has changed meanwhile. So code asks
// before it changes anything.
type questions struct {
	ctx     context.Context // ends when the caller is interrupted
	service keys.Service
	answers map[string]*answer
}

// answer is what the key service said.
type answer struct {
	key     keys.DataKey // Plaintext is wiped by forget
	answers []keys.Answer
	err     error
}

// unanswered is the error for a question that has no answer yet.
type unanswered struct {
	question string
	call     func(ctx context.Context) answer
}

func (*unanswered) Error() string { return "the key service has not been asked yet" }

// isUnanswered says whether an error must be passed on to request.run.
func isUnanswered(err error) bool {
	var open *unanswered
	return errors.As(err, &open)
}

// interruptGrace is how long a call may go on after a signal has interrupted the caller. Many
// signals end no program (SIGCHLD, a profiler's timer). A key service that answers within this time
// never makes an open fail with EINTR.
const interruptGrace = 500 * time.Millisecond

// resolve calls the key service for a question. The caller holds no lock.
func (q *questions) resolve(open *unanswered) error {
	lock.AssertNone("the key service")
	ctx, cancel := context.WithCancel(context.WithoutCancel(q.ctx))
	defer cancel()
	stop := context.AfterFunc(q.ctx, func() {
		time.AfterFunc(interruptGrace, cancel)
	})
	defer stop()
	a := open.call(ctx)
	if a.err != nil && ctx.Err() != nil {
		return fmt.Errorf("waiting for the key service: %w", context.Canceled)
	}
	if q.answers == nil {
		q.answers = map[string]*answer{}
	}
	q.answers[open.question] = &a
	return nil
}

// forget wipes the data keys that were given as answers.
func (q *questions) forget() {
	for _, a := range q.answers {
		clear(a.key.Plaintext)
	}
	q.answers = nil
}

func (q *questions) ask(question string, call func(ctx context.Context) answer) (*answer, error) {
	if a := q.answers[question]; a != nil {
		return a, a.err
	}
	return nil, &unanswered{question, call}
}

// unambiguous joins what a question consists of: two different questions have different texts.
func unambiguous(parts ...any) string {
	var b strings.Builder
	for _, part := range parts {
		s := fmt.Sprint(part)
		fmt.Fprintf(&b, "%d:%s", len(s), s)
	}
	return b.String()
}

func contextText(encryptionContext map[string]string) string {
	var parts []any
	for _, name := range slices.Sorted(maps.Keys(encryptionContext)) {
		parts = append(parts, name, encryptionContext[name])
	}
	return unambiguous(parts...)
}

// generate asks for a new data key. The caller wipes it.
func (q *questions) generate(call keys.Call, w keys.Wrap) (keys.DataKey, error) {
	question := unambiguous("generate", call.Own, w.Key, contextText(w.Context))
	a, err := q.ask(question, func(ctx context.Context) (a answer) {
		a.key, a.err = q.service.GenerateDataKey(ctx, call, w.Key, w.Context)
		return a
	})
	if err != nil {
		return keys.DataKey{}, err
	}
	made := a.key
	made.Plaintext = slices.Clone(made.Plaintext)
	return made, nil
}

// mayGenerate denies a caller that may not make data keys under a KMS key (ID, alias or ARN), by
// making one. It returns the ARN of the KMS key.
func (q *questions) mayGenerate(call keys.Call, w keys.Wrap) (arn string, err error) {
	key, err := q.generate(call, w)
	clear(key.Plaintext)
	return key.KeyARN, err
}

// decrypt asks for an unwrapped data key. The caller wipes it.
func (q *questions) decrypt(call keys.Call, w keys.Wrap, wrapped []byte) ([]byte, error) {
	question := unambiguous("decrypt", call.Own, w.Key, contextText(w.Context), string(wrapped))
	a, err := q.ask(question, func(ctx context.Context) (a answer) {
		a.key.Plaintext, a.err = q.service.Decrypt(ctx, call, w.Key, wrapped, w.Context)
		return a
	})
	if err != nil {
		return nil, err
	}
	return slices.Clone(a.key.Plaintext), nil
}

// mayDecrypt denies a caller that may not decrypt.
func (q *questions) mayDecrypt(call keys.Call, w keys.Wrap, wrapped []byte) error {
	key, err := q.decrypt(call, w, wrapped)
	clear(key)
	return err
}

// reEncrypt asks for a data key to be wrapped anew.
func (q *questions) reEncrypt(call keys.Call, wrapped []byte, from, to keys.Wrap) (keys.DataKey, error) {
	question := unambiguous("reEncrypt", call.Own, from.Key, contextText(from.Context), string(wrapped), to.Key, contextText(to.Context))
	a, err := q.ask(question, func(ctx context.Context) (a answer) {
		a.key, a.err = q.service.ReEncrypt(ctx, call, wrapped, from, to)
		return a
	})
	if err != nil {
		return keys.DataKey{}, err
	}
	return a.key, nil
}

// check asks which uses are allowed.
func (q *questions) check(uses []keys.Use) ([]keys.Answer, error) {
	parts := []any{"check"}
	for _, u := range uses {
		parts = append(parts, u.Caller, u.Action, u.Key, contextText(u.Context), string(u.Wrapped))
	}
	a, err := q.ask(unambiguous(parts...), func(ctx context.Context) (a answer) {
		a.answers, a.err = q.service.Check(ctx, uses)
		return a
	})
	if err != nil {
		return nil, err
	}
	return a.answers, nil
}

// record has an event written into the audit log, once. It comes before what the event reports, so
// that nothing happens that can't be recorded.
func (q *questions) record(call keys.Call, event keys.Event) error {
	question := unambiguous("record", event.Name, event.KeyARN, contextText(event.Context), contextText(event.Details))
	_, err := q.ask(question, func(ctx context.Context) (a answer) {
		a.err = q.service.Record(ctx, call, event)
		return a
	})
	return err
}
