package audit

import (
	"cmp"
	"encoding/hex"
	"maps"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
)

// Record says what was asked of the service, by whom, and what came of it. It becomes one line of
// JSON in CloudTrail's schema. No field may hold a plaintext, a key or a ciphertext.
type Record struct {
	Time time.Time
	// RequestID names the call; records of the same call share it.
	RequestID uuid.UUID
	// EventID names the record.
	EventID uuid.UUID
	// SharedEventID is what the records of one file operation have in common; zero for none.
	SharedEventID uuid.UUID
	// Event is the operation's name, or the service event's.
	Event string
	// ServiceEvent marks what the service, or the file system, found or did of itself.
	ServiceEvent bool
	ReadOnly     bool
	Identity     Identity
	// Account and Region are those of the home: twelve digits, and its name.
	Account, Region string
	// ErrorCode is empty for what was done.
	ErrorCode, ErrorMessage string
	// Request and Response are the parameters worth recording; null if there are none. Details are
	// a service event's.
	Request, Response, Details []Field
	// Additional are facts that CloudTrail's schema has no place for.
	Additional []Field
	// Resources are the ARNs of keys and aliases concerned.
	Resources []Resource
}

// Identity is the caller.
type Identity struct {
	// Unknown says that nobody knows who calls: there are the address and the access key that is
	// claimed, at most.
	Unknown  bool
	UID, GID uint32
	// UserName is what the system calls the UID, and ARN the principal's.
	UserName, ARN string
	// PID is the process's ID, 0 if unknown; Executable its program's path, empty if unknown.
	PID        int32
	Executable string
	// Operation is the file operation behind the call, Path its file's path as the process behind
	// it sees it, and Behind that process if it isn't the caller. They may be empty.
	Operation, Path string
	Behind          *Process
	// AccessKeyID is the access key that the call was signed with, and Address the IP address that
	// it came from; empty for processes of this machine.
	AccessKeyID, Address string
	// InvokedBy names the service that forwarded the call for the caller, or is empty.
	InvokedBy string
}

// Process is a process for which another one calls.
type Process struct {
	UID, GID   uint32
	UserName   string
	PID        int32
	Executable string
}

// Resource is something that a call concerns.
type Resource struct {
	// Type is CloudTrail's, such as "AWS::KMS::Key".
	Type, ARN string
}

// Field is a named value.
type Field struct {
	name   string
	kind   fieldKind
	text   string
	number int64 // or, of a bool, 1 for true
	pairs  map[string]string
}

type fieldKind uint8

const (
	textField fieldKind = iota
	numberField
	boolField
	pairsField
)

// Text is a field with a text.
func Text(name, value string) Field { return Field{name: name, text: value} }

// Number is a field with a number.
func Number(name string, value int64) Field {
	return Field{name: name, kind: numberField, number: value}
}

// Bool is a field that is true or false.
func Bool(name string, value bool) Field {
	f := Field{name: name, kind: boolField}
	if value {
		f.number = 1
	}
	return f
}

// Pairs is a field with names and values, such as an encryption context, which must not change
// before the record is written.
func Pairs(name string, value map[string]string) Field {
	return Field{name: name, kind: pairsField, pairs: value}
}

// timeLayout is how times are written, in UTC.
const timeLayout = "2006-01-02T15:04:05.000000Z"

// appendTo appends the record's line, with an empty link.
func (r *Record) appendTo(b []byte) []byte {
	b = append(b, `{"eventVersion":"1.11","userIdentity":`...)
	b = r.appendIdentity(b)
	b = append(b, `,"eventTime":"`...)
	b = r.Time.UTC().AppendFormat(b, timeLayout)
	b = append(b, `","eventSource":"kms.kmsfs"`...)
	b = appendMember(b, "eventName", r.Event)
	b = appendMember(b, "awsRegion", r.Region)
	b = appendMember(b, "sourceIPAddress", r.Identity.source(cmp.Or(r.Identity.Address, "127.0.0.1")))
	b = appendMember(b, "userAgent", r.Identity.source("kmsfs"))
	if r.ErrorCode != "" || r.ErrorMessage != "" {
		b = appendMember(b, "errorCode", r.ErrorCode)
		b = appendMember(b, "errorMessage", r.ErrorMessage)
	}
	b = appendObject(b, "requestParameters", r.Request)
	b = appendObject(b, "responseElements", r.Response)
	b = r.appendAdditional(b)
	b = append(b, `,"requestID":"`...)
	b = appendUUID(b, r.RequestID)
	b = append(b, `","eventID":"`...)
	b = appendUUID(b, r.EventID)
	if r.SharedEventID != uuid.Nil {
		b = append(b, `","sharedEventID":"`...)
		b = appendUUID(b, r.SharedEventID)
	}
	b = append(b, `","readOnly":`...)
	b = strconv.AppendBool(b, r.ReadOnly)
	b = r.appendResources(b)
	if r.ServiceEvent {
		b = append(b, `,"eventType":"`+ServiceEvent+`"`...)
		b = appendObject(b, "serviceEventDetails", r.Details)
	} else {
		b = append(b, `,"eventType":"AwsApiCall"`...)
	}
	b = append(b, `,"managementEvent":true`...)
	b = appendMember(b, "recipientAccountId", r.Account)
	b = append(b, `,"eventCategory":"Management"`...)
	return append(b, emptyLink...)
}

