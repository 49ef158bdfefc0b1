package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"

	"kmsfs/policy/strictjson"
)

// Decoder reads inputs of one operation. It is safe for concurrent use.
type Decoder[I any] struct{ strict strictjson.Decoder[I] }

// NewDecoder returns a decoder for a type, which must be a struct.
func NewDecoder[I any]() Decoder[I] { return Decoder[I]{strictjson.NewDecoder[I]()} }

// Decode reads one JSON object, strictly. An empty body is an empty object.
func (d Decoder[I]) Decode(body []byte) (*I, error) {
	in, err := d.strict.Decode(body)
	if mismatch, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return nil, errors.New(conversion(mismatch, bytes.Trim(body, " \t\r\n")))
	}
	return in, err
}

// conversion is AWS's message for a value of the wrong type.
func conversion(e *json.UnmarshalTypeError, body []byte) string {
	value, _, _ := strings.Cut(e.Value, " ") // a number has its digits behind it
	switch value {
	case "array":
		return "Start of list found where not expected"
	case "object":
		return "Start of structure or map found where not expected."
	case "bool":
		value = "false"
		if bytes.HasSuffix(body[:min(e.Offset, int64(len(body)))], []byte("true")) {
			value = "true"
		}
	}
	return strings.ToUpper(value) + "_VALUE can not be converted to " + awsType(e.Type)
}

// awsType is AWS's name for a type, with its article.
func awsType(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a String"
	case reflect.Bool:
		return "a Boolean"
	case reflect.Int32:
		return "an Integer"
	case reflect.Int64:
		return "a Long"
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return "a Blob"
		}
		return "a List"
	case reflect.Map:
		return "a Map"
	}
	return "a Structure"
}
