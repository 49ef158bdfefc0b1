package keyservice

import (
	"cmp"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/kms"
)

const (
	// maxEventName bounds an event's name, in letters.
	maxEventName = 64
	// maxDetails bounds an event's details, as contextSize counts them, and its error's code and message, in bytes.
	maxDetails = 32 << 10
	// audit.ContextDetail is where the details have the encryption context.
)

// recordEvent makes the call's record the event's. A refused call is recorded as a call.
func (s *Service) recordEvent(r *request, e *kms.Event) (*kms.RecordEventOutput, error) {
	if err := cmp.Or(s.authorizeAccount(r, "kmsfs:RecordEvent", "*"), checkEvent(e)); err != nil {
		return nil, err
	}
	if e.KeyARN != "" {
		r.concerns(resourceKey, e.KeyARN)
	}
	r.details = audit.EventDetails(e.EncryptionContext, e.Details)
	r.name, r.serviceEvent = e.Name, true
	if e.ErrorCode == "" && e.ErrorMessage == "" {
		return &kms.RecordEventOutput{}, nil
	}
	refusal := &kms.Error{Code: e.ErrorCode, Message: e.ErrorMessage}
	if err := s.record(r, refusal); err != nil {
		return nil, err
	}
	r.recorded = true
	return &kms.RecordEventOutput{}, nil
}

func checkEvent(e *kms.Event) error {
	if err := cmp.Or(
		kms.CheckLength("name", len(e.Name), 1, maxEventName),
		kms.CheckLength("keyARN", len(e.KeyARN), 0, kms.MaxIdentifier),
		kms.CheckContext("encryptionContext", e.EncryptionContext),
		kms.CheckLength("details", kms.ContextSize(e.Details), 0, maxDetails),
		kms.CheckLength("errorCode", len(e.ErrorCode), 0, kms.MaxIdentifier),
		kms.CheckLength("errorMessage", len(e.ErrorMessage), 0, maxDetails)); err != nil {
		return err
	}
	if !kms.ConsistsOf(e.Name, "") {
		return kms.Invalid("name", "", "Member must consist of letters and digits")
	}
	if _, ok := e.Details[audit.ContextDetail]; ok {
		return kms.Invalid("details", "", "Member must not have the name %s", audit.ContextDetail)
	}
	return nil
}
