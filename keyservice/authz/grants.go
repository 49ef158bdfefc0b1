package authz

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"kmsfs/keyservice/store"
	"kmsfs/policy"
)

// Grants finds the grants of a key by their grantee, and remembers them. It is safe for concurrent
// use.
type Grants struct {
	read func(policy.Principal) ([]*store.Grant, error)

	mu    sync.Mutex // guards found
	found map[policy.Principal][]*store.Grant
}

// NewGrants returns the grants of a key. read reads those of a grantee from the store.
func NewGrants(read func(policy.Principal) ([]*store.Grant, error)) *Grants {
	return &Grants{read: read, found: map[policy.Principal][]*store.Grant{}}
}

// of returns a principal's grants.
func (g *Grants) of(p policy.Principal) ([]*store.Grant, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if found, ok := g.found[p]; ok {
		return found, nil
	}
	found, err := g.read(p)
	if err == nil {
		g.found[p] = found
	}
	return found, err
}

// allowedBy says whether a grant that the subject has allows an operation.
func (r *Request) allowedBy(g *store.Grant, operation string) bool {
	if !slices.Contains(g.Operations, operation) || IsOver(g.Expires, r.time) {
		return false
	}
	// AWS ignores constraints where there is no encryption context to compare.
	return operation == "DescribeKey" || operation == "RetireGrant" || constraintsHold(g, r.context)
}

// ContextPath is the pair of the encryption context that has a file's path.
const ContextPath = "kmsfs:path"

// constraintsHold says whether an encryption context is one that the grant is for. Names and values
// are compared exactly.
func constraintsHold(g *store.Grant, context map[string]string) bool {
	if len(g.Equals) > 0 && len(g.Equals) != len(context) {
		return false
	}
	if !isSubset(g.Equals, context) || !isSubset(g.Subset, context) {
		return false
	}
	return g.PathPrefix == "" || isBeneath(context[ContextPath], g.PathPrefix)
}

// isSubset says whether all of part is in whole.
func isSubset(part, whole map[string]string) bool {
	for key, value := range part {
		if got, ok := whole[key]; !ok || got != value {
			return false
		}
	}
	return true
}

// isBeneath says whether a path is the prefix, or lies beneath it: /a/b and /a/b/c are beneath
// /a/b, and /a/bc is not.
func isBeneath(path, prefix string) bool {
	rest, ok := strings.CutPrefix(path, prefix)
	return ok && (rest == "" || rest[0] == '/' || strings.HasSuffix(prefix, "/"))
}

// Narrows says whether a grant allows no more than another, in operations, contexts and time.
func Narrows(g, than *store.Grant) bool {
	for _, operation := range g.Operations {
		if !slices.Contains(than.Operations, operation) {
			return false
		}
	}
	if !than.Expires.IsZero() && (g.Expires.IsZero() || g.Expires.After(than.Expires)) {
		return false
	}
	if len(than.Equals) > 0 && !maps.Equal(g.Equals, than.Equals) {
		return false
	}
	if !isSubset(than.Subset, g.Subset) && !isSubset(than.Subset, g.Equals) {
		return false
	}
	if than.PathPrefix == "" {
		return true
	}
	return g.PathPrefix != "" && isBeneath(g.PathPrefix, than.PathPrefix) || isBeneath(g.Equals[ContextPath], than.PathPrefix)
}
