package wire

import "net/http"

// Error is the key service's answer to a call that it refuses or that fails: an exception of AWS KMS.
type Error struct {
	// Code is the exception's name, such as "NotFoundException".
	Code string
	// Message says what was wrong. It is empty for exceptions whose cause must not be told.
	Message string
}

func (e *Error) Error() string {
	if e.Message == "" {
		return e.Code
	}
	return e.Code + ": " + e.Message
}

// Codes of errors that the protocol itself gives.
const (
	CodeIncompleteSignature   = "IncompleteSignatureException"
	CodeInternal              = "KMSInternalException"
	CodeInvalidSignature      = "InvalidSignatureException"
	CodeMissingAuthentication = "MissingAuthenticationTokenException"
	CodeSerialization         = "SerializationException"
	CodeTooLarge              = "RequestEntityTooLargeException"
	CodeUnknownOperation      = "UnknownOperationException"
	CodeUnrecognizedClient    = "UnrecognizedClientException"
)

// status is the HTTP status of an exception: 500 for the service's faults, which clients retry, and 400 for all others.
func status(code string) int {
	switch code {
	case CodeInternal, "DependencyTimeoutException", "KeyUnavailableException":
		return http.StatusInternalServerError
	case CodeTooLarge:
		return http.StatusRequestEntityTooLarge
	}
	return http.StatusBadRequest
}
