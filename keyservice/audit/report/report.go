// Package report sums up an audit log: how keys were used over time, by whom and for which files,
// and what looks like an attack.
//
//   - report.go: going through records; ranking.go, findings.go: what is remembered of them
//   - chart.go, html.go, page.gohtml: the report as a page that needs nothing but itself
//   - text.go: the report as text
package report

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"kmsfs/keyservice/audit"
)

const (
	// topRanks is how many keys, principals, files and errors are named.
	topRanks = 10
	// mostListed is how many findings of a kind, changes and events are listed: the last ones.
	mostListed = 25
)

// Collector goes through a log's records, in their order.
type Collector struct {
	since, until time.Time
	// first is the time of the log's first record.
	first  time.Time
	totals tally
	// minutes has what happened in each, by its number since 1970.
	minutes map[int64]*tally

	keys, principals, files, errors *ranking

	firsts    firstUses
	refusals  *pace
	floods    *pace
	changes   last[Item]
	incidents last[Item]
	from, to  time.Time // of the records that count
}

// tally counts records by what came of them.
type tally struct {
	// Records are all; Uses those of keys that were allowed, Refused and Failed calls that were
	// not; Changes those of keys, policies and grants.
	Records, Uses, Refused, Failed, Changes int
}

func (t *tally) add(o tally) {
	t.Records += o.Records
	t.Uses += o.Uses
	t.Refused += o.Refused
	t.Failed += o.Failed
	t.Changes += o.Changes
}

// Item is a record worth a line of its own.
type Item struct {
	Time                    time.Time
	Event, By, Program, Key string
	Path, Error, Details    string
}

// New returns a collector for the records from since on, and up to until, where they are not zero.
// It has to see those before since as well, to know what is new.
func New(since, until time.Time) *Collector {
	return &Collector{
		since: since, until: until, minutes: map[int64]*tally{},
		keys: newRanking(), principals: newRanking(), files: newRanking(), errors: newRanking(),
		firsts: firstUses{}, refusals: newPace(refusalBurst), floods: newPace(useBurst),
	}
}

// uses are the operations by which a key is used. Those that begin with GenerateDataKey come
// besides.
var uses = []string{
	"Encrypt", "Decrypt", "ReEncrypt", "Sign", "Verify", "GenerateMac", "VerifyMac", "DeriveSharedSecret",
}

func isUse(event string) bool {
	return slices.Contains(uses, event) || strings.HasPrefix(event, "GenerateDataKey")
}

// failures are the codes of errors that are nobody's refusal.
var failures = []string{"KMSInternalException", "DependencyTimeoutException", "KeyUnavailableException", "ServiceUnreachable"}

// harmless are events of the service and of the file system that are no news after the fact.
var harmless = []string{
	"ServiceStarted", "ServiceStopped", "VolumeMounted", "VolumeUnmounted", "CreateKey", "RotateKey", "DeleteExpiredGrant", "AuditSegmentPruned",
}

// Add takes a record into account.
func (c *Collector) Add(e *audit.Entry) {
	if c.first.IsZero() {
		c.first = e.EventTime
	}
	by, program := e.Principal()
	key := keyOf(e)
	use := isUse(e.EventName) && e.ErrorCode == ""
	counts := !e.EventTime.Before(c.since) && (c.until.IsZero() || !e.EventTime.After(c.until))
	if use && key != "" && (counts || e.EventTime.Before(c.since)) {
		c.firsts.add(by, key, e, counts)
	}
	if !counts {
		return
	}
	if c.from.IsZero() {
		c.from = e.EventTime
	}
	if e.EventTime.After(c.to) {
		c.to = e.EventTime
	}
	path := pathOf(e)
	now := c.count(e, use)
	if now.Uses+now.Refused+now.Failed > 0 {
		c.rank(e, now, by, program, key, path)
	}
	if now.Uses > 0 {
		c.floods.add(e, by, program, path)
	}
	if now.Refused > 0 {
		c.refusals.add(e, by, program, path)
	}
	item := func() Item {
		return Item{Time: e.EventTime, Event: e.EventName, By: by, Program: program, Key: key, Path: path, Error: e.ErrorCode, Details: details(e)}
	}
	if now.Changes > 0 {
		c.changes.add(item())
	}
	if e.EventType == audit.ServiceEvent && !slices.Contains(harmless, e.EventName) {
		c.incidents.add(item())
	}
}

// count tallies a record, and returns what it is.
func (c *Collector) count(e *audit.Entry, use bool) tally {
	now := tally{Records: 1}
	switch {
	case use:
		now.Uses = 1
	case e.EventType == audit.ServiceEvent && e.ErrorCode == "", e.ErrorCode == "DryRunOperationException":
	case slices.Contains(failures, e.ErrorCode):
		now.Failed = 1
	case e.ErrorCode != "":
		now.Refused = 1
	}
	if !e.ReadOnly && e.ErrorCode == "" && e.EventType != audit.ServiceEvent {
		now.Changes = 1
	}
	minute := e.EventTime.Unix() / 60
	if c.minutes[minute] == nil {
		c.minutes[minute] = &tally{}
	}
	c.minutes[minute].add(now)
	c.totals.add(now)
	return now
}

func (c *Collector) rank(e *audit.Entry, now tally, by, program, key, path string) {
	c.principals.add(by, now, e.EventTime, program)
	if key != "" {
		alias, _ := e.RequestParameters["keyId"].(string)
		if !strings.HasPrefix(alias, "alias/") {
			alias = ""
		}
		c.keys.add(key, now, e.EventTime, alias)
	}
	if path != "" {
		c.files.add(path, now, e.EventTime, by)
	}
	if e.ErrorCode != "" {
		c.errors.add(e.ErrorCode, now, e.EventTime, e.EventName)
	}
}

