package keyservice

import (
	"context"
	"maps"
	"slices"

	"kmsfs/keyservice/audit"
)

const (
	// maxEventName bounds an event's name, in letters.
	maxEventName = 64
	// maxDetails bounds an event's details, as contextSize counts them, and its error's code and message, in bytes.
	maxDetails = 32 << 10
	// contextField is where the details have the encryption context.
	contextField = "encryptionContext"
)

// RecordEvent writes an event into the audit log.
func (s *Service) RecordEvent(ctx context.Context, c Caller, e Event) error {
	_, err := run(ctx, s, c, "RecordEvent", &e, (*Service).recordEvent)
	return err
}

// recordEvent makes the call's record the event's. A refused call is recorded as a call.
func (s *Service) recordEvent(r *request, e *Event) (*struct{}, error) {
	if err := firstError(s.admitAccount(r, "kmsfs:RecordEvent", "*"), checkEvent(e)); err != nil {
		return nil, err
	}
	if e.KeyARN != "" {
		r.concerns(resourceKey, e.KeyARN)
	}
	r.details = e.Fields()
	r.name, r.serviceEvent = e.Name, true
	if e.ErrorCode == "" && e.ErrorMessage == "" {
		return &struct{}{}, nil
	}
	refusal := &Error{Code: e.ErrorCode, Message: e.ErrorMessage}
	if err := s.record(r, refusal); err != nil {
		return nil, err
	}
	r.recorded = true
	return &struct{}{}, nil
}

func checkEvent(e *Event) error {
	if err := firstError(
		checkLength("name", len(e.Name), 1, maxEventName),
		checkLength("keyARN", len(e.KeyARN), 0, maxIdentifier),
		checkContext("encryptionContext", e.EncryptionContext),
		checkLength("details", contextSize(e.Details), 0, maxDetails),
		checkLength("errorCode", len(e.ErrorCode), 0, maxIdentifier),
		checkLength("errorMessage", len(e.ErrorMessage), 0, maxDetails)); err != nil {
		return err
	}
	if !consistsOf(e.Name, "") {
		return invalid("name", "", "Member must consist of letters and digits")
	}
	if _, ok := e.Details[contextField]; ok {
		return invalid("details", "", "Member must not have the name %s", contextField)
	}
	return nil
}

// Fields are the event's details as audit records have them.
func (e *Event) Fields() []audit.Field {
	var fields []audit.Field
	if len(e.EncryptionContext) > 0 {
		fields = append(fields, audit.Pairs(contextField, e.EncryptionContext))
	}
	for _, name := range slices.Sorted(maps.Keys(e.Details)) {
		fields = append(fields, audit.Text(name, e.Details[name]))
	}
	return fields
}