// source is where the request came from, in the form that CloudTrail has for requests of services.
func (i *Identity) source(direct string) string {
	if i.InvokedBy != "" {
		return i.InvokedBy
	}
	return direct
}

func (r *Record) appendIdentity(b []byte) []byte {
	if r.Identity.Unknown {
		b = append(b, `{"type":"Unknown","principalId":""`...)
		if r.Identity.AccessKeyID != "" {
			b = appendMember(b, "accessKeyId", r.Identity.AccessKeyID)
		}
		return append(b, '}')
	}
	b = append(b, `{"type":"IAMUser","principalId":"uid:`...)
	b = strconv.AppendUint(b, uint64(r.Identity.UID), 10)
	b = append(b, '"')
	b = appendMember(b, "arn", r.Identity.ARN)
	b = appendMember(b, "accountId", r.Account)
	b = appendMember(b, "userName", r.Identity.UserName)
	if r.Identity.AccessKeyID != "" {
		b = appendMember(b, "accessKeyId", r.Identity.AccessKeyID)
	}
	if r.Identity.InvokedBy != "" {
		b = appendMember(b, "invokedBy", r.Identity.InvokedBy)
	}
	return append(b, '}')
}

func (r *Record) appendAdditional(b []byte) []byte {
	b = append(b, `,"additionalEventData":{`...)
	if r.Identity.Unknown {
		b = append(b, `"authenticated":false`...)
	} else {
		b = append(b, `"uid":`...)
		b = strconv.AppendUint(b, uint64(r.Identity.UID), 10)
		b = append(b, `,"gid":`...)
		b = strconv.AppendUint(b, uint64(r.Identity.GID), 10)
	}
	if r.Identity.PID != 0 {
		b = append(b, `,"pid":`...)
		b = strconv.AppendInt(b, int64(r.Identity.PID), 10)
	}
	if r.Identity.Executable != "" {
		b = appendMember(b, "executable", r.Identity.Executable)
	}
	if r.Identity.Operation != "" {
		b = appendMember(b, "fileOperation", r.Identity.Operation)
	}
	if r.Identity.Path != "" {
		b = appendMember(b, "filePath", r.Identity.Path)
	}
	if p := r.Identity.Behind; p != nil {
		b = p.appendTo(append(b, `,"behind":`...))
	}
	for _, f := range r.Additional {
		b = append(b, ',')
		b = appendField(b, f)
	}
	return append(b, '}')
}

func (p *Process) appendTo(b []byte) []byte {
	b = append(b, `{"uid":`...)
	b = strconv.AppendUint(b, uint64(p.UID), 10)
	b = append(b, `,"gid":`...)
	b = strconv.AppendUint(b, uint64(p.GID), 10)
	b = appendMember(b, "userName", p.UserName)
	if p.PID != 0 {
		b = append(b, `,"pid":`...)
		b = strconv.AppendInt(b, int64(p.PID), 10)
	}
	if p.Executable != "" {
		b = appendMember(b, "executable", p.Executable)
	}
	return append(b, '}')
}

