package main

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/csv"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"kmsfs/keyservice/audit"
	"kmsfs/keyservice/kms"
	"kmsfs/policy"
)

// auditDir and openSegment are where a home has its audit log.
const (
	auditDir    = "audit"
	openSegment = "current.jsonl"
)

func auditCommand() command {
	return command{
		name: "audit", arguments: "COMMAND", summary: "verify and search the audit log",
		details: `
Commands for the key service's audit log: who used which key for which file. Each record is chained to the one before it; closed
segments are signed; and the store knows where the log ends. Reading it takes the permission kmsfs:ReadAudit, and is recorded.`,
		commands: []command{auditVerifyCommand(), auditQueryCommand(), auditTailCommand(), auditReportCommand(), auditKeyCommand(), auditSettingsCommand()},
	}
}

// auditLog is an audit log to be read.
type auditLog struct {
	files fs.FS
	open  string
	// about is what the service says of it; nil of a copy.
	about *kms.ReadAuditOutput
}

// readAuditLog asks the service for the audit log. Its files are read directly, where their mode lets the caller, and else through the service.
func readAuditLog(s *session) (auditLog, error) {
	about, err := kms.ReadAudit.Call(s.ctx, s, s.caller, &kms.ReadAuditInput{})
	if err != nil {
		return auditLog{}, err
	}
	log := auditLog{files: &servedFiles{s: s, reading: about.Session}, open: about.Open, about: about}
	dir := filepath.Join(s.dir, auditDir)
	if f, err := os.Open(filepath.Join(dir, about.Open)); err == nil {
		f.Close()
		log.files = os.DirFS(dir)
		if about.StandIn != "" {
			log.files = audit.Continue(log.files, about.Open, audit.Continuation{Path: about.StandIn, Begin: about.StandInBegin})
		}
	}
	return log, nil
}

// publicKey reads an Ed25519 public key in PEM or DER.
func publicKey(text []byte) (ed25519.PublicKey, error) {
	if block, _ := pem.Decode(text); block != nil {
		text = block.Bytes
	}
	parsed, err := x509.ParsePKIXPublicKey(text)
	if err != nil {
		return nil, fmt.Errorf("not a public key: %w", err)
	}
	key, ok := parsed.(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("not an Ed25519 public key")
	}
	return key, nil
}

func auditVerifyCommand() command {
	c := command{
		name: "verify", arguments: "[OPTIONS]", summary: "prove that nobody has touched the audit log",
		details: `
Goes through the audit log and names the first record that was edited, dropped, inserted, moved or cut off, if there is one: the
exit status is 1 then. With --directory and --public-key it verifies a copy, and needs no home: all but records that were cut off
behind the last signed segment is found out so.

Examples:
  kmsfs audit verify
  kmsfs audit verify --from 2026-11-01 --to 2026-11-30
  kmsfs audit verify --directory /mnt/copy/audit --public-key audit.pem`,
	}
	c.prepare = func(flags *pflag.FlagSet) func([]string) error {
		var o serviceOptions
		var from, to timeFlag
		flags.Var(&from, "from", "read only segments with records from a `TIME` on: a date, RFC 3339, or how long ago: 36h, 7d")
		flags.Var(&to, "to", "read only segments with records up to a `TIME`")
		keyFile := flags.String("public-key", "", "verify against the public key in a `FILE`, and not the home's")
		dir := flags.String("directory", "", "verify a copy of the log in a `DIRECTORY`")
		digests := flags.String("digests", "", "compare with the digests that were exported to a `DIRECTORY`")
		o.declare(flags)
		return func(args []string) error {
			if len(args) != 0 {
				return usagef("audit verify", "want no arguments, got %d", len(args))
			}
			v := audit.VerifyOptions{Open: openSegment, From: from.time, To: to.time}
			if *digests != "" {
				v.Exported = os.DirFS(*digests)
			}
			if *keyFile != "" {
				text, err := os.ReadFile(*keyFile)
				if err != nil {
					return pathError(err)
				}
				if v.Key, err = publicKey(text); err != nil {
					return fmt.Errorf("%s: %w", *keyFile, err)
				}
			}
			if *dir != "" {
				if v.Key == nil {
					return usagef("audit verify", "--directory wants --public-key")
				}
				return verify(os.DirFS(*dir), v)
			}
			return o.call(func(s *session) error { return verifyHome(s, v) })
		}
	}
	return c
}

