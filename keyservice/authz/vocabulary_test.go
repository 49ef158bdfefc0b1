package authz_test

import (
	"testing"

	"kmsfs/keyservice/authz"
	"kmsfs/keyservice/kms"
)

// AWS's documented policies are accepted, as far as the service has what they speak of.
func TestDocumentedPolicies(t *testing.T) {
	scope := authz.Scope(kms.NewARNs("local", "123456789012"), nil)
	for name, statement := range map[string]string{
		"default key policy": `{"Sid":"Enable IAM User Permissions","Effect":"Allow","Principal":{"AWS":"arn:kmsfs:iam::123456789012:root"},"Action":"kms:*","Resource":"*"}`,
		"key administrators": `{"Effect":"Allow","Principal":{"AWS":"user:alice"},"Action":["kms:Create*","kms:Describe*","kms:Enable*","kms:List*","kms:Put*",` +
			`"kms:Update*","kms:Revoke*","kms:Disable*","kms:Get*","kms:Delete*","kms:TagResource","kms:UntagResource","kms:ScheduleKeyDeletion","kms:CancelKeyDeletion",` +
			`"kms:RotateKeyOnDemand","kms:ReplicateKey"],"Resource":"*"}`,
		"grants for services": `{"Effect":"Allow","Principal":{"AWS":"user:alice"},"Action":["kms:CreateGrant","kms:ListGrants","kms:RevokeGrant"],"Resource":"*",` +
			`"Condition":{"Bool":{"kms:GrantIsForAWSResource":"true"}}}`,
		"secure transport": `{"Effect":"Deny","Principal":"*","Action":"kms:*","Resource":"*","Condition":{"Bool":{"aws:SecureTransport":"false"}}}`,
		"addresses": `{"Effect":"Deny","Principal":"*","Action":"kms:*","Resource":"*","Condition":{"NotIpAddress":{"aws:SourceIp":["192.0.2.0/24","203.0.113.0/24"]},` +
			`"Bool":{"aws:ViaAWSService":"false"}}}`,
		"encryption context": `{"Effect":"Allow","Principal":"*","Action":"kms:Decrypt","Resource":"*","Condition":{"StringEquals":{"kms:EncryptionContext:AppName":"ExampleApp"},` +
			`"ForAllValues:StringEquals":{"kms:EncryptionContextKeys":"AppName"},"Null":{"kms:EncryptionContextKeys":false}}}`,
		"grantee": `{"Effect":"Allow","Principal":"*","Action":"kms:CreateGrant","Resource":"*","Condition":{"StringEquals":` +
			`{"kms:GranteePrincipal":"arn:kmsfs:iam::123456789012:user/alice"},"ForAllValues:StringEquals":{"kms:GrantOperations":["Encrypt","Decrypt"]}}}`,
		"grant constraint": `{"Effect":"Allow","Principal":"*","Action":"kms:CreateGrant","Resource":"*","Condition":{"StringEquals":{"kms:GrantConstraintType":"EncryptionContextEquals"}}}`,
		"expiry":           `{"Effect":"Allow","Principal":"*","Action":"kms:ImportKeyMaterial","Resource":"*","Condition":{"NumericLessThanEquals":{"kms:ValidTo":"1483257599.0"}}}`,
		"pending window": `{"Effect":"Deny","Principal":"*","Action":"kms:ScheduleKeyDeletion","Resource":"*","Condition":{"NumericLessThan":` +
			`{"kms:ScheduleKeyDeletionPendingWindowInDays":"21"}}}`,
		"aliases":          `{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"arn:kmsfs:kms:*:123456789012:key/*","Condition":{"ForAnyValue:StringLike":{"kms:ResourceAliases":"alias/ExampleAlias*"}}}`,
		"request alias":    `{"Effect":"Allow","Principal":"*","Action":"kms:DescribeKey","Resource":"*","Condition":{"StringEquals":{"kms:RequestAlias":"alias/ExampleAlias"}}}`,
		"tags":             `{"Effect":"Deny","Principal":"*","Action":"kms:*","Resource":"*","Condition":{"StringEquals":{"aws:ResourceTag/Project":"Alpha"}}}`,
		"confused deputy":  `{"Effect":"Allow","Principal":"*","Action":"kms:Decrypt","Resource":"*","Condition":{"StringEquals":{"aws:SourceAccount":"123456789012"}}}`,
		"its own resource": `{"Effect":"Allow","Principal":"*","Action":"kmsfs:ReadAudit","Resource":"*"}`,
	} {
		if _, err := scope.Parse(`{"Version":"2012-10-17","Statement":` + statement + `}`); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
