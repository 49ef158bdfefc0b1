package keyservice

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// specSymmetric is the spec of symmetric keys that encrypt, and the name of their algorithm.
const specSymmetric = "SYMMETRIC_DEFAULT"

// What keys are for.
const (
	usageEncryption = "ENCRYPT_DECRYPT"
	usageSigning    = "SIGN_VERIFY"
	usageMAC        = "GENERATE_VERIFY_MAC"
	usageAgreement  = "KEY_AGREEMENT"
)

// AWS KMS's limits.
const (
	maxIdentifier  = 2048 // characters of a KeyId
	maxAliasName   = 256  // characters
	maxDescription = 8192 // characters
	maxBlob        = 6144 // bytes
	maxDataKey     = 1024 // bytes
	maxMarker      = 1024 // characters
	maxGrantTokens = 10
	maxKeys        = 100_000
	maxKeyAliases  = 50 // of one key
)

// invalid says that a member of the input, by its name with a lower-case initial, breaks AWS's model. The value is shown unless it is empty,
// which it must be for blobs.
func invalid(member, value, format string, args ...any) *Error {
	shown := "Value"
	if value != "" {
		shown = fmt.Sprintf("Value '%s'", value)
	}
	return refuse(CodeValidation, "1 validation error detected: %s at '%s' failed to satisfy constraint: %s", shown, member, fmt.Sprintf(format, args...))
}

// checkLength checks a member's length, in characters or bytes.
func checkLength(member string, length, least, most int) error {
	switch {
	case length < least:
		return invalid(member, "", "Member must have length greater than or equal to %d", least)
	case length > most:
		return invalid(member, "", "Member must have length less than or equal to %d", most)
	}
	return nil
}

// checkNumber checks a number that is given.
func checkNumber(member string, n *int32, least, most int32) error {
	switch {
	case n == nil:
	case *n < least:
		return invalid(member, fmt.Sprint(*n), "Member must have value greater than or equal to %d", least)
	case *n > most:
		return invalid(member, fmt.Sprint(*n), "Member must have value less than or equal to %d", most)
	}
	return nil
}

// checkEnum checks a text that is given.
func checkEnum(member, value string, values ...string) error {
	if value == "" {
		return nil
	}
	for _, v := range values {
		if value == v {
			return nil
		}
	}
	return invalid(member, printable(value), "Member must satisfy enum value set: [%s]", strings.Join(values, ", "))
}

// printable is a value as a message may show it.
func printable(value string) string {
	if len(value) > 256 || !utf8.ValidString(value) {
		return "..."
	}
	return value
}

func checkIdentifier(member, id string) error { return checkLength(member, len(id), 1, maxIdentifier) }

// checkUnsupported refuses a member that must not be ignored where it is given.
func checkUnsupported(member string, given bool) error {
	if given {
		return refuse(CodeUnsupportedOperation, "%s is not supported.", member)
	}
	return nil
}

func isGiven(member json.RawMessage) bool { return len(member) > 0 && string(member) != "null" }

func checkAliasName(name string) error {
	if err := checkLength("aliasName", len(name), 1, maxAliasName); err != nil {
		return err
	}
	rest, ok := strings.CutPrefix(name, aliasPrefix)
	switch {
	case !ok:
		return refuse(CodeValidation, "Alias must start with the prefix \"alias/\". Please see https://docs.aws.amazon.com/kms/latest/developerguide/kms-alias.html")
	case rest == "":
		return refuse(CodeInvalidAliasName, "An alias needs a name behind \"alias/\"")
	case !consistsOf(rest, "/_-"):
		return refuse(CodeValidation, "%s contains invalid characters for an alias", printable(name))
	case strings.HasPrefix(rest, "aws/") || strings.HasPrefix(name, managedPrefix):
		return &Error{Code: CodeNotAuthorized}
	}
	return nil
}

// firstError returns the first of the errors that is one.
func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
