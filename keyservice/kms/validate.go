package kms

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Invalid says that a member of the input, by its name with a lower-case initial, breaks AWS's model. The value is shown unless it is empty,
// which it must be for blobs.
func Invalid(member, value, format string, args ...any) *Error {
	shown := "Value"
	if value != "" {
		shown = fmt.Sprintf("Value '%s'", value)
	}
	return Errorf(CodeValidation, "1 validation error detected: %s at '%s' failed to satisfy constraint: %s", shown, member, fmt.Sprintf(format, args...))
}

// CheckLength checks a member's length, in characters or bytes.
func CheckLength(member string, length, least, most int) error {
	switch {
	case length < least:
		return Invalid(member, "", "Member must have length greater than or equal to %d", least)
	case length > most:
		return Invalid(member, "", "Member must have length less than or equal to %d", most)
	}
	return nil
}

// CheckNumber checks a number that is given.
func CheckNumber(member string, n *int32, least, most int32) error {
	switch {
	case n == nil:
	case *n < least:
		return Invalid(member, fmt.Sprint(*n), "Member must have value greater than or equal to %d", least)
	case *n > most:
		return Invalid(member, fmt.Sprint(*n), "Member must have value less than or equal to %d", most)
	}
	return nil
}

// CheckEnum checks a text that is given.
func CheckEnum(member, value string, values ...string) error {
	if value == "" {
		return nil
	}
	for _, v := range values {
		if value == v {
			return nil
		}
	}
	return Invalid(member, Printable(value), "Member must satisfy enum value set: [%s]", strings.Join(values, ", "))
}

// Printable is a value as a message may show it.
func Printable(value string) string {
	if len(value) > 256 || !utf8.ValidString(value) {
		return "..."
	}
	return value
}

// CheckIdentifier checks the length of a key's ID, ARN, alias or alias ARN.
func CheckIdentifier(member, id string) error { return CheckLength(member, len(id), 1, MaxIdentifier) }

// CheckUnsupported refuses a member that must not be ignored where it is given.
func CheckUnsupported(member string, given bool) error {
	if given {
		return Errorf(CodeUnsupportedOperation, "%s is not supported.", member)
	}
	return nil
}

// IsGiven says whether a member of any type is there.
func IsGiven(member json.RawMessage) bool { return len(member) > 0 && string(member) != "null" }

// CheckAliasName checks the name of an alias that a caller makes.
func CheckAliasName(name string) error {
	if err := CheckLength("aliasName", len(name), 1, maxAliasName); err != nil {
		return err
	}
	rest, ok := strings.CutPrefix(name, AliasPrefix)
	switch {
	case !ok:
		return Errorf(CodeValidation, "Alias must start with the prefix \"alias/\". Please see https://docs.aws.amazon.com/kms/latest/developerguide/kms-alias.html")
	case rest == "":
		return Errorf(CodeInvalidAliasName, "An alias needs a name behind \"alias/\"")
	case !ConsistsOf(rest, "/_-"):
		return Errorf(CodeValidation, "%s contains invalid characters for an alias", Printable(name))
	case strings.HasPrefix(rest, "aws/") || strings.HasPrefix(name, ManagedPrefix):
		return &Error{Code: CodeNotAuthorized}
	}
	return nil
}

// PageSize is the number of items that a list is asked for.
func PageSize(limit *int32, standard, most int32) (int, error) {
	if limit == nil {
		return int(standard), nil
	}
	return int(*limit), CheckNumber("limit", limit, 1, most)
}