func (r *Record) appendResources(b []byte) []byte {
	if len(r.Resources) == 0 {
		return b
	}
	b = append(b, `,"resources":[`...)
	for i, resource := range r.Resources {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"accountId":`...)
		b = appendString(b, r.Account)
		b = appendMember(b, "type", resource.Type)
		b = appendMember(b, "ARN", resource.ARN)
		b = append(b, '}')
	}
	return append(b, ']')
}

// appendMember appends a string member that is not the object's first.
func appendMember(b []byte, name, value string) []byte {
	b = append(b, ',')
	b = appendString(b, name)
	b = append(b, ':')
	return appendString(b, value)
}

// appendObject appends an object member that is not the first; null if it has no fields.
func appendObject(b []byte, name string, fields []Field) []byte {
	b = append(b, ',')
	b = appendString(b, name)
	if len(fields) == 0 {
		return append(b, ":null"...)
	}
	b = append(b, ":{"...)
	for i, f := range fields {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendField(b, f)
	}
	return append(b, '}')
}

func appendField(b []byte, f Field) []byte {
	b = appendString(b, f.name)
	b = append(b, ':')
	switch f.kind {
	case numberField:
		return strconv.AppendInt(b, f.number, 10)
	case boolField:
		return strconv.AppendBool(b, f.number == 1)
	case pairsField:
		return appendMap(b, f.pairs)
	}
	return appendString(b, f.text)
}

func appendMap(b []byte, m map[string]string) []byte {
	b = append(b, '{')
	var few [8]string // encryption contexts have fewer, and need no memory
	names := slices.AppendSeq(few[:0], maps.Keys(m))
	slices.Sort(names)
	for i, name := range names {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, name)
		b = append(b, ':')
		b = appendString(b, m[name])
	}
	return append(b, '}')
}

const hexDigits = "0123456789abcdef"

// appendString appends a JSON string. Bytes that are no UTF-8 become U+FFFD, and what a terminal or
// a line-wise reader could take for a command is escaped.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for len(s) > 0 {
		n := plainPrefix(s)
		b = append(b, s[:n]...)
		if s = s[n:]; s == "" {
			break
		}
		r, size := utf8.DecodeRuneInString(s)
		b = appendRune(b, r)
		s = s[size:]
	}
	return append(b, '"')
}

// plainPrefix is the length of what s begins with that needs no thought.
func plainPrefix(s string) int {
	const (
		ones = 0x0101010101010101
		high = 0x8080808080808080
	)
	i := 0
	for ; i+8 <= len(s); i += 8 { // eight bytes at a time
		w := s[i : i+8]
		x := uint64(w[0]) | uint64(w[1])<<8 | uint64(w[2])<<16 | uint64(w[3])<<24 |
			uint64(w[4])<<32 | uint64(w[5])<<40 | uint64(w[6])<<48 | uint64(w[7])<<56
		quote, backslash := x^ones*'"', x^ones*'\\'
		// A byte that is not plain has its highest bit set in one of these: it has itself, or a
		// subtraction borrows from it, or 0x7f+1 carries into it. Borrows and carries reach other
		// bytes only from bytes that are not plain.
		if (x|(x-ones*' ')|(quote-ones)|(backslash-ones)|(x+ones))&high != 0 {
			break
		}
	}
	for i < len(s) && isPlain(s[i]) {
		i++
	}
	return i
}

func isPlain(c byte) bool { return c >= ' ' && c != '"' && c != '\\' && c < 0x7f }

func appendRune(b []byte, r rune) []byte {
	switch {
	case r == '"' || r == '\\':
		return append(b, '\\', byte(r))
	case r < 0xa0 || r == '\u2028' || r == '\u2029': // controls, old and new, and line separators
		return append(b, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
	}
	return utf8.AppendRune(b, r)
}

func appendUUID(b []byte, id uuid.UUID) []byte {
	b = hex.AppendEncode(b, id[:4])
	for _, part := range [][]byte{id[4:6], id[6:8], id[8:10], id[10:]} {
		b = append(b, '-')
		b = hex.AppendEncode(b, part)
	}
	return b
}

// ContextDetail is the name of the detail that has an event's encryption context.
const ContextDetail = "encryptionContext"

// EventDetails returns an event's encryption context and its other details, in the order of their
// names, as a record's details.
func EventDetails(encryptionContext, details map[string]string) []Field {
	var fields []Field
	if len(encryptionContext) > 0 {
		fields = append(fields, Pairs(ContextDetail, encryptionContext))
	}
	for _, name := range slices.Sorted(maps.Keys(details)) {
		fields = append(fields, Text(name, details[name]))
	}
	return fields
}
