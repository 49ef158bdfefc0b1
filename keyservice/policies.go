package keyservice

import (
	"cmp"
	"os/user"
	"strconv"
	"strings"

	"kmsfs/keyservice/authz"
	"kmsfs/keyservice/catalog"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/store"
	"kmsfs/policy"
)

const (
	// policyName is the name of the one policy that a key has.
	policyName = "default"
)

// policyOperations set and explain key policies and the service policy.
type policyOperations struct{ *core }

// parsePolicy reads a document that a caller gave.
func (o policyOperations) parsePolicy(text string) (*policy.Document, error) {
	if err := kms.CheckLength("policy", len(text), 1, 131072); err != nil {
		return nil, err
	}
	if len(text) > kms.MaxPolicy {
		return nil, kms.Errorf(kms.CodeLimitExceeded, "The policy has %d bytes: the limit is %d.", len(text), kms.MaxPolicy)
	}
	document, err := authz.Scope(o.names, o.users.Exists).Parse(text)
	if err != nil {
		return nil, kms.Errorf(kms.CodeMalformedPolicy, "%v", err)
	}
	return document, nil
}

func checkPolicyName(name string) error {
	if name != "" && name != policyName {
		return kms.Errorf(kms.CodeNotFound, "No such policy exists")
	}
	return nil
}

func (o policyOperations) putKeyPolicy(r *request, in *kms.PutKeyPolicyInput) (*kms.PutKeyPolicyOutput, error) {
	r.readOnly = false
	r.textParam("policyName", in.PolicyName)
	r.paramBool("bypassPolicyLockoutSafetyCheck", in.BypassPolicyLockoutSafetyCheck)
	if len(in.Policy) <= kms.MaxPolicy {
		r.param("policy", in.Policy)
	}
	r.authz.SetBool("kms:bypasspolicylockoutsafetycheck", in.BypassPolicyLockoutSafetyCheck)
	o.changes.Lock()
	defer o.changes.Unlock()
	k, err := o.named(r, "kms:PutKeyPolicy", in.KeyId)
	if err != nil {
		return nil, err
	}
	if err := checkPolicyName(in.PolicyName); err != nil {
		return nil, err
	}
	document, err := o.parsePolicy(in.Policy)
	if err != nil {
		return nil, err
	}
	if !in.BypassPolicyLockoutSafetyCheck {
		if err := o.checkLockout(r, k.Resource, document); err != nil {
			return nil, err
		}
	}
	return &kms.PutKeyPolicyOutput{}, o.change(r, func(tx *store.Tx) error { return tx.PutKeyPolicy(k.ID, []byte(in.Policy)) }, k.ID)
}

// checkLockout returns an error for a key policy under which the caller could not change it again.
func (o policyOperations) checkLockout(r *request, k authz.Resource, document *policy.Document) error {
	k.Policy = document
	if !o.authz.AllowsLater(&r.authz, "kms:PutKeyPolicy", &k) {
		return kms.Errorf(kms.CodeMalformedPolicy, "The new key policy will not allow you to update the key policy in the future.")
	}
	return nil
}

// checkNew checks the policy that a new key is to have, if one is given.
func (o policyOperations) checkNew(r *request, record *store.Key, in *kms.CreateKeyInput) error {
	if in.Policy == "" {
		return nil
	}
	document, err := o.parsePolicy(in.Policy)
	if err != nil || in.BypassPolicyLockoutSafetyCheck {
		return err
	}
	return o.checkLockout(r, authz.Resource{Key: *record, ARN: o.names.Resource(kms.KeyPrefix)}, document)
}

func (o policyOperations) getKeyPolicy(r *request, in *kms.GetKeyPolicyInput) (*kms.GetKeyPolicyOutput, error) {
	r.textParam("policyName", in.PolicyName)
	k, err := o.named(r, "kms:GetKeyPolicy", in.KeyId)
	if err != nil {
		return nil, err
	}
	if err := checkPolicyName(in.PolicyName); err != nil {
		return nil, err
	}
	text, err := o.policyText(k)
	if err != nil {
		return nil, err
	}
	return &kms.GetKeyPolicyOutput{Policy: text, PolicyName: policyName}, nil
}

// policyText is a key's policy as it was given.
func (o policyOperations) policyText(k *catalog.Key) (string, error) {
	if k.Manager == kms.ManagerService {
		return o.authz.Policies.ManagedText, nil
	}
	var text []byte
	err := o.store.View(func(tx *store.Tx) (err error) {
		text, err = tx.KeyPolicy(k.ID)
		return err
	})
	if text == nil {
		return o.authz.Policies.StandardText, err
	}
	return string(text), err
}

