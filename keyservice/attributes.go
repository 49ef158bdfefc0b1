package keyservice

import (
	"maps"
	"slices"
	"strings"
	"time"

	"kmsfs/keyservice/kms"
	"kmsfs/policy"
)

// fileSystemService is what the condition key kms:ViaService has for calls of the file system.
const fileSystemService = "fs.kmsfs"

// attribute is the value, or the values, of a condition key that an operation knows. The name is in lower case.
type attribute struct {
	name, value string
	values      []string
}

// attributes are a request's values for condition keys.
type attributes struct {
	s *Service
	// about is what the operation itself knows.
	about []attribute
	// key is nil for what concerns none.
	key *key
	// context is the encryption context, in an operation that has one.
	context map[string]string
	// alias is the alias that the request names the key by; may be empty.
	alias string
	// subject asks, at the time.
	subject *subject
	time    time.Time
	// via is the service that calls for the subject, or empty.
	via string
	// caller is who calls; nil if nobody does.
	caller *kms.Caller
}

var _ policy.Attributes = (*attributes)(nil)

const (
	contextKey = "kms:encryptioncontext:"
	tagKey     = "aws:resourcetag/"
)

// Append appends the values of a condition key in lower case.
func (a *attributes) Append(values []string, key string) []string {
	for i := range a.about {
		if at := &a.about[i]; at.name == key {
			if at.value != "" {
				return append(values, at.value)
			}
			return append(values, at.values...)
		}
	}
	if name, ok := strings.CutPrefix(key, contextKey); ok {
		return a.appendContext(values, name)
	}
	switch key[:strings.IndexByte(key, ':')+1] {
	case "kms:":
		return a.appendKMS(values, key)
	case "aws:":
		return a.appendAWS(values, key)
	case "kmsfs:":
		return a.appendLocal(values, key)
	}
	return values
}

// appendContext appends the value of a pair of the encryption context. Keys that differ in case only are refused beforehand.
func (a *attributes) appendContext(values []string, name string) []string {
	for key, value := range a.context {
		if strings.EqualFold(key, name) {
			return append(values, value)
		}
	}
	return values
}

func (a *attributes) appendKMS(values []string, key string) []string {
	switch key {
	case "kms:calleraccount":
		return append(values, a.s.facts.Account)
	case "kms:viaservice":
		return appendGiven(values, a.via)
	case "kms:encryptioncontextkeys":
		return slices.AppendSeq(values, maps.Keys(a.context))
	case "kms:requestalias":
		return appendGiven(values, a.alias)
	}
	if a.key == nil {
		return values
	}
	switch key {
	case "kms:keyspec", "kms:customermasterkeyspec":
		return append(values, a.key.Spec)
	case "kms:keyusage", "kms:customermasterkeyusage":
		return append(values, a.key.Usage)
	case "kms:keyorigin":
		return append(values, a.key.Origin)
	case "kms:multiregion":
		return append(values, "false")
	case "kms:resourcealiases":
		return append(values, a.key.aliases...)
	}
	return values
}

func (a *attributes) appendAWS(values []string, key string) []string {
	if tag, ok := strings.CutPrefix(key, tagKey); ok && a.key != nil {
		for _, t := range a.key.Tags {
			if strings.EqualFold(t.Key, tag) {
				values = append(values, t.Value)
			}
		}
		return values
	}
	switch key {
	case "aws:principalarn":
		return append(values, a.subject.names().arn)
	case "aws:principalaccount", "aws:sourceaccount":
		return append(values, a.s.facts.Account)
	case "aws:username":
		return append(values, a.subject.names().shown)
	case "aws:userid":
		return append(values, "uid:"+decimal(a.subject.uid))
	case "aws:currenttime":
		return append(values, a.time.UTC().Format(time.RFC3339))
	case "aws:epochtime":
		return append(values, decimal64(a.time.Unix()))
	}
	return values
}

func (a *attributes) appendLocal(values []string, key string) []string {
	switch key {
	case "kmsfs:uid":
		return append(values, decimal(a.subject.uid))
	case "kmsfs:gid":
		for _, gid := range a.subject.allGroups() {
			values = append(values, decimal(gid))
		}
	case "kmsfs:executable":
		if a.caller != nil {
			return appendGiven(values, a.s.users.executable(a.caller))
		}
	}
	return values
}

// appendGiven appends a value unless it is empty.
func appendGiven(values []string, text string) []string {
	if text == "" {
		return values
	}
	return append(values, text)
}
