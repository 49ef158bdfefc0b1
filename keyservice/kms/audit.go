package kms

// The operations on the audit log, which are kmsfs's own.
var (
	// PutAuditSettings changes the settings of the audit log.
	PutAuditSettings = newChange[AuditSettings, PutAuditSettingsOutput]("PutAuditSettings", "kmsfs:PutAuditSettings")
	// GetAuditSettings returns the settings of the audit log.
	GetAuditSettings = newQuery[GetAuditSettingsInput, AuditSettings]("GetAuditSettings", "kmsfs:GetAuditSettings")
	// ReadAudit reads the audit log.
	ReadAudit = newQuery[ReadAuditInput, ReadAuditOutput]("ReadAudit", "kmsfs:ReadAudit")
)

// AuditSettings say when segments of the audit log are closed and removed, and when records are on disk. kmsfs's own.
type AuditSettings struct {
	// SegmentKiB and SegmentHours are what a segment is closed at, whichever comes first: 64 to 4194304, and 1 to 744.
	SegmentKiB   int32
	SegmentHours int32
	// RetentionDays is how long closed segments are kept, at least 30; 0: for ever.
	RetentionDays int32
	// SyncAlways puts every record on disk before its call is answered, and not only those of changes.
	SyncAlways bool
	// StandInDirectory is where records go while the log can't be written, until it can: an absolute path, on another disk; empty for none. Only the
	// home's owner sets it, on this machine, and what follows.
	StandInDirectory string `json:",omitempty"`
	// ExportDirectory is an absolute path that the digest of each closed segment is copied to; empty for
	// none.
	ExportDirectory string `json:",omitempty"`
	// SendTo is the absolute path of a syslog socket that records are sent to as they are written, such
	// as /dev/log; empty for none.
	SendTo string `json:",omitempty"`
}

// PutAuditSettingsOutput is empty.
type PutAuditSettingsOutput struct{}

// GetAuditSettingsInput is empty. kmsfs's own.
type GetAuditSettingsInput struct{}

// ReadAuditInput asks for what there is of the audit log; or, with a file's name, for a part of that file. kmsfs's own.
type ReadAuditInput struct {
	// File is one of the names that the output without it has.
	File string `json:",omitempty"`
	// Offset is where in the file the part begins, in bytes.
	Offset int64 `json:",omitempty"`
	// Segment, for the open segment, is what an earlier answer had: if that one has been closed meanwhile, the answer is NotFoundException.
	Segment uint64 `json:",omitempty"`
	// Session is the last that an output had: with it, the call goes on with a reading that is recorded. It ends after an hour.
	Session []byte `json:",omitempty"`
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
	// StandIn, if not empty, is the path of a file that has the end of the open segment, from StandInBegin on.
	StandIn      string `json:",omitempty"`
	StandInBegin int64  `json:",omitempty"`
	// Content is the part of the file: empty behind its end.
	Content []byte `json:",omitempty"`
	// Segment, for the open segment, is the number of its first record; 0 as long as it has none.
	Segment uint64 `json:",omitempty"`
	// Session is for the next calls; empty if that of the call holds on.
	Session []byte `json:",omitempty"`
}
