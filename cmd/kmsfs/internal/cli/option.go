package cli

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// Pairs reads options of the form NAME=VALUE.
func Pairs(option string, pairs []string) (map[string]string, error) {
	parsed := make(map[string]string, len(pairs))
	for _, pair := range pairs {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			return nil, Usagef("--%s %q: want NAME=VALUE", option, pair)
		}
		if _, twice := parsed[name]; twice {
			return nil, Usagef("--%s %s is given twice", option, name)
		}
		parsed[name] = value
	}
	return parsed, nil
}

// Time is an option for a point in time. Its zero value is not set.
type Time struct{ time.Time }

// errTime says what Time takes.
var errTime = errors.New("want a date such as 2026-11-24, a time such as 2026-11-24T15:04:05Z, or how long ago, such as 90m, 36h or 7d")

// String is the time in RFC 3339; empty if it is not set.
func (t *Time) String() string {
	if t.IsZero() {
		return ""
	}
	return t.Format(time.RFC3339)
}

// Set takes a date in the local time zone, a time with its zone, or how long ago the time was.
func (t *Time) Set(text string) (err error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			t.Time = time.Now().AddDate(0, 0, -int(n))
			return nil
		}
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		t.Time = time.Now().Add(-ago)
		return nil
	}
	if t.Time, err = time.ParseInLocation(time.DateOnly, text, time.Local); err == nil {
		return nil
	}
	if t.Time, err = time.Parse(time.RFC3339, text); err != nil {
		return errTime
	}
	return nil
}

// Type is the name of the value in help texts.
func (*Time) Type() string { return "TIME" }
