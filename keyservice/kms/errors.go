package kms

import (
	"errors"
	"fmt"
)

// Error is the key service's answer to a call that it denies or that fails: an exception of AWS KMS.
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

// Errorf returns an Error with a formatted message.
func Errorf(code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// ErrInvalidCiphertext returns the error for a ciphertext that can't be decrypted. It doesn't say
// whether the ciphertext, the encryption context or the key is wrong.
func ErrInvalidCiphertext() *Error { return &Error{Code: CodeInvalidCiphertext} }

// AsError returns err as callers see it: errors that are no Error become internal errors.
func AsError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return Errorf(CodeInternal, "%v", err)
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

// Codes of errors that operations give: the names of AWS KMS's exceptions.
const (
	CodeAccessDenied         = "AccessDeniedException"
	CodeAlreadyExists        = "AlreadyExistsException"
	CodeConflict             = "ConflictException"
	CodeDisabled             = "DisabledException"
	CodeDryRun               = "DryRunOperationException"
	CodeExpiredImportToken   = "ExpiredImportTokenException"
	CodeIncorrectKey         = "IncorrectKeyException"
	CodeIncorrectKeyMaterial = "IncorrectKeyMaterialException"
	CodeInvalidAliasName     = "InvalidAliasNameException"
	CodeInvalidArn           = "InvalidArnException"
	CodeInvalidCiphertext    = "InvalidCiphertextException"
	CodeInvalidGrantID       = "InvalidGrantIdException"
	CodeInvalidGrantToken    = "InvalidGrantTokenException"
	CodeInvalidImportToken   = "InvalidImportTokenException"
	CodeInvalidKeyUsage      = "InvalidKeyUsageException"
	CodeInvalidMarker        = "InvalidMarkerException"
	CodeKMSInvalidMac        = "KMSInvalidMacException"
	CodeKMSInvalidSignature  = "KMSInvalidSignatureException"
	CodeKMSInvalidState      = "KMSInvalidStateException"
	CodeKeyUnavailable       = "KeyUnavailableException"
	CodeLimitExceeded        = "LimitExceededException"
	CodeMalformedPolicy      = "MalformedPolicyDocumentException"
	CodeNotAuthorized        = "NotAuthorizedException"
	CodeNotFound             = "NotFoundException"
	CodeTag                  = "TagException"
	CodeUnsupportedOperation = "UnsupportedOperationException"
	CodeValidation           = "ValidationException"
)
