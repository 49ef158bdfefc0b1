package keyservice

// ReadAuditInput asks for what there is of the audit log; or, with a file's name, for a part of that file. kmsfs's own.
type ReadAuditInput struct {
	// File is one of the names that the output without it has.
	File string `json:",omitempty"`
	// Offset is where in the file the part begins, in bytes.
	Offset int64 `json:",omitempty"`
}

// ReadAuditOutput is that.
type ReadAuditOutput struct {
	// Log names the log, and PublicKey is the audit key's public half, in DER (RFC 5280's SubjectPublicKeyInfo).
	Log       string `json:",omitempty"`
	PublicKey []byte `json:",omitempty"`
	// Files are the names of all files, with the open segment's, which is Open, the last.
	Files []string `json:",omitempty"`
	Open  string   `json:",omitempty"`
	// LastSequence is the number of the last record that was written, and LastHash its line's SHA-256.
	LastSequence uint64 `json:",omitempty"`
	LastHash     []byte `json:",omitempty"`
	// Content is the part of the file: empty behind its end.
	Content []byte `json:",omitempty"`
}