// verifyHome verifies the log of a home against what that knows of it.
func verifyHome(s *session, o audit.VerifyOptions) error {
	log, err := readAuditLog(s)
	if err != nil {
		return err
	}
	if o, err = log.against(o); err != nil {
		return err
	}
	return verify(log.files, o)
}

// against completes what a home's log is verified against.
func (l *auditLog) against(o audit.VerifyOptions) (audit.VerifyOptions, error) {
	if o.Key == nil {
		var err error
		if o.Key, err = publicKey(l.about.PublicKey); err != nil {
			return o, err
		}
	}
	o.Open = l.open
	o.Head = &audit.Head{Position: audit.Position{Sequence: l.about.LastSequence}}
	copy(o.Head.Hash[:], l.about.LastHash)
	return o, nil
}

func verify(dir fs.FS, o audit.VerifyOptions) error {
	report, err := audit.Verify(dir, o)
	if err != nil {
		return fmt.Errorf("the audit log is not what was written: %w", err)
	}
	fmt.Println(describe(report))
	return nil
}

// describe says what a verification has found.
func describe(r audit.Report) string {
	text := fmt.Sprintf("%d records are whole", r.Records-r.Pruned-r.Skipped)
	if r.Segments > 0 {
		text += fmt.Sprintf("; %d of all are signed for, in %d segments", r.Signed, r.Segments)
	}
	if r.Exported > 0 {
		text += fmt.Sprintf("; %d segments are as their exported digests say", r.Exported)
	}
	if r.Pruned > 0 {
		text += fmt.Sprintf("; %d were removed for their age, as is signed", r.Pruned)
	}
	if r.Skipped > 0 {
		text += fmt.Sprintf("; %d lie in other times", r.Skipped)
	}
	return text
}

func auditKeyCommand() command {
	return serviceCommand(command{
		name: "key", arguments: "[OPTIONS]", summary: "print the public key that the audit log is signed with",
		details: `
Prints the audit key's public half in PEM. Keep it elsewhere: with it and a copy of the log, anybody can verify that.

Example:
  kmsfs audit key >audit.pem`,
	}, func(*serviceOptions, *pflag.FlagSet) func(*session, []string) error {
		return func(s *session, _ []string) error {
			about, err := kms.ReadAudit.Call(s.ctx, s, s.caller, &kms.ReadAuditInput{})
			if err != nil {
				return err
			}
			return pem.Encode(os.Stdout, &pem.Block{Type: "PUBLIC KEY", Bytes: about.PublicKey})
		}
	})
}

