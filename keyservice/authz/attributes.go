package authz

import (
	"cmp"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"kmsfs/policy"
)

var _ policy.Attributes = (*Request)(nil)

const (
	contextKey = "kms:encryptioncontext:"
	tagKey     = "aws:resourcetag/"
)

const (
	// localAddress is the value of aws:SourceIp for calls that came over no network.
	localAddress = "127.0.0.1"
	// localAgent is the value of aws:UserAgent for calls that came without one.
	localAgent = "kmsfs"
)

// Append appends the values of a condition key in lower case.
func (r *Request) Append(values []string, key string) []string {
	for i := range r.values {
		if v := &r.values[i]; v.key == key {
			if v.text != "" {
				return append(values, v.text)
			}
			return append(values, v.texts...)
		}
	}
	if name, ok := strings.CutPrefix(key, contextKey); ok {
		return r.appendContext(values, name)
	}
	switch key[:strings.IndexByte(key, ':')+1] {
	case "kms:":
		return r.appendKMS(values, key)
	case "aws:":
		return r.appendAWS(values, key)
	case "kmsfs:":
		return r.appendLocal(values, key)
	}
	return values
}

// appendContext appends the value of a pair of the encryption context. Keys that differ in case
// only are refused beforehand.
func (r *Request) appendContext(values []string, name string) []string {
	for key, value := range r.context {
		if strings.EqualFold(key, name) {
			return append(values, value)
		}
	}
	return values
}

func (r *Request) appendKMS(values []string, key string) []string {
	switch key {
	case "kms:calleraccount":
		return append(values, r.authorizer.names.Account)
	case "kms:viaservice":
		return appendGiven(values, r.via)
	case "kms:encryptioncontextkeys":
		return slices.AppendSeq(values, maps.Keys(r.context))
	case "kms:requestalias":
		return appendGiven(values, r.alias)
	}
	if r.key == nil {
		return values
	}
	switch key {
	case "kms:keyspec", "kms:customermasterkeyspec":
		return append(values, r.key.Spec)
	case "kms:keyusage", "kms:customermasterkeyusage":
		return append(values, r.key.Usage)
	case "kms:keyorigin":
		return append(values, r.key.Origin)
	case "kms:multiregion":
		return append(values, "false")
	case "kms:resourcealiases":
		return append(values, r.key.Aliases...)
	}
	return values
}

func (r *Request) appendAWS(values []string, key string) []string {
	if tag, ok := strings.CutPrefix(key, tagKey); ok && r.key != nil {
		for _, t := range r.key.Tags {
			if strings.EqualFold(t.Key, tag) {
				values = append(values, t.Value)
			}
		}
		return values
	}
	switch key {
	case "aws:principalarn":
		return r.appendPrincipal(values)
	case "aws:principalaccount", "aws:resourceaccount":
		return append(values, r.authorizer.names.Account)
	case "aws:principaltype":
		return append(values, r.principalType())
	case "aws:principalisawsservice":
		return append(values, "false")
	case "aws:requestedregion":
		return append(values, r.authorizer.names.Region)
	case "aws:securetransport":
		return append(values, strconv.FormatBool(!r.caller.Insecure))
	case "aws:sourceip":
		return append(values, cmp.Or(r.caller.Address, localAddress))
	case "aws:useragent":
		return append(values, cmp.Or(r.caller.UserAgent, r.via, localAgent))
	case "aws:viaawsservice":
		return append(values, strconv.FormatBool(r.via != ""))
	case "aws:username":
		return append(values, r.subject.names().Shown)
	case "aws:userid":
		return append(values, "uid:"+decimal(r.subject.uid))
	case "aws:currenttime":
		return append(values, r.time.UTC().Format(time.RFC3339))
	case "aws:epochtime":
		return append(values, strconv.FormatInt(r.time.Unix(), 10))
	}
	return values
}

// appendPrincipal appends the ARN of the caller in each of its spellings. As in AWS, that of the
// account's owner is the account's root.
func (r *Request) appendPrincipal(values []string) []string {
	if r.subject.owns {
		return append(values, r.authorizer.names.Root())
	}
	return append(values, r.authorizer.spellings(policy.Principal{Kind: policy.UID, ID: r.subject.uid}, r.time)...)
}

// principalType is the value of aws:PrincipalType.
func (r *Request) principalType() string {
	if r.subject.owns {
		return "Account"
	}
	return "User"
}

func (r *Request) appendLocal(values []string, key string) []string {
	switch key {
	case "kmsfs:uid":
		return append(values, decimal(r.subject.uid))
	case "kmsfs:gid":
		for _, gid := range r.subject.allGroups() {
			values = append(values, decimal(gid))
		}
	case "kmsfs:executable":
		return appendGiven(values, r.authorizer.users.Executable(r.caller))
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

func decimal(id uint32) string { return strconv.FormatUint(uint64(id), 10) }
