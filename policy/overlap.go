package policy

// overlaps says whether there is a text that matches both a pattern and a form. A variable of the
// pattern may have any value. A form's wildcards stand for anything but colons.
func overlaps(p *pattern, form string) bool {
	of, _ := parsePattern(form, true, nil) // only variables can be malformed
	a, b := p.symbols(), of.symbols()
	// ends[j] says whether a from i on, and b from j on, match a common text; i counts down.
	ends := make([]bool, len(b)+1)
	for i := len(a); i >= 0; i-- {
		behind := ends // of i+1
		ends = make([]bool, len(b)+1)
		for j := len(b); j >= 0; j-- {
			ends[j] = overlapsAt(a, b, i, j, behind, ends)
		}
	}
	return ends[0]
}

// overlapsAt is overlaps for a from i on and b from j on. behind are the answers for i+1, ends
// those for i behind j.
func overlapsAt(a, b []symbol, i, j int, behind, ends []bool) bool {
	switch {
	case i == len(a) && j == len(b):
		return true
	case i < len(a) && a[i].any:
		return behind[j] || j < len(b) && ends[j+1]
	case j < len(b) && b[j].any:
		return ends[j+1] || i < len(a) && a[i].char != ':' && behind[j]
	case i == len(a) || j == len(b):
		return false
	}
	return (a[i].one || b[j].one && a[i].char != ':' || a[i].char == b[j].char) && behind[j+1]
}

// symbol is a character of a pattern, or a wildcard: one for one character, any for any number of
// them.
type symbol struct {
	char     rune
	one, any bool
}

func (p *pattern) symbols() (all []symbol) {
	for _, next := range p.parts {
		switch next.kind {
		case literal:
			for _, c := range next.text {
				all = append(all, symbol{char: c})
			}
		case anyOne:
			all = append(all, symbol{one: true})
		default:
			all = append(all, symbol{any: true})
		}
	}
	return all
}
