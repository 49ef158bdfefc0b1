package store

// AccessKey returns an access key; nil if there is none of the ID.
func (t *Tx) AccessKey(id string) (*AccessKey, error) {
	k := &AccessKey{ID: id}
	if ok, err := t.get(accessKeyBucket, []byte(id), k); !ok || err != nil {
		return nil, err
	}
	return k, nil
}

// PutAccessKey stores an access key.
func (t *Tx) PutAccessKey(k *AccessKey) error { return t.put(accessKeyBucket, []byte(k.ID), k) }

// DeleteAccessKey removes an access key, if there is one of the ID.
func (t *Tx) DeleteAccessKey(id string) error { return t.bucket(accessKeyBucket).Delete([]byte(id)) }

// AccessKeys calls f with all access keys whose IDs come behind after, in their order, as long as
// it returns true.
func (t *Tx) AccessKeys(after string, f func(*AccessKey) bool) error {
	return t.within(accessKeyBucket, nil, []byte(after), func(id, _ []byte) (bool, error) {
		k, err := t.AccessKey(string(id))
		if err != nil {
			return false, err
		}
		return f(k), nil
	})
}
