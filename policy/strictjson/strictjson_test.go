package strictjson_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"kmsfs/policy/strictjson"
)

// input is what the decoder fills.
type input struct {
	A    json.RawMessage `json:"a"`
	Map  map[string]string
	List []struct{ B int }
	Text string
}

var decoder = strictjson.NewDecoder[input]()

func check(t *testing.T, text string, err error, line, column int, reason string) {
	t.Helper()
	refusal, ok := errors.AsType[*strictjson.Error](err)
	if !ok || refusal.Line != line || refusal.Column != column || !strings.Contains(refusal.Reason, reason) {
		t.Errorf("%.60q: got %+v (%v), want line %d, column %d: %s", text, refusal, err, line, column, reason)
	}
}

func TestRefused(t *testing.T) {
	for _, test := range []struct {
		text         string
		line, column int
		reason       string
	}{
		{`{`, 1, 1, "unexpected end"},
		{"{\n  \"a\": }", 2, 8, "invalid character"},
		{`{}x`, 1, 3, "after top-level value"},
		{`{}{}`, 1, 3, "after top-level value"},
		{"{\"a\":\"\xff\"}", 1, 7, "invalid UTF-8"},
		{`{"a":1,"a":2}`, 1, 11, `duplicate member "a"`},
		{`{"a":1,"\u0061":2}`, 1, 16, `duplicate member "a"`},
		{`{"a":[{"x":1,"x":2}]}`, 1, 17, `duplicate member "x"`},
		{`{"a":"\ud83d"}`, 1, 7, "lone surrogate"},
		{`{"a":"\ude00"}`, 1, 7, "lone surrogate"},
		{`{"a":"\ud83d\ud83d"}`, 1, 7, "lone surrogate"},
		{`{"Map":{"\udc00":"x"}}`, 1, 10, "lone surrogate"},
		{`{"a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, 1, 13, "nested deeper than 8 levels"},
	} {
		_, err := strictjson.Parse(test.text)
		check(t, test.text, err, test.line, test.column, test.reason)
		_, err = decoder.Decode([]byte(test.text))
		check(t, test.text, err, test.line, test.column, test.reason)
	}
	for text, reason := range map[string]string{
		`[]`: "not an object", `null`: "not an object", `{"text":"x"}`: "unknown member", `{"b":1}`: "unknown member",
		`{"List":[{},{"b":1}]}`: "unknown member", `{"Map":{"x":null}}`: "null inside a member",
	} {
		if _, err := decoder.Decode([]byte(text)); err == nil || !strings.Contains(err.Error(), reason) {
			t.Errorf("%q: got %v, want %s", text, err, reason)
		}
	}
}

func TestParse(t *testing.T) {
	got, err := strictjson.Parse(`{"b":[1.50,true,null,[]],"a":{"\u00e9\"\\":"\ud83d\ude00"},"":false}`)
	want := strictjson.Object{
		{Name: "b", Value: []any{json.Number("1.50"), true, nil, []any(nil)}},
		{Name: "a", Value: strictjson.Object{{Name: `é"\`, Value: "😀"}}},
		{Name: "", Value: false},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %#v, %v, want %#v", got, err, want)
	}
}

func TestDecode(t *testing.T) {
	got, err := decoder.Decode([]byte(` {"Text":"x","Map":{"k":"v"},"a":[1],"List":[{"B":1}]} `))
	want := &input{A: json.RawMessage(`[1]`), Map: map[string]string{"k": "v"}, List: []struct{ B int }{{1}}, Text: "x"}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if got, err := decoder.Decode(nil); err != nil || !reflect.DeepEqual(got, &input{}) {
		t.Errorf("nothing: %+v, %v", got, err)
	}
}

// plain is a parsed value as encoding/json has it.
func plain(value any) any {
	switch v := value.(type) {
	case strictjson.Object:
		m := map[string]any{}
		for _, member := range v {
			m[member.Name] = plain(member.Value)
		}
		return m
	case []any:
		list := []any{}
		for _, item := range v {
			list = append(list, plain(item))
		}
		return list
	}
	return value
}

// What is accepted is what encoding/json reads.
func FuzzParse(f *testing.F) {
	f.Add(`{"b":[1.50,true,null,[]],"a":{"\u00e9\"\\":"\ud83d\ude00"},"":false}`)
	f.Add(`"\\ud83d"`)
	f.Add(`-0.1e+5`)
	f.Fuzz(func(t *testing.T, text string) {
		got, err := strictjson.Parse(text)
		if err != nil {
			if _, ok := errors.AsType[*strictjson.Error](err); !ok {
				t.Fatalf("another error: %v", err)
			}
			return
		}
		d := json.NewDecoder(bytes.NewReader([]byte(text)))
		d.UseNumber()
		var want any
		if err := d.Decode(&want); err != nil || !reflect.DeepEqual(plain(got), want) {
			t.Errorf("%q: got %#v, encoding/json has %#v, %v", text, got, want, err)
		}
	})
}
