package keyservice

import (
	"context"
	"slices"
	"strings"
	"unicode/utf8"

	"kmsfs/keyservice/store"
)

// AWS KMS's limits on tags.
const (
	maxTags     = 50  // of one key
	maxTagKey   = 128 // characters
	maxTagValue = 256 // characters
)

// TagResource gives a KMS key tags.
func (s *Service) TagResource(ctx context.Context, c Caller, in *TagResourceInput) (*TagResourceOutput, error) {
	return run(ctx, s, c, "TagResource", in, (*Service).tagResource)
}

// UntagResource takes tags from a KMS key. Those that it doesn't have are no error.
func (s *Service) UntagResource(ctx context.Context, c Caller, in *UntagResourceInput) (*UntagResourceOutput, error) {
	return run(ctx, s, c, "UntagResource", in, (*Service).untagResource)
}

// ListResourceTags lists a KMS key's tags, a page at a time.
func (s *Service) ListResourceTags(ctx context.Context, c Caller, in *ListResourceTagsInput) (*ListResourceTagsOutput, error) {
	return run(ctx, s, c, "ListResourceTags", in, (*Service).listResourceTags)
}

// newTags checks tags, and sorts them.
func newTags(given []Tag) ([]store.Tag, error) {
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
			return nil, refuse(CodeTag, "Duplicate tag keys")
		}
	}
	return tags, checkTagCount(tags)
}

func compareTags(a, b store.Tag) int { return strings.Compare(a.Key, b.Key) }

func checkTag(key, value string) error {
	switch {
	case !utf8.ValidString(key) || !utf8.ValidString(value):
		return invalid("tags", "", "Member must be text")
	case strings.HasPrefix(strings.ToLower(key), "aws:"):
		return refuse(CodeTag, "Tag keys must not begin with aws:")
	}
	return firstError(
		checkLength("tagKey", utf8.RuneCountInString(key), 1, maxTagKey),
		checkLength("tagValue", utf8.RuneCountInString(value), 0, maxTagValue))
}

func checkTagCount(tags []store.Tag) error {
	if len(tags) > maxTags {
		return refuse(CodeLimitExceeded, "A key has at most %d tags.", maxTags)
	}
	return nil
}

// aboutTags tells the policies what tags a request has.
func (r *request) aboutTags(tags []Tag) {
	if len(tags) == 0 {
		return
	}
	keys := make([]string, len(tags))
	for i, t := range tags {
		keys[i] = t.TagKey
		r.about("aws:requesttag/"+strings.ToLower(t.TagKey), t.TagValue)
	}
	r.aboutList("aws:tagkeys", keys)
}

func (s *Service) tagResource(r *request, in *TagResourceInput) (*TagResourceOutput, error) {
	tags, err := newTags(in.Tags)
	if err != nil {
		return nil, err
	}
	r.aboutTags(in.Tags)
	return &TagResourceOutput{}, s.alter(r, "kms:TagResource", in.KeyId, func(k *key, changed *store.Key) error {
		for _, t := range tags {
			if at, found := slices.BinarySearchFunc(changed.Tags, t, compareTags); found {
				changed.Tags[at] = t
			} else {
				changed.Tags = slices.Insert(changed.Tags, at, t)
			}
		}
		return firstError(k.notIn(statePendingDeletion), checkTagCount(changed.Tags))
	})
}

func (s *Service) untagResource(r *request, in *UntagResourceInput) (*UntagResourceOutput, error) {
	for _, key := range in.TagKeys {
		if err := checkTag(key, ""); err != nil {
			return nil, err
		}
	}
	r.aboutList("aws:tagkeys", in.TagKeys)
	return &UntagResourceOutput{}, s.alter(r, "kms:UntagResource", in.KeyId, func(k *key, changed *store.Key) error {
		changed.Tags = slices.DeleteFunc(changed.Tags, func(t store.Tag) bool { return slices.Contains(in.TagKeys, t.Key) })
		return k.notIn(statePendingDeletion)
	})
}

func (s *Service) listResourceTags(r *request, in *ListResourceTagsInput) (*ListResourceTagsOutput, error) {
	limit, err := pageSize(in.Limit, 50, 50)
	if err != nil {
		return nil, err
	}
	k, err := s.named(r, "kms:ListResourceTags", in.KeyId)
	if err != nil {
		return nil, err
	}
	after, err := s.markedKey("ListResourceTags", in.Marker, k)
	if err != nil {
		return nil, err
	}
	out := &ListResourceTagsOutput{Tags: []Tag{}}
	for _, t := range k.Tags {
		if after != nil && t.Key <= string(after) {
			continue
		}
		if len(out.Tags) == limit {
			out.Truncated = true
			out.NextMarker = s.ring.marker("ListResourceTags", append(k.ID[:], out.Tags[limit-1].TagKey...))
			break
		}
		out.Tags = append(out.Tags, Tag{t.Key, t.Value})
	}
	return out, nil
}

// markedKey returns what a marker names behind the key's ID; nil for no marker. It must have been made for that key.
func (s *Service) markedKey(operation, marker string, k *key) ([]byte, error) {
	if marker == "" {
		return nil, nil
	}
	last, err := s.ring.readMarker(operation, marker)
	if err != nil {
		return nil, err
	}
	if len(last) <= len(k.ID) || store.KeyID(last[:len(k.ID)]) != k.ID {
		return nil, errInvalidMarker()
	}
	return last[len(k.ID):], nil
}
