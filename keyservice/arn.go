package keyservice

import (
	"strings"

	"github.com/google/uuid"

	"kmsfs/keyservice/store"
)

const (
	aliasPrefix = "alias/"
	keyPrefix   = "key/"
	arnPrefix   = "arn:"
)

// names makes and reads a home's ARNs.
type names struct {
	// home is the home's name, in the place of AWS's region, and account its twelve digits.
	home, account string
	// prefix is what the ARNs of keys and aliases begin with.
	prefix string
}

func newNames(home, account string) names {
	return names{home, account, "arn:kmsfs:kms:" + home + ":" + account + ":"}
}

func (n names) resource(r string) string { return n.prefix + r }

func (n names) key(id store.KeyID) string    { return n.resource(keyPrefix + id.String()) }
func (n names) alias(name string) string     { return n.resource(name) }
func (n names) root() string                 { return "arn:kmsfs:iam::" + n.account + ":root" }
func (n names) principal(user string) string { return "arn:kmsfs:iam::" + n.account + ":user/" + user }

func (n names) auditLog() string { return n.resource("audit-log") }

// local takes off what an ARN of this home has before "key/" or "alias/", and leaves what is no ARN as it is.
func (n names) local(id string) (string, error) {
	if !strings.HasPrefix(id, arnPrefix) {
		return id, nil
	}
	if local, ok := strings.CutPrefix(id, n.prefix); ok && strings.HasPrefix(local, keyPrefix) {
		return local[len(keyPrefix):], nil // as nearly all are
	}
	parts := strings.SplitN(id, ":", 6)
	switch {
	case len(parts) != 6 || parts[1] != "kmsfs" || parts[2] != "kms":
		return "", refuse(CodeInvalidArn, "Invalid arn %s", id)
	case parts[3] != n.home:
		return "", refuse(CodeNotFound, "Invalid arn %s", parts[3])
	case parts[4] != n.account:
		return "", refuse(CodeNotFound, "Invalid arn %s", id)
	}
	resource := parts[5]
	if id, ok := strings.CutPrefix(resource, keyPrefix); ok {
		return id, nil
	}
	if strings.HasPrefix(resource, aliasPrefix) {
		return resource, nil
	}
	return "", refuse(CodeInvalidArn, "Invalid arn %s", id)
}

// parseKeyID reads a key's ID in the one form that it is written in.
func parseKeyID(id string) (store.KeyID, error) {
	parsed, err := uuid.Parse(id)
	if err != nil || len(id) != 36 || strings.ToLower(id) != id {
		return parsed, refuse(CodeNotFound, "Invalid keyId '%s'", id)
	}
	return parsed, nil
}

// isName says whether s can be a home's name: letters, digits and inner hyphens, at most 63.
func isName(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return consistsOf(s, "-")
}

// consistsOf says whether s has only ASCII letters, digits and the others.
func consistsOf(s, others string) bool {
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte(others, c) < 0 {
			return false
		}
	}
	return true
}