func auditSettingsCommand() command {
	return serviceCommand(command{
		name: "settings", arguments: "[OPTIONS]", summary: "show or change the settings of the audit log",
		details: `
Prints the settings; with options it changes those first. A segment is closed, compressed and signed for at its size or age. Closed
segments are kept for ever, or as many days as told, at least 30; what remains is a signed statement that they were removed.

Examples:
  kmsfs audit settings
  kmsfs audit settings --retention-days 365
  kmsfs audit settings --sync always
  kmsfs audit settings --stand-in /mnt/other-disk/audit
  kmsfs audit settings --send-to otlp:https://collector.example.com:4318
  kmsfs audit settings --export-directory /mnt/worm/digests
  kmsfs audit settings --export-command 'ssh audit@elsewhere "cat >digests/$KMSFS_DIGEST"'`,
	}, func(o *serviceOptions, flags *pflag.FlagSet) func(*session, []string) error {
		o.declareJSON(flags)
		var given kms.AuditSettings
		flags.Int32Var(&given.SegmentKiB, "segment-kib", 0, "close a segment at a `SIZE` in KiB, 64 to 4194304")
		flags.Int32Var(&given.SegmentHours, "segment-hours", 0, "close a segment when it is `HOURS` old, 1 to 744")
		flags.Int32Var(&given.RetentionDays, "retention-days", 0, "keep closed segments for `DAYS`; 0 for ever")
		flags.StringVar(&given.StandInDirectory, "stand-in", "", "write records to a `DIRECTORY` on another disk while the log can't be written")
		flags.StringVar(&given.ExportDirectory, "export-directory", "", "copy the signed digest of each closed segment to a `DIRECTORY`")
		flags.StringVar(&given.ExportCommand, "export-command", "", "run a shell `COMMAND` with each digest on its standard input")
		flags.StringVar(&given.SendTo, "send-to", "", "send records as they are written to a `PLACE`: journald, syslog, or otlp:URL")
		sync := flags.String("sync", "", "put records on disk before calls are answered: `WHEN` is always, or changes for those of changes only")
		return func(s *session, _ []string) error {
			settings, err := kms.GetAuditSettings.Call(s.ctx, s, s.caller, &kms.GetAuditSettingsInput{})
			if err != nil {
				return err
			}
			changed := false
			flags.Visit(func(f *pflag.Flag) {
				switch f.Name {
				case "segment-kib":
					settings.SegmentKiB, changed = given.SegmentKiB, true
				case "segment-hours":
					settings.SegmentHours, changed = given.SegmentHours, true
				case "retention-days":
					settings.RetentionDays, changed = given.RetentionDays, true
				case "stand-in":
					settings.StandInDirectory, changed = given.StandInDirectory, true
				case "export-directory":
					settings.ExportDirectory, changed = given.ExportDirectory, true
				case "export-command":
					settings.ExportCommand, changed = given.ExportCommand, true
				case "send-to":
					settings.SendTo, changed = given.SendTo, true
				case "sync":
					settings.SyncAlways, changed = *sync == "always", true
				}
			})
			if *sync != "" && *sync != "always" && *sync != "changes" {
				return usagef("audit settings", "--sync is always or changes, not %q", *sync)
			}
			if changed {
				if _, err := kms.PutAuditSettings.Call(s.ctx, s, s.caller, settings); err != nil {
					return err
				}
			}
			if o.json {
				return printJSON(settings)
			}
			retention, synced := "for ever", "changes"
			if settings.RetentionDays != 0 {
				retention = fmt.Sprintf("%d days", settings.RetentionDays)
			}
			if settings.SyncAlways {
				synced = "always"
			}
			return facts("Segments are closed at", fmt.Sprintf("%d KiB or %d hours", settings.SegmentKiB, settings.SegmentHours),
				"Closed segments are kept", retention, "Records are synced before the answer", synced,
				"Records go while the log can't be written to", settings.StandInDirectory,
				"Digests are copied to", settings.ExportDirectory, "Digests are passed to", settings.ExportCommand,
				"Records are sent to", settings.SendTo)
		}
	})
}

func auditQueryCommand() command {
	return serviceCommand(command{
		name: "query", arguments: "[OPTIONS]", summary: "search the audit log",
		details: `
Prints the records that all given options apply to, the oldest first. In PATH, * stands for any characters, ? for one.

Examples:
  kmsfs audit query --path '/finance/*' --principal user:alice --since 2026-11-01
  kmsfs audit query --error '*' --csv
  kmsfs audit query --event Decrypt --key alias/finance --json`,
	}, func(_ *serviceOptions, flags *pflag.FlagSet) func(*session, []string) error {
		var f audit.Filter
		var since, until timeFlag
		flags.StringVar(&f.Key, "key", "", "records about a `KEY`: its ID, ARN or alias")
		flags.StringVar(&f.Principal, "principal", "", "records of a `PRINCIPAL`: user:NAME, uid:N or an ARN")
		path := flags.String("path", "", "records about files with a `PATH` like this")
		flags.StringVar(&f.Event, "event", "", "records of an `EVENT`, such as Decrypt or ContextMismatch")
		flags.StringVar(&f.Error, "error", "", "records with an error's `CODE`; * is any")
		flags.Var(&since, "since", "records from a `TIME` on: a date, RFC 3339, or how long ago: 36h, 7d")
		flags.Var(&until, "until", "records up to a `TIME`")
		asJSON := flags.Bool("json", false, "print the whole records, one JSON object a line")
		asCSV := flags.Bool("csv", false, "print comma-separated values")
		return func(s *session, _ []string) error {
			if *asJSON && *asCSV {
				return usagef("audit query", "--json and --csv exclude each other")
			}
			if strings.HasPrefix(f.Principal, "group:") || strings.HasPrefix(f.Principal, "gid:") {
				return usagef("audit query", "--principal %s: records have users, not groups", f.Principal)
			}
			f.Principal = strings.TrimPrefix(f.Principal, "user:")
			f.Since, f.Until = since.time, until.time
			if *path != "" {
				f.Path = policy.Wildcard(*path)
				f.Literal = longestLiteral(*path)
			}
			log, err := readAuditLog(s)
			if err != nil {
				return err
			}
			return query(log, f, *asJSON, *asCSV)
		}
	})
}

