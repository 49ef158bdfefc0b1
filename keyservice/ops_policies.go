package keyservice

import (
	"context"

	"kmsfs/keyservice/store"
	"kmsfs/policy"
)

const (
	// maxPolicy bounds a policy document in bytes: AWS KMS's quota.
	maxPolicy = 32768
	// policyName is the name of the one policy that a key has.
	policyName = "default"
)

// PutKeyPolicy gives a KMS key another key policy.
func (s *Service) PutKeyPolicy(ctx context.Context, c Caller, in *PutKeyPolicyInput) (*PutKeyPolicyOutput, error) {
	return run(ctx, s, c, "PutKeyPolicy", in, (*Service).putKeyPolicy)
}

// GetKeyPolicy returns a KMS key's policy.
func (s *Service) GetKeyPolicy(ctx context.Context, c Caller, in *GetKeyPolicyInput) (*GetKeyPolicyOutput, error) {
	return run(ctx, s, c, "GetKeyPolicy", in, (*Service).getKeyPolicy)
}

// ListKeyPolicies lists the names of a KMS key's policies: "default" alone.
func (s *Service) ListKeyPolicies(ctx context.Context, c Caller, in *ListKeyPoliciesInput) (*ListKeyPoliciesOutput, error) {
	return run(ctx, s, c, "ListKeyPolicies", in, (*Service).listKeyPolicies)
}

// PutServicePolicy gives the home another service policy.
func (s *Service) PutServicePolicy(ctx context.Context, c Caller, in *PutServicePolicyInput) (*PutServicePolicyOutput, error) {
	return run(ctx, s, c, "PutServicePolicy", in, (*Service).putServicePolicy)
}

// GetServicePolicy returns the home's service policy.
func (s *Service) GetServicePolicy(ctx context.Context, c Caller, in *GetServicePolicyInput) (*GetServicePolicyOutput, error) {
	return run(ctx, s, c, "GetServicePolicy", in, (*Service).getServicePolicy)
}

// parsePolicy reads a document that a caller gave.
func (s *Service) parsePolicy(text string) (*policy.Document, error) {
	if err := checkLength("policy", len(text), 1, 131072); err != nil {
		return nil, err
	}
	if len(text) > maxPolicy {
		return nil, refuse(CodeLimitExceeded, "The policy has %d bytes: the limit is %d.", len(text), maxPolicy)
	}
	document, err := policy.Parse(text, s.facts.Account)
	if err != nil {
		return nil, refuse(CodeMalformedPolicy, "%v", err)
	}
	return document, nil
}

func checkPolicyName(name string) error {
	if name != "" && name != policyName {
		return refuse(CodeNotFound, "No such policy exists")
	}
	return nil
}

func (s *Service) putKeyPolicy(r *request, in *PutKeyPolicyInput) (*PutKeyPolicyOutput, error) {
	r.readOnly = false
	r.textParam("policyName", in.PolicyName)
	r.paramBool("bypassPolicyLockoutSafetyCheck", in.BypassPolicyLockoutSafetyCheck)
	if len(in.Policy) <= maxPolicy {
		r.param("policy", in.Policy)
	}
	r.aboutBool("kms:bypasspolicylockoutsafetycheck", in.BypassPolicyLockoutSafetyCheck)
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
		if err := s.checkLockout(r, k, document); err != nil {
			return nil, err
		}
	}
	return &PutKeyPolicyOutput{}, s.change(r, func(tx *store.Tx) error { return tx.PutKeyPolicy(k.ID, []byte(in.Policy)) }, k.ID)
}

// checkLockout refuses a key policy under which the caller could not change it again.
func (s *Service) checkLockout(r *request, k *key, document *policy.Document) error {
	proposed := &key{Key: k.Key, spec: k.spec, arn: k.arn, currentID: k.currentID, policy: document, aliases: k.aliases}
	a := r.attributes
	a.s, a.key = s, proposed
	v, err := s.decide(&question{subject: &r.subject, action: "kms:PutKeyPolicy", attributes: &a})
	if err == nil && !v.allowed {
		return refuse(CodeMalformedPolicy, "The new key policy will not allow you to update the key policy in the future.")
	}
	return err
}

// checkNewPolicy checks the policy that a new key is to have, if one is given.
func (s *Service) checkNewPolicy(r *request, record *store.Key, in *CreateKeyInput) error {
	if in.Policy == "" {
		return nil
	}
	document, err := s.parsePolicy(in.Policy)
	if err != nil || in.BypassPolicyLockoutSafetyCheck {
		return err
	}
	return s.checkLockout(r, &key{Key: *record, arn: s.names.resource(keyPrefix)}, document)
}

func (s *Service) getKeyPolicy(r *request, in *GetKeyPolicyInput) (*GetKeyPolicyOutput, error) {
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
	return &GetKeyPolicyOutput{text, policyName}, nil
}

// policyText is a key's policy as it was given.
func (s *Service) policyText(k *key) (string, error) {
	if k.Manager == managerService {
		return s.policies.managedText, nil
	}
	var text []byte
	err := s.store.View(func(tx *store.Tx) (err error) {
		text, err = tx.KeyPolicy(k.ID)
		return err
	})
	if text == nil {
		return s.policies.standardText, err
	}
	return string(text), err
}

func (s *Service) listKeyPolicies(r *request, in *ListKeyPoliciesInput) (*ListKeyPoliciesOutput, error) {
	if _, err := pageSize(in.Limit, 100, 1000); err != nil {
		return nil, err
	}
	k, err := s.named(r, "kms:ListKeyPolicies", in.KeyId)
	if err != nil {
		return nil, err
	}
	if _, err := s.markedKey("ListKeyPolicies", in.Marker, k); err != nil {
		return nil, err
	}
	return &ListKeyPoliciesOutput{PolicyNames: []string{policyName}}, nil
}

func (s *Service) putServicePolicy(r *request, in *PutServicePolicyInput) (*PutServicePolicyOutput, error) {
	r.readOnly = false
	if len(in.Policy) <= maxPolicy {
		r.param("policy", in.Policy)
	}
	r.paramBool("bypassPolicyLockoutSafetyCheck", in.BypassPolicyLockoutSafetyCheck)
	s.changes.Lock()
	defer s.changes.Unlock()
	const action = "kmsfs:PutServicePolicy"
	if err := s.admitAccount(r, action, "*"); err != nil {
		return nil, err
	}
	document, err := s.parsePolicy(in.Policy)
	if err != nil {
		return nil, err
	}
	d := document.Decide(&policy.Request{Subject: &r.subject, Action: action, Resource: "*", Attributes: &r.attributes})
	if d.Effect != policy.Allow && !in.BypassPolicyLockoutSafetyCheck {
		return nil, refuse(CodeMalformedPolicy, "The new service policy will not allow you to update the service policy in the future.")
	}
	if err := s.change(r, func(tx *store.Tx) error { return tx.PutServicePolicy([]byte(in.Policy)) }); err != nil {
		return nil, err
	}
	s.servicePolicy.Store(document)
	return &PutServicePolicyOutput{}, nil
}

func (s *Service) getServicePolicy(r *request, _ *GetServicePolicyInput) (*GetServicePolicyOutput, error) {
	if err := s.admitAccount(r, "kmsfs:GetServicePolicy", "*"); err != nil {
		return nil, err
	}
	var text []byte
	err := s.store.View(func(tx *store.Tx) (err error) {
		text, err = tx.ServicePolicy()
		return err
	})
	if text == nil {
		text = []byte(standardServicePolicy(s.names))
	}
	return &GetServicePolicyOutput{string(text)}, err
}
