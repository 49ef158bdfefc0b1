package keyservice_test

import (
	"fmt"
	osuser "os/user"
	"strings"
	"testing"
	"time"

	"kmsfs/keyservice"
	"kmsfs/keyservice/kms"
)

// denying gives a key a policy that allows everything to everybody but for what a Deny with the
// condition denies.
func denying(t *testing.T, s *keyservice.Service, key, condition string) {
	t.Helper()
	text := `{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":"*","Action":"kms:*","Resource":"*"},` +
		`{"Effect":"Deny","Principal":"*","NotAction":"kms:PutKeyPolicy","Resource":"*","Condition":` + condition + `}]}`
	_, err := kms.PutKeyPolicy.Call(t.Context(), s, self(), &kms.PutKeyPolicyInput{KeyId: key, Policy: text})
	if err != nil {
		t.Fatalf("%s: %v", condition, err)
	}
}

// The condition keys that AWS puts into every request have values here too, and others are absent,
// as AWS documents it.
func TestConditionsOfAllRequests(t *testing.T) {
	s := newService(t)
	key := newKey(t, s)
	arn := strings.Split(key, ":")
	region, account := arn[3], arn[4]
	mount, network, plain, agent := viaFileSystem(), stranger(), stranger(), stranger()
	network.Address, network.AccessKeyID = "192.0.2.7", "AKIDEXAMPLE"
	plain.Address, plain.Insecure = "::1", true
	agent.UserAgent = "aws-cli/2.0"
	for _, test := range []struct {
		condition string
		caller    kms.Caller
		denied    bool
	}{
		{`{"Bool":{"aws:SecureTransport":"false"}}`, self(), false},
		{`{"Bool":{"aws:SecureTransport":"true"}}`, self(), true},
		{`{"Bool":{"aws:SecureTransport":"true"}}`, mount, true},
		{`{"Bool":{"aws:SecureTransport":"true"}}`, network, true},
		{`{"Bool":{"aws:SecureTransport":"false"}}`, plain, true},
		{`{"IpAddress":{"aws:SourceIp":"0.0.0.0/0"}}`, self(), true},
		{`{"IpAddress":{"aws:SourceIp":"127.0.0.0/8"}}`, mount, true},
		{`{"IpAddress":{"aws:SourceIp":"192.0.2.0/24"}}`, network, true},
		{`{"NotIpAddress":{"aws:SourceIp":"192.0.2.0/24"}}`, network, false},
		{`{"NotIpAddress":{"aws:SourceIp":"192.0.2.0/24"}}`, plain, true},
		{`{"Null":{"aws:SourceIp":"true"}}`, self(), false},
		{`{"Bool":{"aws:ViaAWSService":"false"}}`, self(), true},
		{`{"Bool":{"aws:ViaAWSService":"true"}}`, mount, true},
		{`{"Bool":{"aws:ViaAWSService":"false"}}`, mount, false},
		{`{"Bool":{"aws:PrincipalIsAWSService":"false"}}`, self(), true},
		{`{"Bool":{"aws:PrincipalIsAWSService":"true"}}`, mount, false},
		{`{"StringEquals":{"aws:RequestedRegion":"` + region + `"}}`, stranger(), true},
		{`{"StringNotEquals":{"aws:RequestedRegion":"` + region + `"}}`, stranger(), false},
		{`{"StringEquals":{"aws:ResourceAccount":"` + account + `"}}`, stranger(), true},
		{`{"StringEquals":{"aws:PrincipalAccount":"` + account + `"}}`, stranger(), true},
		{`{"StringEquals":{"aws:PrincipalType":"User"}}`, stranger(), true},
		{`{"StringEquals":{"aws:PrincipalType":"User"}}`, self(), false},
		{`{"StringEquals":{"aws:PrincipalType":"Account"}}`, self(), true},
		{`{"StringLike":{"aws:UserAgent":"aws-cli/*"}}`, agent, true},
		{`{"StringLike":{"aws:UserAgent":"*"}}`, self(), true},
		{`{"StringLike":{"aws:UserAgent":"fs.kmsfs"}}`, mount, true},
		{`{"StringEquals":{"aws:SourceAccount":"` + account + `"}}`, self(), false},
		{`{"StringNotEquals":{"aws:SourceAccount":"` + account + `"}}`, self(), true},
		{`{"Null":{"aws:SourceAccount":"true","aws:SourceArn":"true"}}`, mount, true},
		{`{"ArnEquals":{"aws:PrincipalArn":"arn:kmsfs:iam::` + account + `:root"}}`, self(), true},
		{`{"ArnLike":{"aws:PrincipalArn":"arn:kmsfs:iam::` + account + `:user/*"}}`, self(), false},
		{`{"ArnEquals":{"aws:PrincipalArn":"arn:kmsfs:iam::` + account + `:root"}}`, stranger(), false},
		{`{"ArnEquals":{"aws:PrincipalArn":"arn:kmsfs:iam::` + account + `:user/uid:` + fmt.Sprint(stranger().UID) + `"}}`, stranger(), true},
		{`{"StringNotEquals":{"aws:PrincipalArn":"arn:kmsfs:iam::` + account + `:user/uid:` + fmt.Sprint(stranger().UID) + `"}}`, stranger(), false},
		{`{"ForAnyValue:StringEquals":{"kmsfs:Gid":"4711"}}`, stranger(), true},
		{`{"ForAnyValue:StringEquals":{"kmsfs:Gid":"4712"}}`, stranger(), false},
	} {
		denying(t, s, key, test.condition)
		_, err := kms.DescribeKey.Call(t.Context(), s, test.caller, &kms.DescribeKeyInput{KeyId: key})
		if denied := code(err) == kms.CodeAccessDenied; denied != test.denied {
			t.Errorf("Deny if %s: %+v gets %v", test.condition, test.caller, err)
		}
	}
}

