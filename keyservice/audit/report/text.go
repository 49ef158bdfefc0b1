package report

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"kmsfs/keyservice/printable"
)

// heights are what small charts are made of.
var heights = []rune(" ▁▂▃▄▅▆▇█")

// WriteText writes the report for a terminal.
func (r *Report) WriteText(w io.Writer) error {
	t := &text{w: w}
	t.print("Audit report, %s to %s\n", stamp(r.From), stamp(r.To))
	if r.Whole != "" {
		t.print("%s\n", printable.Text(r.Whole))
	}
	t.print("\n%s uses of keys, %s calls refused, %s failed; %s principals, %s keys, %s files; %s records\n\n",
		plain(r.Totals.Uses), plain(r.Totals.Refused), plain(r.Totals.Failed), plain(r.PrincipalCount), plain(r.KeyCount), plain(r.FileCount), plain(r.Totals.Records))
	if len(r.Periods) > 0 {
		t.print("Each column: %s\n", strings.TrimPrefix(span(r.Periods[0].To.Sub(r.Periods[0].From)), "per "))
		t.bars("Uses", r.Periods, func(p *Period) int { return p.Uses })
		t.bars("Refused", r.Periods, func(p *Period) int { return p.Refused })
		t.bars("Failed", r.Periods, func(p *Period) int { return p.Failed })
	}
	t.table("Bursts of refusals", "FROM\tTO\tPRINCIPAL\tPROGRAM\tREFUSALS\tERRORS\tTHE LAST OF THE FILES", len(r.Refusals), func(i int) []string {
		s := &r.Refusals[i]
		return []string{stamp(s.From), stamp(s.To), s.By, s.Program, plain(s.Count), s.Errors, s.Path}
	})
	t.table("Many files at once", "FROM\tTO\tPRINCIPAL\tPROGRAM\tUSES\tTHE LAST OF THE FILES", len(r.Floods), func(i int) []string {
		s := &r.Floods[i]
		return []string{stamp(s.From), stamp(s.To), s.By, s.Program, plain(s.Count), s.Path}
	})
	title := "First uses of a key by a principal"
	if !r.HasHistory {
		title += " (the log has nothing before this time)"
	}
	t.table(title, "TIME\tPRINCIPAL\tPROGRAM\tKEY\tFILE", len(r.FirstUses), func(i int) []string {
		f := &r.FirstUses[i]
		return []string{stamp(f.Time), f.By, f.Program, shortKey(f.Key), f.Path}
	})
	t.table("Events to be looked at", "TIME\tEVENT\tPRINCIPAL\tFILE\tDETAILS", len(r.Incidents), func(i int) []string {
		e := &r.Incidents[i]
		return []string{stamp(e.Time), e.Event, e.By, e.Path, e.Details}
	})
	t.ranks("Top keys", "KEY\tALIAS", r.Keys, shortKey)
	t.ranks("Top principals", "PRINCIPAL\tPROGRAM", r.Principals, nil)
	t.ranks("Top files", "FILE\tLAST USED BY", r.Files, nil)
	t.ranks("Errors", "ERROR\tOPERATION", r.Errors, nil)
	t.table("Changes of keys, policies, grants and settings", "TIME\tOPERATION\tPRINCIPAL\tPROGRAM\tKEY", len(r.Changes), func(i int) []string {
		c := &r.Changes[i]
		return []string{stamp(c.Time), c.Event, c.By, c.Program, shortKey(c.Key)}
	})
	return t.err
}

// text is written until something fails.
type text struct {
	w   io.Writer
	err error
}

func (t *text) print(format string, args ...any) {
	if t.err == nil {
		_, t.err = fmt.Fprintf(t.w, format, args...)
	}
}

func (t *text) bars(name string, periods []Period, of func(*Period) int) {
	most := 0
	for i := range periods {
		most = max(most, of(&periods[i]))
	}
	var line strings.Builder
	for i := range periods {
		height := 0
		if n := of(&periods[i]); n > 0 {
			height = max(1, n*(len(heights)-1)/most)
		}
		line.WriteRune(heights[height])
	}
	t.print("  %-8s|%s| at most %s\n", name, line.String(), plain(most))
}

// table prints rows, if there are any.
func (t *text) table(title, heads string, rows int, row func(i int) []string) {
	if rows == 0 || t.err != nil {
		return
	}
	t.print("\n%s\n", title)
	w := tabwriter.NewWriter(t.w, 0, 8, 2, ' ', 0)
	_, err := fmt.Fprintf(w, "  %s\n", heads)
	for i := range rows {
		cells := row(i)
		for j, cell := range cells {
			cells[j] = printable.Text(cell)
		}
		if err == nil {
			_, err = fmt.Fprintf(w, "  %s\n", strings.Join(cells, "\t"))
		}
	}
	if t.err = err; err == nil {
		t.err = w.Flush()
	}
}

func (t *text) ranks(title, heads string, ranks []Rank, name func(string) string) {
	t.table(title, heads+"\tUSES\tREFUSED\tLAST", len(ranks), func(i int) []string {
		r := &ranks[i]
		shown := r.Name
		if name != nil {
			shown = name(shown)
		}
		return []string{shown, r.With, plain(r.Uses), plain(r.Refused), stamp(r.Last)}
	})
}

func plain(n int) string { return fmt.Sprint(n) }

func stamp(t time.Time) string { return t.Local().Format(time.DateTime) }
