package report

import (
	_ "embed" // for the page
	"html/template"
	"io"
	"strings"
	"time"

	"kmsfs/keyservice/printable"
)

//go:embed page.gohtml
var pageText string

// page escapes whatever it is given for the place where it stands. The page allows nothing to be
// loaded or run.
var page = template.Must(template.New("page").Funcs(template.FuncMap{
	"number": number,
	"text":   printable.Text,
	"time":   func(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") },
	"day":    func(t time.Time) string { return t.Local().Format("2 January 2006, 15:04") },
	"key":    shortKey,
	"list":   func(all ...any) []any { return all },
	"share":  share,
	"code":   func(code string) string { return strings.TrimSuffix(code, "Exception") },
}).Parse(pageText))

// shortKey is a key's ID of its ARN.
func shortKey(arn string) string {
	if _, id, ok := strings.Cut(arn, ":key/"); ok {
		return id
	}
	return arn
}

// share is how much of a ranking's first one that is, in percent.
func share(n int, of []Rank) int {
	if n == 0 || of[0].Records == 0 {
		return 0
	}
	return max(1, 100*n/of[0].Records)
}

// Charts are the report's.
func (r *Report) Charts() []Chart {
	length := ""
	if len(r.Periods) > 0 {
		length = "per " + span(r.Periods[0].To.Sub(r.Periods[0].From))
	}
	return []Chart{
		newChart("Uses of keys", length, 190, r.Periods, Series{"uses", "uses", func(p *Period) int { return p.Uses }}),
		newChart("Refused and failed calls", length, 130, r.Periods,
			Series{"refused", "refused", func(p *Period) int { return p.Refused }},
			Series{"failed", "failed", func(p *Period) int { return p.Failed }}),
	}
}

// span is a period's length in words.
func span(d time.Duration) string {
	switch {
	case d == time.Minute:
		return "minute"
	case d < time.Hour:
		return strings.TrimSuffix(d.String(), "m0s") + " minutes"
	case d == time.Hour:
		return "hour"
	case d < 24*time.Hour:
		return strings.TrimSuffix(d.String(), "h0m0s") + " hours"
	case d == 24*time.Hour:
		return "day"
	}
	return number(int(d/(24*time.Hour))) + " days"
}

// WriteHTML writes the report as a page.
func (r *Report) WriteHTML(w io.Writer) error { return page.Execute(w, r) }