func (o policyOperations) listKeyPolicies(r *request, in *kms.ListKeyPoliciesInput) (*kms.ListKeyPoliciesOutput, error) {
	if _, err := kms.PageSize(in.Limit, 100, 1000); err != nil {
		return nil, err
	}
	k, err := o.named(r, "kms:ListKeyPolicies", in.KeyId)
	if err != nil {
		return nil, err
	}
	if _, err := o.tokens.ReadKeyMarker("ListKeyPolicies", in.Marker, k.ID); err != nil {
		return nil, err
	}
	return &kms.ListKeyPoliciesOutput{PolicyNames: []string{policyName}}, nil
}

func (o policyOperations) putServicePolicy(r *request, in *kms.PutServicePolicyInput) (*kms.PutServicePolicyOutput, error) {
	r.readOnly = false
	if len(in.Policy) <= kms.MaxPolicy {
		r.param("policy", in.Policy)
	}
	r.paramBool("bypassPolicyLockoutSafetyCheck", in.BypassPolicyLockoutSafetyCheck)
	o.changes.Lock()
	defer o.changes.Unlock()
	const action = "kmsfs:PutServicePolicy"
	if err := o.authorizeAccount(r, action, "*"); err != nil {
		return nil, err
	}
	document, err := o.parsePolicy(in.Policy)
	if err != nil {
		return nil, err
	}
	if !in.BypassPolicyLockoutSafetyCheck && !o.authz.AllowsWith(&r.authz, document, action) {
		return nil, kms.Errorf(kms.CodeMalformedPolicy, "The new service policy will not allow you to update the service policy in the future.")
	}
	if err := o.change(r, func(tx *store.Tx) error { return tx.PutServicePolicy([]byte(in.Policy)) }); err != nil {
		return nil, err
	}
	o.authz.SetServicePolicy(document)
	return &kms.PutServicePolicyOutput{}, nil
}

func (o policyOperations) getServicePolicy(r *request, _ *kms.GetServicePolicyInput) (*kms.GetServicePolicyOutput, error) {
	if err := o.authorizeAccount(r, "kmsfs:GetServicePolicy", "*"); err != nil {
		return nil, err
	}
	var text []byte
	err := o.store.View(func(tx *store.Tx) (err error) {
		text, err = tx.ServicePolicy()
		return err
	})
	if text == nil {
		text = []byte(authz.StandardServicePolicy(o.names))
	}
	return &kms.GetServicePolicyOutput{Policy: string(text)}, err
}

func (o policyOperations) explainAccess(r *request, in *kms.ExplainAccessInput) (*kms.ExplainAccessOutput, error) {
	r.textParam("keyId", in.KeyId)
	r.textParam("principal", in.Principal)
	r.textParam("action", in.Action)
	r.contextParam("encryptionContext", in.EncryptionContext)
	if err := cmp.Or(
		kms.CheckIdentifier("keyId", in.KeyId),
		kms.CheckContext("encryptionContext", in.EncryptionContext),
		kms.CheckLength("action", len(in.Action), 1, kms.MaxIdentifier)); err != nil {
		return nil, err
	}
	asked, err := o.userID("principal", in.Principal)
	if err != nil {
		return nil, err
	}
	k, err := o.anyKey(r, in.KeyId)
	if err != nil {
		return nil, err
	}
	if err := o.authorizeIn(r, "kms:GetKeyPolicy", k, nil); err != nil {
		return nil, err
	}
	action := in.Action
	if !strings.Contains(action, ":") {
		action = "kms:" + action
	}
	question := o.authz.Ask(asked, in.ViaService, r.time)
	question.On(&k.Resource, k.alias, in.EncryptionContext)
	v, err := o.authz.Decide(question, action)
	if err != nil {
		return nil, err
	}
	return v.Explain(k.ARN), nil
}

// userID is the UID of the user that a caller names as a principal.
func (o policyOperations) userID(member, name string) (uint32, error) {
	p, err := o.principal(member, name)
	if err != nil {
		return 0, err
	}
	switch p.Kind {
	case policy.Account:
		return o.facts.Owner, nil
	case policy.UID:
		return p.ID, nil
	case policy.User:
		found, err := user.Lookup(p.Name)
		if err != nil {
			return 0, kms.Errorf(kms.CodeValidation, "There is no user %s.", p.Name)
		}
		uid, err := strconv.ParseUint(found.Uid, 10, 32)
		return uint32(uid), err
	}
	return 0, kms.Errorf(kms.CodeValidation, "%s is not a user: want user:NAME or uid:N.", name)
}
