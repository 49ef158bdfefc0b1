package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"go.etcd.io/bbolt"
)

// The buckets. Those whose values are sealed are the tables of the Sealer.
const (
	metaBucket     = "meta"
	keyBucket      = "keys"
	materialBucket = "materials"
	policyBucket   = "policies"
	aliasBucket    = "aliases"
	grantBucket    = "grants"
	usageBucket    = "usage"

	accessKeyBucket = "access-keys"
	markerBucket    = "markers" // volume ID, "/", marker ID

	// Indexes: what they say is in their keys, their values are empty.
	keyAliasBucket = "key-aliases"  // key ID, alias name
	granteeBucket  = "grantees"     // key ID, grantee's digest, grant ID
	retirerBucket  = "retirers"     // retirer's digest, key ID, grant ID
	dueBucket      = "agenda"       // time, Due
	nameBucket     = "named-grants" // key ID, digest of the grant's parameters; the value is the grant ID
	countBucket    = "counts"       // what is counted; the value is a number
)

var buckets = []string{
	metaBucket, keyBucket, materialBucket, policyBucket, aliasBucket, grantBucket, usageBucket, accessKeyBucket, markerBucket,
	keyAliasBucket, granteeBucket, retirerBucket, dueBucket, nameBucket, countBucket,
}

// The keys in the meta bucket.
const (
	versionKey = "version"
	factsKey   = "facts"
	policyKey  = "policy"
	auditKey   = "audit head"
	settingKey = "audit settings"
	exportKey  = "audit exported"
	sentKey    = "audit sent"
)

// digestSize is the size in bytes of the digests in indexes.
const digestSize = 16

// Tx is a change under way, or a state that is read.
type Tx struct {
	tx     *bbolt.Tx
	sealer Sealer
}

func (t *Tx) bucket(name string) *bbolt.Bucket { return t.tx.Bucket([]byte(name)) }

func (t *Tx) seal(bucket string, id, value []byte) error {
	return t.bucket(bucket).Put(id, t.sealer.Seal(bucket, id, value))
}

// unseal returns a record; nil if there is none.
func (t *Tx) unseal(bucket string, id []byte) ([]byte, error) {
	sealed := t.bucket(bucket).Get(id)
	if sealed == nil {
		return nil, nil
	}
	return t.open(bucket, id, sealed)
}

func (t *Tx) open(bucket string, id, sealed []byte) ([]byte, error) {
	value, err := t.sealer.Open(nil, bucket, id, sealed)
	if err != nil {
		return nil, fmt.Errorf("%w: %s %x does not open", ErrDamaged, bucket, id)
	}
	return value, nil
}

func (t *Tx) put(bucket string, id []byte, record any) error {
	value, err := json.Marshal(record)
	if err != nil {
		return err
	}
	return t.seal(bucket, id, value)
}

// get reads a record, and says whether there is one.
func (t *Tx) get(bucket string, id []byte, record any) (bool, error) {
	value, err := t.unseal(bucket, id)
	if value == nil || err != nil {
		return false, err
	}
	if err := decode(value, record); err != nil {
		return false, fmt.Errorf("%w: %s %x: %w", ErrDamaged, bucket, id, err)
	}
	return true, nil
}

// count adds to a number.
func (t *Tx) count(id []byte, change int) error {
	n := t.counted(id) + change
	if n <= 0 {
		return t.bucket(countBucket).Delete(id)
	}
	return t.bucket(countBucket).Put(id, binary.BigEndian.AppendUint32(nil, uint32(n)))
}

func (t *Tx) counted(id []byte) int {
	if value := t.bucket(countBucket).Get(id); len(value) == 4 {
		return int(binary.BigEndian.Uint32(value))
	}
	return 0
}

// within calls f with what comes behind the prefix in the keys of a bucket that begin with it, from
// the first one behind after (which has no prefix), as long as f returns true.
func (t *Tx) within(bucket string, prefix, after []byte, f func(rest, value []byte) (bool, error)) error {
	c := t.bucket(bucket).Cursor()
	for k, v := c.Seek(join(prefix, after)); k != nil && bytes.HasPrefix(k, prefix); k, v = c.Next() {
		rest := k[len(prefix):]
		if len(after) > 0 && bytes.Equal(rest, after) {
			continue
		}
		if more, err := f(rest, v); !more || err != nil {
			return err
		}
	}
	return nil
}

// join returns the parts behind one another, in memory of their own.
func join(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

// digest stands for a text in an index.
func digest(text string) []byte {
	d := sha256.Sum256([]byte(text))
	return d[:digestSize]
}

// Facts are the home's, as Create was given them.
func (t *Tx) Facts() ([]byte, error) {
	facts, err := t.unseal(metaBucket, []byte(factsKey))
	if err == nil && facts == nil {
		err = fmt.Errorf("%w: the home's facts are missing", ErrDamaged)
	}
	return facts, err
}

// ServicePolicy is the home's service policy; nil if none was put.
func (t *Tx) ServicePolicy() ([]byte, error) { return t.unseal(metaBucket, []byte(policyKey)) }

// PutServicePolicy stores the home's service policy.
func (t *Tx) PutServicePolicy(document []byte) error {
	return t.seal(metaBucket, []byte(policyKey), document)
}

// AuditHead is what the audit log is known to end with; nil if nothing is known yet.
func (t *Tx) AuditHead() ([]byte, error) { return t.unseal(metaBucket, []byte(auditKey)) }

// PutAuditHead stores that.
func (t *Tx) PutAuditHead(head []byte) error { return t.seal(metaBucket, []byte(auditKey), head) }

// AuditExported is the number of the first record of the last segment whose digest was exported; 0
// if none was.
func (t *Tx) AuditExported() (uint64, error) { return t.number(exportKey) }

// AuditSent is the number of the last audit record that was sent; 0 if none was.
func (t *Tx) AuditSent() (uint64, error) { return t.number(sentKey) }

// PutAuditSent stores that.
func (t *Tx) PutAuditSent(sequence uint64) error {
	return t.seal(metaBucket, []byte(sentKey), binary.BigEndian.AppendUint64(nil, sequence))
}

// number is one in the meta bucket; 0 if there is none.
func (t *Tx) number(key string) (uint64, error) {
	number, err := t.unseal(metaBucket, []byte(key))
	if err != nil || number == nil {
		return 0, err
	}
	if len(number) != 8 {
		return 0, fmt.Errorf("%w: %s is no number", ErrDamaged, key)
	}
	return binary.BigEndian.Uint64(number), nil
}

// PutAuditExported stores that.
func (t *Tx) PutAuditExported(segment uint64) error {
	return t.seal(metaBucket, []byte(exportKey), binary.BigEndian.AppendUint64(nil, segment))
}

// AuditSettings are those of the audit log; nil if none were put.
func (t *Tx) AuditSettings() ([]byte, error) { return t.unseal(metaBucket, []byte(settingKey)) }

// PutAuditSettings stores them.
func (t *Tx) PutAuditSettings(settings []byte) error {
	return t.seal(metaBucket, []byte(settingKey), settings)
}
