package kms

import (
	"strings"

	"github.com/google/uuid"
)

// What ARNs, and the names of keys and aliases in them, begin with.
const (
	AliasPrefix = "alias/"
	KeyPrefix   = "key/"
	arnPrefix   = "arn:"
)

// ARNs makes and reads a home's ARNs.
type ARNs struct {
	// Region is the home's name, and Account has twelve digits.
	Region, Account string
	// prefix is what the ARNs of keys and aliases begin with.
	prefix string
}

// NewARNs returns the ARNs of a home of that name.
func NewARNs(home, account string) ARNs {
	return ARNs{home, account, "arn:kmsfs:kms:" + home + ":" + account + ":"}
}

// Resource is the ARN of a resource of the key service.
func (n ARNs) Resource(r string) string { return n.prefix + r }

// Key is the ARN of a key.
func (n ARNs) Key(id uuid.UUID) string { return n.Resource(KeyPrefix + id.String()) }

// Alias is the ARN of an alias, whose name begins with AliasPrefix.
func (n ARNs) Alias(name string) string { return n.Resource(name) }

// Root is the ARN of the account's root principal.
func (n ARNs) Root() string { return "arn:kmsfs:iam::" + n.Account + ":root" }

// User is the ARN of a user.
func (n ARNs) User(user string) string { return "arn:kmsfs:iam::" + n.Account + ":user/" + user }

// AuditLog is the ARN of the audit log.
func (n ARNs) AuditLog() string { return n.Resource("audit-log") }

// Local takes off what an ARN of this home has before "key/" or "alias/", and leaves what is no ARN as it is.
func (n ARNs) Local(id string) (string, error) {
	if !strings.HasPrefix(id, arnPrefix) {
		return id, nil
	}
	if local, ok := strings.CutPrefix(id, n.prefix); ok && strings.HasPrefix(local, KeyPrefix) {
		return local[len(KeyPrefix):], nil // as nearly all are
	}
	parts := strings.SplitN(id, ":", 6)
	switch {
	case len(parts) != 6 || parts[1] != "kmsfs" || parts[2] != "kms":
		return "", Errorf(CodeInvalidArn, "Invalid arn %s", id)
	case parts[3] != n.Region:
		return "", Errorf(CodeNotFound, "Invalid arn %s", parts[3])
	case parts[4] != n.Account:
		return "", Errorf(CodeNotFound, "Invalid arn %s", id)
	}
	resource := parts[5]
	if id, ok := strings.CutPrefix(resource, KeyPrefix); ok {
		return id, nil
	}
	if strings.HasPrefix(resource, AliasPrefix) {
		return resource, nil
	}
	return "", Errorf(CodeInvalidArn, "Invalid arn %s", id)
}

// ParseKeyID reads a key's ID in the one form that it is written in.
func ParseKeyID(id string) (uuid.UUID, error) {
	parsed, err := uuid.Parse(id)
	if err != nil || len(id) != 36 || strings.ToLower(id) != id {
		return parsed, Errorf(CodeNotFound, "Invalid keyId '%s'", id)
	}
	return parsed, nil
}

// IsHomeName says whether s can be a home's name: letters, digits and inner hyphens, at most 63.
func IsHomeName(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return ConsistsOf(s, "-")
}

// ConsistsOf says whether s has only ASCII letters, digits and the others.
func ConsistsOf(s, others string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte(others, c) < 0 {
			return false
		}
	}
	return true
}