// keyOf is the ARN of the key that a record is about, or what the caller named it.
func keyOf(e *audit.Entry) string {
	for _, r := range e.Resources {
		if strings.Contains(r.ARN, ":key/") {
			return r.ARN
		}
	}
	for _, name := range []string{"keyId", "sourceKeyId"} {
		if key, ok := e.RequestParameters[name].(string); ok {
			return key
		}
	}
	return ""
}

// pathOf is a file's path: as it was seen, or within its volume.
func pathOf(e *audit.Entry) string {
	if path := e.AdditionalEventData.FilePath; path != "" {
		return path
	}
	if paths := e.Paths(); len(paths) > 0 {
		return paths[0]
	}
	return ""
}

// details are the facts of a service event that fit a line.
func details(e *audit.Entry) string {
	var all []string
	for name, value := range e.ServiceEventDetails {
		if text, ok := value.(string); ok && len(text) <= 200 {
			all = append(all, name+": "+text)
		}
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// Report is what a log comes to.
type Report struct {
	// Log names the log, and Made is when the report was made.
	Log  string
	Made time.Time
	// Whole says what a verification of the log has found, and Broken that it found something
	// wrong.
	Whole  string
	Broken bool

	// From and To are what is reported on, and Began is when the log begins.
	From, To, Began time.Time
	Totals          tally
	// Counts are how many there are in all.
	KeyCount, PrincipalCount, FileCount int
	// Rough says that there were too many names for all of them to be counted exactly.
	Rough bool

	Periods []Period
	// Keys, Principals, Files and Errors are those with the most records.
	Keys, Principals, Files, Errors []Rank
	// Refusals and Floods are bursts, and FirstUses the first uses of keys by principals: new says
	// that there were records before them.
	Refusals, Floods []Spell
	FirstUses        []FirstUse
	// HasHistory says that the log goes back beyond From: without that, every first use is one.
	HasHistory bool
	// Changes are the last of keys, policies, grants and settings, and Incidents events of the
	// service that somebody should look at.
	Changes, Incidents               []Item
	ChangeCount, IncidentCount, News int
}

// Report sums up what was added.
func (c *Collector) Report() *Report {
	r := &Report{
		From: c.since, To: c.until, Began: c.first, Totals: c.totals,
		KeyCount: len(c.keys.known), PrincipalCount: len(c.principals.known), FileCount: len(c.files.known),
		Rough: c.keys.rough || c.principals.rough || c.files.rough,
		Keys:  c.keys.top(topRanks), Principals: c.principals.top(topRanks), Files: c.files.top(topRanks), Errors: c.errors.top(topRanks),
		Refusals: c.refusals.spells(), Floods: c.floods.spells(),
		HasHistory: !c.since.IsZero() && c.first.Before(c.since),
		Changes:    c.changes.newestFirst(), Incidents: c.incidents.newestFirst(), ChangeCount: c.changes.count, IncidentCount: c.incidents.count,
	}
	if r.From.IsZero() {
		r.From = c.from
	}
	if r.To.IsZero() {
		r.To = c.to
	}
	if r.From.IsZero() { // nothing at all
		r.From = r.To
	}
	r.FirstUses, r.News = c.firsts.list()
	r.Periods = periods(c.minutes, r.From, r.To)
	return r
}

// last keeps the last few of what is added.
type last[T any] struct {
	kept  []T
	count int
}

func (l *last[T]) add(t T) {
	if l.count++; len(l.kept) >= mostListed {
		l.kept = l.kept[1:]
	}
	l.kept = append(l.kept, t)
}

func (l *last[T]) newestFirst() []T {
	all := slices.Clone(l.kept)
	slices.Reverse(all)
	return all
}

// Period is a stretch of time, as long as all others.
type Period struct {
	From, To time.Time
	tally
}

// mostPeriods is how many periods a report has at most: as many as bars can be told apart.
const mostPeriods = 96

var lengths = []time.Duration{
	time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour,
	24 * time.Hour, 7 * 24 * time.Hour, 30 * 24 * time.Hour, 365 * 24 * time.Hour,
}

// periods puts minutes together.
func periods(minutes map[int64]*tally, from, to time.Time) []Period {
	if from.IsZero() || to.Before(from) {
		return nil
	}
	length := lengths[len(lengths)-1]
	for _, l := range lengths {
		if to.Sub(from) <= (mostPeriods-1)*l {
			length = l
			break
		}
	}
	begin := startOf(from, length)
	count := min(int(to.Sub(begin)/length)+1, 10*mostPeriods)
	all := make([]Period, count)
	for i := range all {
		all[i].From = begin.Add(time.Duration(i) * length)
		all[i].To = all[i].From.Add(length)
	}
	for minute, t := range minutes {
		if i := int(time.Unix(60*minute, 0).Sub(begin) / length); i >= 0 && i < count {
			all[i].add(*t)
		}
	}
	return all
}

// startOf is the begin of the period in which t lies: at full hours and days of the time zone.
func startOf(t time.Time, length time.Duration) time.Time {
	midnight := time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, t.Location())
	if length >= 24*time.Hour {
		return midnight
	}
	return midnight.Add(t.Sub(midnight) / length * length)
}

// byCount orders ranks: the most first, then by name.
func byCount(a, b Rank) int {
	return cmp.Or(cmp.Compare(b.Records, a.Records), cmp.Compare(a.Name, b.Name))
}
