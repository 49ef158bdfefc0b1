package policy

import (
	"fmt"
	"strconv"
	"strings"
)

// PrincipalKind is the kind of a Principal.
type PrincipalKind uint8

// The kinds of principals.
const (
	// Anyone is everybody: "*".
	Anyone PrincipalKind = iota + 1
	// Account is the account's root: its twelve digits, or arn:kmsfs:iam::ACCOUNT:root.
	Account
	// User is a user by name, and UID by number.
	User
	UID
	// Group is a group by name, and GID by number.
	Group
	GID
)

// Principal is a user, a group or the account, as policies and grants name it. Values are
// comparable.
type Principal struct {
	Kind PrincipalKind
	// Name is set for User and Group, ID for UID and GID.
	Name string
	ID   uint32
}

const (
	partition = "kmsfs"

	uidPrefix, gidPrefix        = "uid:", "gid:"
	userPrefix, groupPrefix     = "user:", "group:"
	userResource, groupResource = "user/", "group/"

	maxPrincipalName = 128 // characters, far above what systems allow
)

func arnPrefix(account string) string { return "arn:" + partition + ":iam::" + account + ":" }

// ParsePrincipal reads a principal: uid:1000, user:alice, gid:100, group:finance, "*", the
// account's twelve digits, or an ARN of the account: arn:kmsfs:iam::ACCOUNT:root, :user/alice,
// :user/uid:1000, :group/finance, :group/gid:100.
func ParsePrincipal(text, account string) (Principal, error) {
	resource, isARN := strings.CutPrefix(text, arnPrefix(account))
	switch {
	case text == "*":
		return Principal{Kind: Anyone}, nil
	case text == account, isARN && resource == "root":
		return Principal{Kind: Account}, nil
	case !isARN:
		return parseShort(text, text, account)
	}
	if name, ok := strings.CutPrefix(resource, userResource); ok {
		if strings.HasPrefix(name, uidPrefix) {
			return parseShort(name, text, account)
		}
		return parseShort(userPrefix+name, text, account)
	}
	if name, ok := strings.CutPrefix(resource, groupResource); ok {
		if strings.HasPrefix(name, gidPrefix) {
			return parseShort(name, text, account)
		}
		return parseShort(groupPrefix+name, text, account)
	}
	return Principal{}, invalidPrincipal(text, account)
}

// principalForms are patterns of the ARNs of the account, of users and, if asked for, of groups.
func principalForms(account string, groups bool) []string {
	prefix := arnPrefix(account)
	forms := []string{prefix + "root", prefix + userResource + "*", prefix + userResource + uidPrefix + "*"}
	if groups {
		forms = append(forms, prefix+groupResource+"*", prefix+groupResource+gidPrefix+"*")
	}
	return forms
}

// parseShort reads the short form of a principal that was written as text.
func parseShort(short, text, account string) (Principal, error) {
	for prefix, kind := range map[string]PrincipalKind{uidPrefix: UID, gidPrefix: GID} {
		if number, ok := strings.CutPrefix(short, prefix); ok {
			id, err := strconv.ParseUint(number, 10, 32)
			if err != nil || strconv.FormatUint(id, 10) != number {
				return Principal{}, invalidPrincipal(text, account)
			}
			return Principal{Kind: kind, ID: uint32(id)}, nil
		}
	}
	for prefix, kind := range map[string]PrincipalKind{userPrefix: User, groupPrefix: Group} {
		if name, ok := strings.CutPrefix(short, prefix); ok && isName(name) {
			return Principal{Kind: kind, Name: name}, nil
		}
	}
	return Principal{}, invalidPrincipal(text, account)
}

func invalidPrincipal(text, account string) error {
	shown := text
	if len(shown) > 256 {
		shown = shown[:256] + "..."
	}
	return fmt.Errorf("invalid principal %q: %s", shown, principalHint(text, account))
}

// principalHint says what to write in place of an invalid principal.
func principalHint(text, account string) string {
	fields := strings.SplitN(text, ":", 6)
	if len(fields) != 6 || fields[0] != "arn" {
		return "want uid:N, user:NAME, gid:N, group:NAME, or an ARN of this account"
	}
	kind, _, _ := strings.Cut(fields[5], "/")
	if kind == "role" || kind == "assumed-role" {
		return "there are no roles: want a user or a group, such as " + arnPrefix(account) + "user/NAME"
	}
	here := arnPrefix(account) + fields[5]
	if here == text {
		return "want such as " + arnPrefix(account) + "user/NAME or group/NAME"
	}
	if _, err := ParsePrincipal(here, account); err != nil {
		return "want an ARN of this account, such as " + arnPrefix(account) + "user/NAME"
	}
	return "it is of another partition or account: want " + here
}

// isName says whether the system, and AWS's pattern of principals, can have a name.
func isName(name string) bool {
	if name == "" || len(name) > maxPrincipalName {
		return false
	}
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte("_+=,.@-", c) < 0 {
			return false
		}
	}
	return true
}

// ARN is the principal's one canonical ARN, or "*" for Anyone.
func (p Principal) ARN(account string) string {
	switch p.Kind {
	case Anyone:
		return "*"
	case Account:
		return arnPrefix(account) + "root"
	case User:
		return arnPrefix(account) + userResource + p.Name
	case UID:
		return arnPrefix(account) + userResource + uidPrefix + strconv.FormatUint(uint64(p.ID), 10)
	case Group:
		return arnPrefix(account) + groupResource + p.Name
	}
	return arnPrefix(account) + groupResource + gidPrefix + strconv.FormatUint(uint64(p.ID), 10)
}
