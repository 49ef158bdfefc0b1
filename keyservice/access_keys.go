package keyservice

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/base64"
	"os/user"
	"strconv"
	"strings"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/store"
)

const (
	accessKeyPrefix = "KMFS"
	accessKeyRandom = 10 // bytes, 16 characters
	secretRandom    = 30 // bytes, 40 characters, as AWS's

	statusActive = "Active"
	everyUser    = "*"
)

// accessKeyOperations make and delete access keys.
type accessKeyOperations struct{ *core }

func (o accessKeyOperations) createAccessKey(r *request, in *kms.CreateAccessKeyInput) (*kms.CreateAccessKeyOutput, error) {
	r.readOnly = false
	r.textParam("userName", in.UserName)
	uid, err := o.namedUser(r, in.UserName)
	if err != nil {
		return nil, err
	}
	o.changes.Lock()
	defer o.changes.Unlock()
	if err := o.authz.AuthorizeUser(&r.authz, "iam:CreateAccessKey", uid); err != nil {
		return nil, err
	}
	var random [accessKeyRandom + secretRandom]byte
	rand.Read(random[:])
	defer clear(random[:])
	made := &store.AccessKey{
		ID:      accessKeyPrefix + base32.StdEncoding.EncodeToString(random[:accessKeyRandom]),
		UID:     uid,
		Secret:  base64.StdEncoding.AppendEncode(nil, random[accessKeyRandom:]),
		Created: millis(r.time),
	}
	r.response = append(r.response, audit.Text("accessKeyId", made.ID))
	if err := o.change(r, func(tx *store.Tx) error {
		had := 0
		if err := tx.AccessKeys("", func(k *store.AccessKey) bool {
			if k.UID == uid {
				had++
			}
			return true
		}); err != nil {
			return err
		}
		if had >= kms.MaxAccessKeys {
			return kms.Errorf(kms.CodeLimitExceeded, "The user has %d access keys, which is the limit.", had)
		}
		return tx.PutAccessKey(made)
	}); err != nil {
		return nil, err
	}
	return &kms.CreateAccessKeyOutput{AccessKey: kms.AccessKey{
		UserName: o.users.User(uid, r.time).Shown, AccessKeyId: made.ID, Status: statusActive, SecretAccessKey: string(made.Secret),
		CreateDate: kms.Timestamp{Time: made.Created},
	}}, nil
}

func (o accessKeyOperations) listAccessKeys(r *request, in *kms.ListAccessKeysInput) (*kms.ListAccessKeysOutput, error) {
	r.textParam("userName", in.UserName)
	const action = "iam:ListAccessKeys"
	var uid uint32
	var err error
	if in.UserName == everyUser {
		err = o.authorizeAccount(r, action, "*")
	} else if uid, err = o.namedUser(r, in.UserName); err == nil {
		err = o.authz.AuthorizeUser(&r.authz, action, uid)
	}
	if err != nil {
		return nil, err
	}
	out := &kms.ListAccessKeysOutput{AccessKeyMetadata: []kms.AccessKeyMetadata{}}
	err = o.store.View(func(tx *store.Tx) error {
		return tx.AccessKeys("", func(k *store.AccessKey) bool {
			if in.UserName == everyUser || k.UID == uid {
				out.AccessKeyMetadata = append(out.AccessKeyMetadata, kms.AccessKeyMetadata{
					UserName: o.users.User(k.UID, r.time).Shown, AccessKeyId: k.ID, Status: statusActive, CreateDate: kms.Timestamp{Time: k.Created},
				})
			}
			return true
		})
	})
	return out, err
}

func (o accessKeyOperations) deleteAccessKey(r *request, in *kms.DeleteAccessKeyInput) (*kms.DeleteAccessKeyOutput, error) {
	r.readOnly = false
	r.textParam("accessKeyId", in.AccessKeyId)
	if err := kms.CheckLength("accessKeyId", len(in.AccessKeyId), 16, 128); err != nil {
		return nil, err
	}
	o.changes.Lock()
	defer o.changes.Unlock()
	var k *store.AccessKey
	if err := o.store.View(func(tx *store.Tx) (err error) {
		k, err = tx.AccessKey(in.AccessKeyId)
		return err
	}); err != nil {
		return nil, err
	}
	const action = "iam:DeleteAccessKey"
	if k == nil { // who may not delete it doesn't learn whether there is one
		if err := o.authorizeAccount(r, action, "*"); err != nil {
			return nil, err
		}
		return nil, kms.Errorf(kms.CodeNotFound, "The Access Key with id %s cannot be found.", kms.Printable(in.AccessKeyId))
	}
	if err := o.authz.AuthorizeUser(&r.authz, action, k.UID); err != nil {
		return nil, err
	}
	return &kms.DeleteAccessKeyOutput{}, o.change(r, func(tx *store.Tx) error { return tx.DeleteAccessKey(k.ID) })
}

// namedUser is the user of that name, or the caller.
func (o accessKeyOperations) namedUser(r *request, name string) (uint32, error) {
	if name == "" {
		return r.caller.UID, nil
	}
	if err := kms.CheckLength("userName", len(name), 1, kms.MaxPrincipal); err != nil {
		return 0, err
	}
	number, isNumber := strings.CutPrefix(name, "uid:")
	if !isNumber {
		found, err := user.Lookup(name)
		if err != nil {
			return 0, kms.Errorf(kms.CodeNotFound, "The user with name %s cannot be found.", kms.Printable(name))
		}
		number = found.Uid
	}
	uid, err := strconv.ParseUint(number, 10, 32)
	if err != nil {
		return 0, kms.Errorf(kms.CodeValidation, "%s is no user: want a name or uid:N.", kms.Printable(name))
	}
	return uint32(uid), nil
}
