package policy_test

import (
	"fmt"

	"kmsfs/policy"
)

// A policy decides on a request by who asks, for what, and by the request's condition keys.
func ExampleScope_Parse() {
	document, err := scope.Parse(`{
		"Version": "2012-10-17",
		"Statement": [
			{"Sid": "Finance reads", "Effect": "Allow", "Principal": {"AWS": "group:finance"}, "Action": "kms:Decrypt", "Resource": "*"},
			{"Sid": "Except secrets", "Effect": "Deny", "Principal": "*", "Action": "kms:*", "Resource": "*",
			 "Condition": {"StringLike": {"kms:EncryptionContext:kmsfs:path": "/secret/*"}}}
		]
	}`)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, path := range []string{"/report", "/secret/key"} {
		decision := document.Decide(&policy.Request{
			Subject: alice, Action: "kms:Decrypt", Resource: keyARN,
			Attributes: attributes{"kms:EncryptionContext:kmsfs:path": {path}},
		})
		fmt.Println(path, decision.Effect, decision.Sid)
	}
	// Output:
	// /report Allow Finance reads
	// /secret/key Deny Except secrets
}

// What can match no request is refused when the policy is written.
func ExampleMalformedError() {
	_, err := scope.Parse(`{
		"Version": "2012-10-17",
		"Statement": {"Effect": "Deny", "Principal": "*", "Action": "kms:Decript", "Resource": "*"}
	}`)
	fmt.Println(err)
	// Output:
	// malformed policy document: Statement.Action: there is no action "kms:Decript": do you mean kms:Decrypt?
}

func ExampleParsePrincipal() {
	for _, text := range []string{"user:alice", "uid:1000", "123456789012", "role:admin"} {
		principal, err := policy.ParsePrincipal(text, "123456789012")
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println(principal.ARN("123456789012"))
	}
	// Output:
	// arn:kmsfs:iam::123456789012:user/alice
	// arn:kmsfs:iam::123456789012:user/uid:1000
	// arn:kmsfs:iam::123456789012:root
	// invalid principal "role:admin": want uid:N, user:NAME, gid:N, group:NAME, or an ARN of this account
}
