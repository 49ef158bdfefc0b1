package policy

import (
	"fmt"
	"strconv"
	"strings"
)

// PrincipalKind says what a Principal names.
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

// Principal is somebody whom policies and grants name. It can be compared, and be the key of a map.
type Principal struct {
	Kind PrincipalKind
	// Name is for User and Group, ID for UID and GID.
	Name string
	ID   uint32
}

const (
	uidPrefix, gidPrefix     = "uid:", "gid:"
	userPrefix, groupPrefix  = "user:", "group:"
	userResource, groupOwner = "user/", "group/"

	maxPrincipalName = 128 // characters, far above what systems allow
)

func arnPrefix(account string) string { return "arn:kmsfs:iam::" + account + ":" }

// ParsePrincipal reads a principal: uid:1000, user:alice, gid:100, group:finance, "*", the account's twelve digits, or an ARN of the account:
// arn:kmsfs:iam::ACCOUNT:root, :user/alice, :user/uid:1000, :group/finance, :group/gid:100.
func ParsePrincipal(text, account string) (Principal, error) {
	resource, isARN := strings.CutPrefix(text, arnPrefix(account))
	switch {
	case text == "*":
		return Principal{Kind: Anyone}, nil
	case text == account, isARN && resource == "root":
		return Principal{Kind: Account}, nil
	}
	if !isARN {
		return parseShort(text, text)
	}
	if name, ok := strings.CutPrefix(resource, userResource); ok {
		if strings.HasPrefix(name, uidPrefix) {
			return parseShort(name, text)
		}
		return parseShort(userPrefix+name, text)
	}
	if name, ok := strings.CutPrefix(resource, groupOwner); ok {
		if strings.HasPrefix(name, gidPrefix) {
			return parseShort(name, text)
		}
		return parseShort(groupPrefix+name, text)
	}
	return Principal{}, invalidPrincipal(text)
}

func parseShort(short, text string) (Principal, error) {
	for prefix, kind := range map[string]PrincipalKind{uidPrefix: UID, gidPrefix: GID} {
		if number, ok := strings.CutPrefix(short, prefix); ok {
			id, err := strconv.ParseUint(number, 10, 32)
			if err != nil || strconv.FormatUint(id, 10) != number {
				return Principal{}, invalidPrincipal(text)
			}
			return Principal{Kind: kind, ID: uint32(id)}, nil
		}
	}
	for prefix, kind := range map[string]PrincipalKind{userPrefix: User, groupPrefix: Group} {
		if name, ok := strings.CutPrefix(short, prefix); ok && isName(name) {
			return Principal{Kind: kind, Name: name}, nil
		}
	}
	return Principal{}, invalidPrincipal(text)
}

func invalidPrincipal(text string) error {
	if len(text) > 256 {
		text = text[:256] + "..."
	}
	return fmt.Errorf("invalid principal %q: want uid:N, user:NAME, gid:N, group:NAME, or an ARN of this account", text)
}

// isName says whether a name is one that the system, and AWS's pattern of principals, can have.
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
		return arnPrefix(account) + groupOwner + p.Name
	}
	return arnPrefix(account) + groupOwner + gidPrefix + strconv.FormatUint(uint64(p.ID), 10)
}
