package keyservice

import (
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

// parsePolicy reads a document that a caller gave.
func (s *Service) parsePolicy(text string) (*policy.Document, error) {
	if err := kms.CheckLength("policy", len(text), 1, 131072); err != nil {
		return nil, err
	}
	if len(text) > kms.MaxPolicy {
		return nil, kms.Errorf(kms.CodeLimitExceeded, "The policy has %d bytes: the limit is %d.", len(text), kms.MaxPolicy)
	}
	document, err := authz.Scope(s.names, s.users.Exists).Parse(text)
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

func (s *Service) putKeyPolicy(r *request, in *kms.PutKeyPolicyInput) (*kms.PutKeyPolicyOutput, error) {
	r.readOnly = false
	r.textParam("policyName", in.PolicyName)
	r.paramBool("bypassPolicyLockoutSafetyCheck", in.BypassPolicyLockoutSafetyCheck)
	if len(in.Policy) <= kms.MaxPolicy {
		r.param("policy", in.Policy)
	}
	r.authz.SetBool("kms:bypasspolicylockoutsafetycheck", in.BypassPolicyLockoutSafetyCheck)
	s.changes.Lock()
	defer s.changes.Unlock()
	k, err := s.named(r, "kms:PutKeyPolicy", in.KeyId)
	if err != nil {
		return nil, err
	}
	if err := checkPolicyName(in.PolicyName); err != nil {
		return nil, err
	}
	document, err := s.parsePolicy(in.Policy)
	if err != nil {
		return nil, err
	}
	if !in.BypassPolicyLockoutSafetyCheck {
		if err := s.checkLockout(r, k.Resource, document); err != nil {
			return nil, err
		}
	}
	return &kms.PutKeyPolicyOutput{}, s.change(r, func(tx *store.Tx) error { return tx.PutKeyPolicy(k.ID, []byte(in.Policy)) }, k.ID)
}

// checkLockout returns an error for a key policy under which the caller could not change it again.
func (s *Service) checkLockout(r *request, k authz.Resource, document *policy.Document) error {
	k.Policy = document
	if !s.authz.AllowsLater(&r.authz, "kms:PutKeyPolicy", &k) {
		return kms.Errorf(kms.CodeMalformedPolicy, "The new key policy will not allow you to update the key policy in the future.")
	}
	return nil
}

// checkNewPolicy checks the policy that a new key is to have, if one is given.
func (s *Service) checkNewPolicy(r *request, record *store.Key, in *kms.CreateKeyInput) error {
	if in.Policy == "" {
		return nil
	}
	document, err := s.parsePolicy(in.Policy)
	if err != nil || in.BypassPolicyLockoutSafetyCheck {
		return err
	}
	return s.checkLockout(r, authz.Resource{Key: *record, ARN: s.names.Resource(kms.KeyPrefix)}, document)
}

func (s *Service) getKeyPolicy(r *request, in *kms.GetKeyPolicyInput) (*kms.GetKeyPolicyOutput, error) {
	r.textParam("policyName", in.PolicyName)
	k, err := s.named(r, "kms:GetKeyPolicy", in.KeyId)
	if err != nil {
		return nil, err
	}
	if err := checkPolicyName(in.PolicyName); err != nil {
		return nil, err
	}
	text, err := s.policyText(k)
	if err != nil {
		return nil, err
	}
	return &kms.GetKeyPolicyOutput{Policy: text, PolicyName: policyName}, nil
}

// policyText is a key's policy as it was given.
func (s *Service) policyText(k *catalog.Key) (string, error) {
	if k.Manager == kms.ManagerService {
		return s.authz.Policies.ManagedText, nil
	}
	var text []byte
	err := s.store.View(func(tx *store.Tx) (err error) {
		text, err = tx.KeyPolicy(k.ID)
		return err
	})
	if text == nil {
		return s.authz.Policies.StandardText, err
	}
	return string(text), err
}

func (s *Service) listKeyPolicies(r *request, in *kms.ListKeyPoliciesInput) (*kms.ListKeyPoliciesOutput, error) {
	if _, err := kms.PageSize(in.Limit, 100, 1000); err != nil {
		return nil, err
	}
	k, err := s.named(r, "kms:ListKeyPolicies", in.KeyId)
	if err != nil {
		return nil, err
	}
	if _, err := s.markedKey("ListKeyPolicies", in.Marker, k); err != nil {
		return nil, err
	}
	return &kms.ListKeyPoliciesOutput{PolicyNames: []string{policyName}}, nil
}

func (s *Service) putServicePolicy(r *request, in *kms.PutServicePolicyInput) (*kms.PutServicePolicyOutput, error) {
	r.readOnly = false
	if len(in.Policy) <= kms.MaxPolicy {
		r.param("policy", in.Policy)
	}
	r.paramBool("bypassPolicyLockoutSafetyCheck", in.BypassPolicyLockoutSafetyCheck)
	s.changes.Lock()
	defer s.changes.Unlock()
	const action = "kmsfs:PutServicePolicy"
	if err := s.authorizeAccount(r, action, "*"); err != nil {
		return nil, err
	}
	document, err := s.parsePolicy(in.Policy)
	if err != nil {
		return nil, err
	}
	if !in.BypassPolicyLockoutSafetyCheck && !s.authz.AllowsWith(&r.authz, document, action) {
		return nil, kms.Errorf(kms.CodeMalformedPolicy, "The new service policy will not allow you to update the service policy in the future.")
	}
	if err := s.change(r, func(tx *store.Tx) error { return tx.PutServicePolicy([]byte(in.Policy)) }); err != nil {
		return nil, err
	}
	s.authz.SetServicePolicy(document)
	return &kms.PutServicePolicyOutput{}, nil
}

func (s *Service) getServicePolicy(r *request, _ *kms.GetServicePolicyInput) (*kms.GetServicePolicyOutput, error) {
	if err := s.authorizeAccount(r, "kmsfs:GetServicePolicy", "*"); err != nil {
		return nil, err
	}
	var text []byte
	err := s.store.View(func(tx *store.Tx) (err error) {
		text, err = tx.ServicePolicy()
		return err
	})
	if text == nil {
		text = []byte(authz.StandardServicePolicy(s.names))
	}
	return &kms.GetServicePolicyOutput{Policy: string(text)}, err
}
