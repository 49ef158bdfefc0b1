package authz

import (
	"fmt"

	"kmsfs/keyservice/kms"
)

// Explain says what decided, in words too.
func (v Verdict) Explain(keyARN string) *kms.ExplainAccessOutput {
	out := &kms.ExplainAccessOutput{Allowed: v.Allowed, DecidedBy: v.By, Sid: v.Statement.Sid, KeyId: keyARN}
	verb := "denies"
	if v.Allowed {
		verb = "allows"
	}
	statement := ""
	if v.By != ByGrant && v.Statement.Statement >= 0 && v.By != ByDefault {
		number := int32(v.Statement.Statement)
		out.Statement = &number
		statement = fmt.Sprintf("statement %d", number)
		if v.Statement.Sid != "" {
			statement += fmt.Sprintf(" (%q)", v.Statement.Sid)
		}
	}
	switch v.By {
	case ByKeyPolicy:
		out.Reason = fmt.Sprintf("%s of the key policy %s it", statement, verb)
	case ByServicePolicy:
		out.Reason = fmt.Sprintf("%s of the service policy %s it", statement, verb)
	case ByGrant:
		out.GrantId = v.Grant.ID.String()
		out.Reason = fmt.Sprintf("grant %s allows it", out.GrantId)
	default:
		out.Sid = ""
		out.Reason = "neither the key policy nor a grant allows it"
	}
	return out
}