// longestLiteral is the longest piece of a pattern without wildcards.
func longestLiteral(pattern string) (longest string) {
	for _, piece := range strings.FieldsFunc(pattern, func(r rune) bool { return r == '*' || r == '?' }) {
		if len(piece) > len(longest) {
			longest = piece
		}
	}
	return longest
}

// query prints the records asked for.
func query(log auditLog, f audit.Filter, asJSON, asCSV bool) error {
	if !asCSV {
		return audit.Query(log.files, log.open, f, printer(asJSON))
	}
	out := csv.NewWriter(os.Stdout)
	if err := out.Write([]string{"time", "event", "error", "user", "pid", "executable", "operation", "paths", "seen as", "resources"}); err != nil {
		return err
	}
	err := audit.Query(log.files, log.open, f, func(e *audit.Entry) error {
		more := &e.AdditionalEventData
		user, executable := e.Principal()
		pid := more.PID
		if more.Behind != nil {
			pid = more.Behind.PID
		}
		return out.Write(shownAll([]string{
			entryTime(e), e.EventName, e.ErrorCode, user, fmt.Sprint(pid), executable, more.FileOperation,
			strings.Join(e.Paths(), " "), more.FilePath, resources(e),
		}))
	})
	out.Flush()
	return errors.Join(err, out.Error())
}

// printer prints records as lines for people, or whole.
func printer(asJSON bool) func(*audit.Entry) error {
	return func(e *audit.Entry) error {
		if asJSON {
			_, err := fmt.Printf("%s\n", e.Line)
			return err
		}
		user, executable := e.Principal()
		columns := []string{
			entryTime(e), e.EventName, "ok", user, executable, e.AdditionalEventData.FileOperation, strings.Join(e.Paths(), " "), resources(e),
		}
		if e.ErrorCode != "" {
			columns[2] = e.ErrorCode
		}
		_, err := fmt.Println(strings.Join(slices.DeleteFunc(shownAll(columns), func(c string) bool { return c == "" }), "  "))
		return err
	}
}

// shownAll makes texts of records fit for a terminal.
func shownAll(texts []string) []string {
	for i, text := range texts {
		texts[i] = audit.Shown(text)
	}
	return texts
}

func entryTime(e *audit.Entry) string { return e.EventTime.Format("2006-01-02T15:04:05.000000Z07:00") }

func resources(e *audit.Entry) string {
	var arns []string
	for _, r := range e.Resources {
		arns = append(arns, r.ARN)
	}
	return strings.Join(arns, " ")
}

// followInterval is how often a tail looks for new records.
const followInterval = 200 * time.Millisecond

func auditTailCommand() command {
	return serviceCommand(command{
		name: "tail", arguments: "[OPTIONS]", summary: "show the last records of the audit log",
		details: `
Prints the last records of the log's open segment, and with --follow those that come, until it is interrupted.

Examples:
  kmsfs audit tail
  kmsfs audit tail --follow --json | jq .eventName`,
	}, func(_ *serviceOptions, flags *pflag.FlagSet) func(*session, []string) error {
		lines := flags.IntP("lines", "n", 10, "print the last `N` records")
		follow := flags.BoolP("follow", "f", false, "go on with the records that come")
		asJSON := flags.Bool("json", false, "print the whole records, one JSON object a line")
		return func(s *session, _ []string) error {
			log, err := readAuditLog(s)
			if err != nil {
				return err
			}
			tail, show := audit.NewTail(log.files, log.open), printer(*asJSON)
			defer func() { _ = tail.Close() }()
			var last []*audit.Entry
			err = tail.Next(func(e *audit.Entry) error {
				if last = append(last, e); len(last) > max(*lines, 0) {
					last = last[1:]
				}
				return nil
			})
			if err != nil {
				return err
			}
			for _, e := range last {
				if err := show(e); err != nil {
					return err
				}
			}
			if !*follow {
				return nil
			}
			stopped, cancel := signal.NotifyContext(s.ctx, unix.SIGINT, unix.SIGTERM)
			defer cancel()
			return tail.Follow(followInterval, stopped.Done(), show)
		}
	})
}

// timeFlag is a point in time.
type timeFlag struct{ time time.Time }