// A user who has a name is the same principal by name and by number, for every key that has
// principals.
func TestConditionsOfGrants(t *testing.T) {
	one, err := osuser.LookupId("1")
	if err != nil {
		t.Fatal(err)
	}
	s := newService(t)
	key := newKey(t, s)
	prefix := "arn:kmsfs:iam::" + strings.Split(key, ":")[4] + ":"
	spellings := []string{"uid:1", "user:" + one.Username, prefix + "user/" + one.Username, prefix + "user/uid:1"}
	create := func(grantee, retirer string) error {
		return second(kms.CreateGrant.Call(t.Context(), s, self(), &kms.CreateGrantInput{
			KeyId: key, GranteePrincipal: grantee, RetiringPrincipal: retirer, Operations: []string{"Decrypt"},
		}))
	}
	for _, name := range []string{"kms:GranteePrincipal", "kms:RetiringPrincipal"} {
		for _, written := range spellings[2:] {
			for operator, want := range map[string]string{"StringEquals": kms.CodeAccessDenied, "ArnLike": kms.CodeAccessDenied, "StringNotEquals": ""} {
				denying(t, s, key, `{"`+operator+`":{"`+name+`":"`+written+`"}}`)
				for _, given := range spellings {
					if err := create(given, given); code(err) != want {
						t.Errorf("Deny if %s %s %s: a grant to %s: %v", name, operator, written, given, err)
					}
				}
			}
			denying(t, s, key, `{"StringEquals":{"`+name+`":"`+written+`"}}`)
			if err := create("uid:2", "uid:2"); err != nil {
				t.Errorf("another's grant: %v", err)
			}
		}
	}
	for condition, denied := range map[string]bool{
		`{"Bool":{"kms:GrantIsForAWSResource":"false"}}`: true, `{"Bool":{"kms:GrantIsForAWSResource":"true"}}`: false,
	} {
		denying(t, s, key, condition)
		_, listErr := kms.ListGrants.Call(t.Context(), s, self(), &kms.ListGrantsInput{KeyId: key})
		_, revokeErr := kms.RevokeGrant.Call(t.Context(), s, self(), &kms.RevokeGrantInput{KeyId: key, GrantId: strings.Repeat("0", 64)})
		for _, err := range []error{create("uid:1", ""), listErr, revokeErr} {
			if (code(err) == kms.CodeAccessDenied) != denied {
				t.Errorf("Deny if %s: %v", condition, err)
			}
		}
		if err := second(kms.DescribeKey.Call(t.Context(), s, self(), &kms.DescribeKeyInput{KeyId: key})); err != nil {
			t.Errorf("Deny if %s: an operation that concerns no grant: %v", condition, err)
		}
	}
}

