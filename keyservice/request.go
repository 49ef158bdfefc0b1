package keyservice

import (
	"context"
	"crypto/rand"
	"strings"
	"time"

	"github.com/google/uuid"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/authz"
	"kmsfs/keyservice/catalog"
	"kmsfs/keyservice/kms"
	"kmsfs/keyservice/store"
)

// The types of resources in the audit log.
const (
	resourceKey   = "AWS::KMS::Key"
	resourceAlias = "AWS::KMS::Alias"
)

// request is a call under way. The operation adds what is worth a record as it finds it out.
type request struct {
	ctx    context.Context
	caller kms.Caller
	// id names the call, and eventID its last record.
	id, eventID uuid.UUID
	name        string
	time        time.Time
	readOnly    bool

	// authz is the request as the decision about it sees it.
	authz authz.Request

	params, response, additional, details []audit.Field
	resources                             []audit.Resource
	serviceEvent                          bool
	// stranger says that nobody knows who calls.
	stranger bool

	// space is where the first of them lie, without a further allocation.
	space struct {
		params     [4]audit.Field
		additional [2]audit.Field
		resources  [2]audit.Resource
	}

	// written is the call's record, which needs no memory of its own here.
	written audit.Record
	// used are the keys that a cryptographic operation has used.
	used [2]*catalog.Key
	// recorded says that the call's record is written already, as that of a change is before the change takes effect.
	recorded bool
}

func (r *request) param(name, value string) { r.params = append(r.params, audit.Text(name, value)) }

func (r *request) paramNumber(name string, value int64) {
	r.params = append(r.params, audit.Number(name, value))
}

func (r *request) paramBool(name string, value bool) {
	r.params = append(r.params, audit.Bool(name, value))
}

// textParam records a text that is given and not unduly long.
func (r *request) textParam(name, value string) {
	if value != "" && len(value) <= kms.MaxIdentifier {
		r.param(name, value)
	}
}

// contextParam records an encryption context that is given and not too long.
func (r *request) contextParam(name string, context map[string]string) {
	if len(context) > 0 && kms.ContextSize(context) <= kms.MaxContext {
		r.params = append(r.params, audit.Pairs(name, context))
	}
}

func (r *request) concerns(kind, arn string) {
	r.resources = append(r.resources, audit.Resource{Type: kind, ARN: arn})
}

// newRequest takes a request from those that are over. Nothing that outlives a call may point to it.
func (c *core) newRequest(ctx context.Context, caller kms.Caller, name string) *request {
	r, ok := c.requests.Get().(*request)
	if !ok {
		r = new(request)
	}
	r.ctx, r.caller, r.id, r.name, r.time, r.readOnly = ctx, caller, caller.RequestID, name, time.Now(), true
	if r.id == uuid.Nil {
		r.id = newID()
	}
	r.params, r.additional, r.resources = r.space.params[:0], r.space.additional[:0], r.space.resources[:0]
	c.authz.Begin(&r.authz, &r.caller, r.time)
	if caller.SpokenBy != 0 {
		r.additional = append(r.additional, audit.Number("spokenByPid", int64(caller.SpokenBy)))
	}
	return r
}

func (c *core) endRequest(r *request) {
	*r = request{}
	c.requests.Put(r)
}

// newID makes a random UUID (RFC 9562, version 4).
func newID() (id uuid.UUID) {
	rand.Read(id[:])
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return id
}

// record writes the call's record, unless that is done.
func (c *core) record(r *request, refusal *kms.Error) error {
	if r.recorded {
		return nil
	}
	if err := c.log.Append(c.describe(r, refusal), !r.readOnly); err != nil {
		return kms.Errorf(kms.CodeInternal, "%v", err)
	}
	return nil
}

// describe is the call as the audit log has it.
func (c *core) describe(r *request, refusal *kms.Error) *audit.Record {
	r.eventID = newID()
	r.written = audit.Record{
		Time: r.time, RequestID: r.id, EventID: r.eventID, SharedEventID: r.caller.SharedEventID, Event: r.name, ServiceEvent: r.serviceEvent, ReadOnly: r.readOnly,
		Account: c.facts.Account, Region: c.facts.Name,
		Identity: c.identity(r),
		Request:  r.params, Response: r.response, Additional: r.additional, Details: r.details, Resources: r.resources,
	}
	record := &r.written
	if r.caller.ViaFileSystem {
		record.Identity.InvokedBy = authz.FileSystemService
	}
	if refusal != nil {
		record.ErrorCode, record.ErrorMessage = recordedCode(refusal.Code), refusal.Message
	}
	return record
}

func (c *core) identity(r *request) audit.Identity {
	if r.stranger {
		claimed := r.caller.AccessKeyID
		return audit.Identity{Unknown: true, AccessKeyID: claimed[:min(len(claimed), maxClaimedKey)], Address: r.caller.Address}
	}
	return c.users.Identity(&r.caller, r.time)
}

// maxClaimedKey bounds the access key that a stranger claims to have, in bytes.
const maxClaimedKey = 128

// recordedCode is an error's code as CloudTrail has it.
func recordedCode(code string) string {
	if code == kms.CodeAccessDenied {
		return strings.TrimSuffix(code, "Exception")
	}
	return code
}

// uses notes that the request uses the key.
func (r *request) uses(k *catalog.Key) {
	if r.used[0] == nil {
		r.used[0] = k
	} else {
		r.used[1] = k
	}
}

// noteUses remembers what a request that has succeeded has used.
func (c *core) noteUses(r *request) {
	for _, k := range r.used {
		if k != nil {
			c.usage.Note(k.ID, store.Usage{Time: millis(r.time), Operation: r.name, EventID: r.eventID, RequestID: r.id})
		}
	}
}

// given is a time as the wire has it; nil for the zero time.
func given(t time.Time) *kms.Timestamp {
	if t.IsZero() {
		return nil
	}
	return &kms.Timestamp{Time: t}
}
