package audit

// Rechain makes lines follow each other again, behind what the first says it follows.
func Rechain(lines [][]byte) {
	at, _ := parseLink(lines[0])
	for _, line := range lines {
		at = at.link(line, bodyHash(line))
	}
}
