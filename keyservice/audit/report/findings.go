package report

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"kmsfs/keyservice/audit"
)

const (
	// refusalBurst is how many refusals of one principal's program in a minute are worth a word,
	// and useBurst how many uses of keys: more than people do by hand.
	refusalBurst = 10
	useBurst     = 300
)

// Spell is a time in which a principal's program did something more often than usual.
type Spell struct {
	By, Program string
	From, To    time.Time
	Count       int
	// Errors are the codes, and Path the last of the files.
	Errors, Path string

	codes map[string]bool
}

// pace finds spells: times in which, at any moment, limit or more records are at most a minute old.
type pace struct {
	limit int
	doers map[doer]*recent
	found []*Spell
}

type doer struct{ by, program string }

// recent is what is known of somebody's last records.
type recent struct {
	// times are those of the last ones, limit at most.
	times []time.Time
	// spell is the one that goes on; nil if there is none.
	spell *Spell
}

func newPace(limit int) *pace { return &pace{limit: limit, doers: map[doer]*recent{}} }

func (p *pace) add(e *audit.Entry, by, program, path string) {
	who := doer{by, program}
	r := p.doers[who]
	if r == nil {
		if len(p.doers) >= mostNames { // nobody has so many programs by chance
			return
		}
		r = &recent{}
		p.doers[who] = r
	}
	if r.times = append(r.times, e.EventTime); len(r.times) > p.limit {
		r.times = r.times[1:]
	}
	if len(r.times) < p.limit || e.EventTime.Sub(r.times[0]) > time.Minute {
		r.spell = nil
		return
	}
	if r.spell == nil {
		r.spell = &Spell{By: by, Program: program, From: r.times[0], Count: p.limit - 1, codes: map[string]bool{}}
		p.found = append(p.found, r.spell)
	}
	s := r.spell
	s.To = e.EventTime
	s.Count++
	if e.ErrorCode != "" && len(s.codes) < 5 {
		s.codes[e.ErrorCode] = true
	}
	if path != "" {
		s.Path = path
	}
}

// spells are the largest.
func (p *pace) spells() []Spell {
	all := make([]Spell, 0, len(p.found))
	for _, s := range p.found {
		s.Errors = strings.Join(slices.Sorted(maps.Keys(s.codes)), ", ")
		all = append(all, *s)
	}
	slices.SortFunc(all, func(a, b Spell) int { return cmp.Or(cmp.Compare(b.Count, a.Count), a.From.Compare(b.From)) })
	return all[:min(len(all), mostListed)]
}

// FirstUse is when a principal used a key for the first time.
type FirstUse struct {
	By, Key       string
	Time          time.Time
	Program, Path string
}

// firstUses are those that are new, and nil for the others.
type firstUses map[[2]string]*FirstUse

func (f firstUses) add(by, key string, e *audit.Entry, counts bool) {
	pair := [2]string{by, key}
	if _, known := f[pair]; known || len(f) >= mostNames {
		return
	}
	if !counts {
		f[pair] = nil
		return
	}
	_, program := e.Principal()
	f[pair] = &FirstUse{By: by, Key: key, Time: e.EventTime, Program: program, Path: pathOf(e)}
}

// list returns the last of them, and how many there are.
func (f firstUses) list() (shown []FirstUse, count int) {
	for _, use := range f {
		if use != nil {
			shown = append(shown, *use)
		}
	}
	slices.SortFunc(shown, func(a, b FirstUse) int { return cmp.Or(b.Time.Compare(a.Time), cmp.Compare(a.By, b.By)) })
	return shown[:min(len(shown), mostListed)], len(shown)
}
