package authz

import (
	"kmsfs/keyservice/kms"
	"kmsfs/policy"
)

// Policies are the documents that hold for more than one key.
type Policies struct {
	// Standard is the key policy of keys that were given none, and StandardText what GetKeyPolicy
	// shows of it. Managed and ManagedText are those of the keys that the file system manages.
	Standard, Managed         *policy.Document
	StandardText, ManagedText string
}

// newPolicies makes a home's own policies.
func newPolicies(n kms.ARNs) (*Policies, error) {
	root := n.Root()
	p := &Policies{
		// AWS's default key policy.
		StandardText: `{"Version":"2012-10-17","Id":"key-default-1","Statement":[{"Sid":"Enable IAM User Permissions","Effect":"Allow",` +
			`"Principal":{"AWS":"` + root + `"},"Action":"kms:*","Resource":"*"}]}`,
		// AWS's policy of the keys that its services manage.
		ManagedText: `{"Version":"2012-10-17","Id":"auto-fs-1","Statement":[` +
			`{"Sid":"Allow access through the file system","Effect":"Allow","Principal":{"AWS":"*"},` +
			`"Action":["kms:Encrypt","kms:Decrypt","kms:ReEncrypt*","kms:GenerateDataKey*","kms:CreateGrant","kms:DescribeKey"],"Resource":"*",` +
			`"Condition":{"StringEquals":{"kms:CallerAccount":"` + n.Account + `","kms:ViaService":"` + FileSystemService + `"}}},` +
			`{"Sid":"Allow direct access to key metadata to the account","Effect":"Allow","Principal":{"AWS":"` + root + `"},` +
			`"Action":["kms:Describe*","kms:Get*","kms:List*","kms:RevokeGrant"],"Resource":"*"}]}`,
	}
	var err error
	if p.Standard, err = Scope(n, nil).Parse(p.StandardText); err != nil {
		return nil, err
	}
	p.Managed, err = Scope(n, nil).Parse(p.ManagedText)
	return p, err
}

// StandardServicePolicy lets the home's owner do everything, and nobody else anything.
func StandardServicePolicy(n kms.ARNs) string {
	return `{"Version":"2012-10-17","Id":"service-default-1","Statement":[{"Sid":"Allow everything to the owner","Effect":"Allow",` +
		`"Principal":{"AWS":"` + n.Root() + `"},"Action":"*","Resource":"*"}]}`
}