// String, Set and Type make it a flag.
func (t *timeFlag) String() string {
	if t.time.IsZero() {
		return ""
	}
	return t.time.Format(time.RFC3339)
}

// Set takes a date, in the local time zone, a time with its zone, or how long ago it was.
func (t *timeFlag) Set(text string) (err error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			t.time = time.Now().AddDate(0, 0, -int(n))
			return nil
		}
	}
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		t.time = time.Now().Add(-ago)
		return nil
	}
	if t.time, err = time.ParseInLocation(time.DateOnly, text, time.Local); err != nil {
		if t.time, err = time.Parse(time.RFC3339, text); err != nil {
			return fmt.Errorf("want a date such as 2026-11-24, a time such as 2026-11-24T15:04:05Z, or how long ago, such as 90m, 36h or 7d")
		}
	}
	return nil
}

// Type names what it takes.
func (*timeFlag) Type() string { return "TIME" }

// servedFiles are the audit log's files, read through the service that has them.
type servedFiles struct {
	s  *session
	mu sync.Mutex // guards reading
	// reading is the session in which the service has recorded that the log is read.
	reading []byte
}

// call reads in one session, so that it is recorded once.
func (f *servedFiles) call(in *kms.ReadAuditInput) (*kms.ReadAuditOutput, error) {
	f.mu.Lock()
	in.Session = f.reading
	f.mu.Unlock()
	out, err := kms.ReadAudit.Call(f.s.ctx, f.s, f.s.caller, in)
	if err == nil && len(out.Session) > 0 {
		f.mu.Lock()
		f.reading = out.Session
		f.mu.Unlock()
	}
	return out, err
}

var _ fs.ReadDirFS = (*servedFiles)(nil)

// ReadDir lists the files as the service knows them now.
func (f *servedFiles) ReadDir(string) ([]fs.DirEntry, error) {
	about, err := f.call(&kms.ReadAuditInput{})
	if err != nil {
		return nil, err
	}
	var entries []fs.DirEntry
	for _, name := range about.Files {
		entries = append(entries, &servedFile{files: f, name: name})
	}
	return entries, nil
}

// Open opens a file.
func (f *servedFiles) Open(name string) (fs.File, error) {
	file := &servedFile{files: f, name: name}
	if _, err := file.read(); err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return file, nil
}

// servedFile is one of them, as an entry and as an open file.
type servedFile struct {
	files   *servedFiles
	name    string
	content []byte // that was read ahead
	off     int64  // behind it
	ended   bool
	segment uint64 // that the open segment has been found to be
}

// read reads the next part. Of an open segment that has been closed meanwhile, and of one that isn't there, the error is fs.ErrNotExist.
func (f *servedFile) read() (int, error) {
	out, err := f.files.call(&kms.ReadAuditInput{File: f.name, Offset: f.off, Segment: f.segment})
	var refusal *kms.Error
	if errors.As(err, &refusal) && refusal.Code == kms.CodeNotFound {
		return 0, fs.ErrNotExist
	}
	if err != nil {
		return 0, err
	}
	f.segment = out.Segment
	f.content, f.ended = out.Content, len(out.Content) == 0
	f.off += int64(len(out.Content))
	return len(out.Content), nil
}

// Read reads on.
func (f *servedFile) Read(p []byte) (int, error) {
	if len(f.content) == 0 {
		if f.ended {
			return 0, io.EOF
		}
		n, err := f.read()
		if err != nil {
			return 0, err
		}
		if n == 0 {
			return 0, io.EOF
		}
	}
	n := copy(p, f.content)
	f.content = f.content[n:]
	return n, nil
}

// Seek goes to an offset.
func (f *servedFile) Seek(off int64, whence int) (int64, error) {
	if whence != io.SeekStart {
		return 0, fs.ErrInvalid
	}
	f.off, f.content, f.ended = off, nil, false
	return off, nil
}

// Close has nothing to do.
func (*servedFile) Close() error { return nil }

// Name is the file's.
func (f *servedFile) Name() string { return f.name }

// IsDir is never the case.
func (*servedFile) IsDir() bool { return false }

// Type is a regular file's.
func (*servedFile) Type() fs.FileMode { return 0 }

// Info is not known.
func (*servedFile) Info() (fs.FileInfo, error) { return nil, fs.ErrInvalid }

// Stat is not known.
func (*servedFile) Stat() (fs.FileInfo, error) { return nil, fs.ErrInvalid }
