package kms

import (
	"reflect"
	"unicode/utf8"
)

// CheckText returns an error if a map of texts in an input is not valid UTF-8. The wire can't carry
// it, and would turn an encryption context into another one.
func CheckText(in any) error {
	v := reflect.ValueOf(in).Elem()
	for i := range v.NumField() {
		texts, ok := v.Field(i).Interface().(map[string]string)
		if !ok {
			continue
		}
		for name, value := range texts {
			if !utf8.ValidString(name) || !utf8.ValidString(value) {
				return Errorf(CodeValidation, "%s is not valid UTF-8: %q=%q", v.Type().Field(i).Name, name, value)
			}
		}
	}
	return nil
}
