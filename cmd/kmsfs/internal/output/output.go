// Package output is what the commands print. Text from volumes and from callers of the key service
// may have in it what a terminal takes for commands: all of it is printed by this package, which
// escapes it.
//
//   - output.go: tables, facts, JSON, numbers and times
//   - progress.go: progress bars
package output

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/printable"
)

// Line prints texts on a line, with blanks between.
func Line(texts ...string) error {
	_, err := fmt.Println(strings.Join(each(texts), " "))
	return err
}

// each makes each of the texts printable.
func each(texts []string) []string {
	clean := make([]string, len(texts))
	for i, text := range texts {
		clean[i] = printable.Text(text)
	}
	return clean
}

// JSON prints what an operation returned.
func JSON(out any) error {
	text, err := json.MarshalIndent(out, "", "    ")
	if err != nil {
		return err
	}
	return Document(string(text))
}

// JSONLine prints an object on a line.
func JSONLine(out any) error {
	text, err := json.Marshal(out)
	if err != nil {
		return err
	}
	return Document(string(text))
}

// Document prints a JSON document that comes from elsewhere, such as a policy or an audit record.
func Document(text string) error {
	_, err := os.Stdout.Write(append(printable.JSON([]byte(text)), '\n'))
	return err
}

// Table prints rows in columns. The first row has the heads.
func Table(rows [][]string) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	for _, row := range rows {
		if _, err := fmt.Fprintln(w, strings.Join(each(row), "\t")); err != nil {
			return err
		}
	}
	return w.Flush()
}

// Facts prints pairs of names and values, without those that have no value.
func Facts(pairs ...string) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] == "" {
			continue
		}
		if _, err := fmt.Fprintf(w, "%s:\t%s\n", pairs[i], printable.Text(pairs[i+1])); err != nil {
			return err
		}
	}
	return w.Flush()
}

// Time is a time for people; empty for none.
func Time(t *kms.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.Local().Format(time.DateTime)
}

// Bytes is a number of bytes for people.
func Bytes(n int64) string {
	const units = "kMGTPE"
	size, unit := float64(n), -1
	for size >= 1000 && unit < len(units)-1 {
		size, unit = size/1000, unit+1
	}
	if unit < 0 {
		return fmt.Sprintf("%d B", n)
	}
	return fmt.Sprintf("%.1f %cB", size, units[unit])
}

// YesNo is a truth value for people.
func YesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}