// kms:ValidTo is a number of seconds, and kms:ExpirationModel has its default where a request has
// none.
func TestConditionsOfImports(t *testing.T) {
	s := newService(t)
	out, err := kms.CreateKey.Call(t.Context(), s, self(), &kms.CreateKeyInput{Origin: "EXTERNAL"})
	if err != nil {
		t.Fatal(err)
	}
	key := out.KeyMetadata.Arn
	end := time.Now().Add(time.Hour)
	for _, test := range []struct {
		condition, model string
		denied           bool
	}{
		{fmt.Sprintf(`{"NumericLessThan":{"kms:ValidTo":"%d"}}`, end.Unix()+1), "", true},
		{fmt.Sprintf(`{"NumericGreaterThan":{"kms:ValidTo":"%d.0"}}`, end.Unix()-1), "KEY_MATERIAL_EXPIRES", true},
		{fmt.Sprintf(`{"NumericGreaterThan":{"kms:ValidTo":%d}}`, end.Unix()), "", false},
		{`{"DateGreaterThan":{"kms:ValidTo":"2020-01-01T00:00:00Z"}}`, "", true},
		{`{"Null":{"kms:ValidTo":"true"}}`, "KEY_MATERIAL_DOES_NOT_EXPIRE", true},
		{`{"StringEquals":{"kms:ExpirationModel":"KEY_MATERIAL_EXPIRES"}}`, "", true},
		{`{"StringNotEquals":{"kms:ExpirationModel":"KEY_MATERIAL_EXPIRES"}}`, "", false},
		{`{"StringEquals":{"kms:ExpirationModel":"KEY_MATERIAL_DOES_NOT_EXPIRE"}}`, "KEY_MATERIAL_DOES_NOT_EXPIRE", true},
	} {
		denying(t, s, key, test.condition)
		in := &kms.ImportKeyMaterialInput{KeyId: key, ImportToken: []byte("x"), EncryptedKeyMaterial: []byte("x"), ExpirationModel: test.model}
		if test.model != "KEY_MATERIAL_DOES_NOT_EXPIRE" {
			in.ValidTo = &kms.Timestamp{Time: end}
		}
		_, err := kms.ImportKeyMaterial.Call(t.Context(), s, self(), in)
		if err == nil || (code(err) == kms.CodeAccessDenied) != test.denied {
			t.Errorf("Deny if %s: an import as %q: %v", test.condition, test.model, err)
		}
	}
}

// A tag that a request gives an empty value is there.
func TestConditionsOfTags(t *testing.T) {
	s := newService(t)
	key := newKey(t, s)
	tag := func(value string) error {
		return second(kms.TagResource.Call(t.Context(), s, self(), &kms.TagResourceInput{KeyId: key, Tags: []kms.Tag{{TagKey: "Project", TagValue: value}}}))
	}
	for condition, denied := range map[string]bool{
		`{"StringEquals":{"aws:RequestTag/Project":""}}`:         true,
		`{"StringLike":{"aws:RequestTag/project":"*"}}`:          true,
		`{"Null":{"aws:RequestTag/Project":"true"}}`:             false,
		`{"Null":{"aws:RequestTag/Project":"false"}}`:            true,
		`{"StringEquals":{"aws:RequestTag/Other":""}}`:           false,
		`{"ForAnyValue:StringEquals":{"aws:TagKeys":"Project"}}`: true,
	} {
		denying(t, s, key, condition)
		if err := tag(""); (code(err) == kms.CodeAccessDenied) != denied {
			t.Errorf("Deny if %s: %v", condition, err)
		}
	}
}
