package keyservice

import (
	"errors"
	"fmt"

	"kmsfs/keyservice/sealer"
	"kmsfs/keyservice/store"
	"kmsfs/keyservice/wire"
)

// Error is what an operation refuses a call with: an exception of AWS KMS.
type Error = wire.Error

// Codes of errors: the names of AWS KMS's exceptions.
const (
	CodeAccessDenied         = "AccessDeniedException"
	CodeAlreadyExists        = "AlreadyExistsException"
	CodeConflict             = "ConflictException"
	CodeDisabled             = "DisabledException"
	CodeDryRun               = "DryRunOperationException"
	CodeExpiredImportToken   = "ExpiredImportTokenException"
	CodeIncorrectKey         = "IncorrectKeyException"
	CodeIncorrectKeyMaterial = "IncorrectKeyMaterialException"
	CodeInternal             = wire.CodeInternal
	CodeInvalidAliasName     = "InvalidAliasNameException"
	CodeInvalidArn           = "InvalidArnException"
	CodeInvalidCiphertext    = "InvalidCiphertextException"
	CodeInvalidGrantID       = "InvalidGrantIdException"
	CodeInvalidGrantToken    = "InvalidGrantTokenException"
	CodeInvalidImportToken   = "InvalidImportTokenException"
	CodeInvalidKeyUsage      = "InvalidKeyUsageException"
	CodeInvalidMarker        = "InvalidMarkerException"
	CodeInvalidMac           = "KMSInvalidMacException"
	CodeInvalidSignature     = "KMSInvalidSignatureException"
	CodeInvalidState         = "KMSInvalidStateException"
	CodeKeyUnavailable       = "KeyUnavailableException"
	CodeLimitExceeded        = "LimitExceededException"
	CodeMalformedPolicy      = "MalformedPolicyDocumentException"
	CodeNotAuthorized        = "NotAuthorizedException"
	CodeNotFound             = "NotFoundException"
	CodeTag                  = "TagException"
	CodeUnsupportedOperation = "UnsupportedOperationException"
	CodeValidation           = "ValidationException"
)

// Why a home can't be opened or made. Errors wrap one of these and say more.
var (
	// ErrNoHome says that there is no home: the directory is missing or empty.
	ErrNoHome = errors.New("no key service home")
	// ErrHomeExists says that a home can't be made where something is already.
	ErrHomeExists = errors.New("something is there already")
	// ErrLocked says that another process has the home open.
	ErrLocked = errors.New("another process has the key service home open")
	// ErrWrongSecret says that the passphrase or key is not the home's.
	ErrWrongSecret = sealer.ErrWrongSecret
	// ErrSealerMismatch says that the home needs another kind of secret than was given.
	ErrSealerMismatch = errors.New("the key service home is sealed by something else")
	// ErrDamagedHome says that the directory is no home, or not one that is whole.
	ErrDamagedHome = errors.New("not an intact key service home")
	// ErrUnsafeHome says that users other than the home's owner could have changed it.
	ErrUnsafeHome = errors.New("unsafe key service home")
)

func refuse(code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// errInvalidCiphertext tells nobody what was wrong: the blob, the context or the key.
func errInvalidCiphertext() *Error { return &Error{Code: CodeInvalidCiphertext} }

// asError is err as callers see it.
func asError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return refuse(CodeInternal, "%v", err)
}

// homeError has errors of what lies in a home say what they mean for the home.
func homeError(err error) error {
	if errors.Is(err, store.ErrDamaged) || errors.Is(err, sealer.ErrMalformed) {
		return fmt.Errorf("%w: %w", ErrDamagedHome, err)
	}
	return err
}
