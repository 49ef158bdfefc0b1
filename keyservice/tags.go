package keyservice

import (
	"cmp"
	"slices"
	"strings"
	"unicode/utf8"

	"kmsfs/keyservice/catalog"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/store"
)

// newTags checks tags, and sorts them.
func newTags(given []kms.Tag) ([]store.Tag, error) {
	tags := make([]store.Tag, len(given))
	for i, t := range given {
		if err := checkTag(t.TagKey, t.TagValue); err != nil {
			return nil, err
		}
		tags[i] = store.Tag{Key: t.TagKey, Value: t.TagValue}
	}
	slices.SortFunc(tags, compareTags)
	for i := range tags[min(1, len(tags)):] {
		if tags[i].Key == tags[i+1].Key {
			return nil, kms.Errorf(kms.CodeTag, "Duplicate tag keys")
		}
	}
	return tags, checkTagCount(tags)
}

func compareTags(a, b store.Tag) int { return strings.Compare(a.Key, b.Key) }

func checkTag(key, value string) error {
	switch {
	case !utf8.ValidString(key) || !utf8.ValidString(value):
		return kms.Invalid("tags", "", "Member must be text")
	case strings.HasPrefix(strings.ToLower(key), "aws:"):
		return kms.Errorf(kms.CodeTag, "Tag keys must not begin with aws:")
	}
	return cmp.Or(
		kms.CheckLength("tagKey", utf8.RuneCountInString(key), 1, kms.MaxTagKey),
		kms.CheckLength("tagValue", utf8.RuneCountInString(value), 0, kms.MaxTagValue))
}

func checkTagCount(tags []store.Tag) error {
	if len(tags) > kms.MaxTags {
		return kms.Errorf(kms.CodeLimitExceeded, "A key has at most %d tags.", kms.MaxTags)
	}
	return nil
}

// aboutTags tells the policies what tags a request has.
func (r *request) aboutTags(tags []kms.Tag) {
	if len(tags) == 0 {
		return
	}
	keys := make([]string, len(tags))
	for i, t := range tags {
		keys[i] = t.TagKey
		r.authz.SetList("aws:requesttag/"+strings.ToLower(t.TagKey), []string{t.TagValue}) // which may be empty
	}
	r.authz.SetList("aws:tagkeys", keys)
}

// tagOperations give KMS keys tags.
type tagOperations struct{ *core }

func (o tagOperations) tagResource(r *request, in *kms.TagResourceInput) (*kms.TagResourceOutput, error) {
	tags, err := newTags(in.Tags)
	if err != nil {
		return nil, err
	}
	r.aboutTags(in.Tags)
	return &kms.TagResourceOutput{}, o.alter(r, "kms:TagResource", in.KeyId, func(k *catalog.Key, changed *store.Key) error {
		for _, t := range tags {
			if at, found := slices.BinarySearchFunc(changed.Tags, t, compareTags); found {
				changed.Tags[at] = t
			} else {
				changed.Tags = slices.Insert(changed.Tags, at, t)
			}
		}
		return cmp.Or(k.NotIn(kms.StatePendingDeletion), checkTagCount(changed.Tags))
	})
}

func (o tagOperations) untagResource(r *request, in *kms.UntagResourceInput) (*kms.UntagResourceOutput, error) {
	for _, key := range in.TagKeys {
		if err := checkTag(key, ""); err != nil {
			return nil, err
		}
	}
	r.authz.SetList("aws:tagkeys", in.TagKeys)
	return &kms.UntagResourceOutput{}, o.alter(r, "kms:UntagResource", in.KeyId, func(k *catalog.Key, changed *store.Key) error {
		changed.Tags = slices.DeleteFunc(changed.Tags, func(t store.Tag) bool { return slices.Contains(in.TagKeys, t.Key) })
		return k.NotIn(kms.StatePendingDeletion)
	})
}

func (o tagOperations) listResourceTags(r *request, in *kms.ListResourceTagsInput) (*kms.ListResourceTagsOutput, error) {
	limit, err := kms.PageSize(in.Limit, 50, 50)
	if err != nil {
		return nil, err
	}
	k, err := o.named(r, "kms:ListResourceTags", in.KeyId)
	if err != nil {
		return nil, err
	}
	after, err := o.tokens.ReadKeyMarker("ListResourceTags", in.Marker, k.ID)
	if err != nil {
		return nil, err
	}
	out := &kms.ListResourceTagsOutput{Tags: []kms.Tag{}}
	for _, t := range k.Tags {
		if after != nil && t.Key <= string(after) {
			continue
		}
		if len(out.Tags) == limit {
			out.Truncated = true
			out.NextMarker = o.tokens.Marker("ListResourceTags", append(k.ID[:], out.Tags[limit-1].TagKey...))
			break
		}
		out.Tags = append(out.Tags, kms.Tag{TagKey: t.Key, TagValue: t.Value})
	}
	return out, nil
}
