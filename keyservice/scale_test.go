package keyservice

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/google/uuid"

	"kmsfs/keyservice/home"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/material"
	"kmsfs/keyservice/sealer"
	"kmsfs/keyservice/store"
	"kmsfs/policy"
	"kmsfs/policy/caller"
)

const (
	manyKeys   = 100_000
	manyGrants = 1_000_000
)

// BenchmarkOpen opens a home of many keys and grants, and uses one of them. Making the home takes a minute or two.
func BenchmarkOpen(b *testing.B) {
	dir, secret, key, blob := largeHome(b)
	stranger := kms.Caller{Caller: caller.Caller{UID: 5, GID: 5, Groups: []uint32{5}}}
	for b.Loop() {
		s, err := Open(dir, secret)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := kms.Decrypt.Call(context.Background(), s, stranger, &kms.DecryptInput{KeyId: key, CiphertextBlob: blob}); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
	s, err := Open(dir, secret)
	if err != nil {
		b.Fatal(err)
	}
	var memory runtime.MemStats
	runtime.GC()
	runtime.GC() // what the first one found to be finalised
	runtime.ReadMemStats(&memory)
	b.ReportMetric(float64(memory.HeapAlloc)/1e6, "MB-heap")
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}

// largeHome makes a home with ten grants for each of its keys, by the store's own means: each of them durably would take hours.
func largeHome(b *testing.B) (dir string, secret sealer.Sealer, key string, blob []byte) {
	keyFile := filepath.Join(b.TempDir(), "key")
	if err := sealer.CreateKeyFile(keyFile); err != nil {
		b.Fatal(err)
	}
	secret, err := sealer.NewKeyFile(keyFile)
	if err != nil {
		b.Fatal(err)
	}
	dir = filepath.Join(b.TempDir(), "home")
	if err := home.Init(home.InitOptions{Dir: dir, Sealer: secret, Owner: uint32(os.Geteuid())}); err != nil {
		b.Fatal(err)
	}
	slots := make([]byte, manyKeys*store.SlotSize)
	rand.Read(slots)
	if err := os.WriteFile(filepath.Join(dir, "slots"), slots, 0o600); err != nil {
		b.Fatal(err)
	}
	s, err := Open(dir, secret)
	if err != nil {
		b.Fatal(err)
	}
	const batch = 5000
	for from := 0; from < manyKeys; from += batch {
		if err := s.store.Update(func(tx *store.Tx) error {
			for i := from; i < from+batch; i++ {
				if err := addLargeKey(s, tx, uint32(i), slots[i*store.SlotSize:][:store.SlotSize]); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			b.Fatal(err)
		}
	}
	key = s.names.Key(largeKey(manyKeys / 2))
	out, err := kms.Encrypt.Call(context.Background(), s, kms.Caller{Caller: caller.Caller{UID: s.facts.Owner}}, &kms.EncryptInput{KeyId: key, Plaintext: []byte("p")})
	if err != nil {
		b.Fatal(err)
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	return dir, secret, key, out.CiphertextBlob
}

// largeKey is the ID of one of the keys.
func largeKey(i uint32) (id store.KeyID) {
	return uuid.NewSHA1(uuid.NameSpaceOID, binary.BigEndian.AppendUint32(nil, i))
}

func addLargeKey(s *Service, tx *store.Tx, i uint32, slot []byte) error {
	id, secret := largeKey(i), make([]byte, 32)
	rand.Read(secret)
	m := store.Material{ID: material.NewID(id, secret), Present: true}
	wrapped, err := s.ring.Wrap(i, slot, id, m.ID, secret)
	if err != nil {
		return err
	}
	record := &store.Key{
		ID: id, Manager: kms.ManagerCustomer, Spec: kms.SpecSymmetric, Usage: kms.UsageEncryption, Origin: kms.OriginKMS, State: kms.StateEnabled,
		Created: millis(time.Now()), Materials: []store.Material{m},
	}
	if err := cmp.Or(tx.AddKey(record), tx.PutSecret(id, m.ID, wrapped)); err != nil {
		return err
	}
	for n := range manyGrants / manyKeys {
		p := policy.Principal{Kind: policy.UID, ID: uint32(n)}
		g := &store.Grant{Key: id, Grantee: p.ARN(s.facts.Account), Operations: []string{"Decrypt"}, Created: record.Created}
		rand.Read(g.ID[:])
		if err := tx.AddGrant(g, fmt.Sprint(n)); err != nil {
			return err
		}
	}
	return nil
}
