package report

import (
	"maps"
	"slices"
	"time"
)

// mostNames bounds the names that a ranking remembers, so that a log with files without end can be
// summed up.
const mostNames = 200_000

// Rank is a key, a principal, a file or an error, with what there is about it.
type Rank struct {
	Name string
	tally
	// Last is when it was last seen, and With what was seen with it then: an alias, a program, a
	// principal.
	Last time.Time
	With string
}

// ranking counts by names.
type ranking struct {
	known map[string]*Rank
	// rough says that some with few records were forgotten.
	rough bool
}

func newRanking() *ranking { return &ranking{known: map[string]*Rank{}} }

func (r *ranking) add(name string, t tally, at time.Time, with string) {
	rank := r.known[name]
	if rank == nil {
		if len(r.known) >= mostNames {
			r.forget()
		}
		rank = &Rank{Name: name}
		r.known[name] = rank
	}
	rank.add(t)
	if rank.Last = at; with != "" {
		rank.With = with
	}
}

// forget drops the names with the fewest records, at least half of all.
func (r *ranking) forget() {
	r.rough = true
	for least := 1; len(r.known) > mostNames/2; least *= 2 {
		maps.DeleteFunc(r.known, func(_ string, rank *Rank) bool { return rank.Records <= least })
	}
}

// top returns those with the most records.
func (r *ranking) top(n int) []Rank {
	all := make([]Rank, 0, len(r.known))
	for _, rank := range r.known {
		all = append(all, *rank)
	}
	slices.SortFunc(all, byCount)
	return all[:min(n, len(all))]
}
