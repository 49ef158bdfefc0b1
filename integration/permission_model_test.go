package integration

import (
	"flag"
	"fmt"
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// modelTime is how long TestAccessModel runs. A soak takes longer.
var modelTime = flag.Duration("model", 15*time.Second, "how long TestAccessModel runs")

// TestAccessModel has several users do things at random, and compares who may do what with a model of it, after each step. All modes let everybody do everything,
// unless a step changes them.
func TestAccessModel(t *testing.T) {
	if plain {
		t.Log("there is nothing to be allowed")
		return
	}
	o := newOffice(t)
	users := []*modelUser{{account: theRoot, p: o.root}, {account: o.alice, p: o.a}, {account: o.bob, p: o.bob.as(t, o.team), groups: []account{o.team}}}
	must(t, flag.Set("rapid.nofailfile", "true")) // what was done can't be done again: IDs and times differ
	end := time.Now().Add(*modelTime)
	runs, steps := 0, 0
	rapid.Check(t, func(rt *rapid.T) {
		if time.Now().After(end) {
			return
		}
		defer func() {
			if rt.Failed() { // time to find the shortest way to it
				end = time.Now().Add(time.Minute)
			}
		}()
		runs++
		m := newModel(rt, o, users, runs)
		defer m.close()
		rt.Repeat(map[string]func(*rapid.T){
			"open": m.open, "close": m.closeOne, "create": m.create, "write": m.write, "truncate": m.truncate, "rename file": m.renameFile, "rename directory": m.renameDirectory,
			"link": m.link, "unlink": m.unlink, "chmod": m.chmod, "chown": m.chown, "set policy": m.setPolicy, "grant": m.grant, "end grant": m.endGrant,
			"switch key": m.switchKey, "put policy": m.putPolicy,
			"": func(rt *rapid.T) { steps++; m.check(rt) },
		})
	})
	t.Logf("%d runs, %d steps", runs, steps)
	if steps == 0 {
		t.Error("nothing was done")
	}
}

// modelUser is a user and a process of his.
type modelUser struct {
	account
	p      *process
	groups []account
}

// is says whether a principal means the user.
func (u *modelUser) is(principal string) bool {
	return principal == fmt.Sprint("uid:", u.id) || slices.ContainsFunc(u.groups, func(g account) bool { return principal == "group:"+g.name })
}

// modelKey is a KMS key: who may do what with it.
type modelKey struct {
	id      string
	enabled bool
	policy  []lease
	grants  map[string]lease
}

// lease lets a principal perform operations for files at a path of the volume and beneath it.
type lease struct{ principal, operations, beneath string }

func (l lease) allows(u *modelUser, operation, file string) bool {
	return u.is(l.principal) && slices.Contains(strings.Split(l.operations, ","), operation) && (l.beneath == "" || strings.HasPrefix(file, l.beneath+"/"))
}

// may says whether a user may perform an operation for a file.
func (k *modelKey) may(u *modelUser, operation, file string) bool {
	allows := func(l lease) bool { return l.allows(u, operation, file) }
	return k.enabled && (slices.ContainsFunc(k.policy, allows) || slices.ContainsFunc(slices.Collect(maps.Values(k.grants)), allows))
}

// modelFile is a regular file: all of its names are paths in the volume.
type modelFile struct {
	names   []string
	key     *modelKey
	content string
	mode    uint32
	owner   *modelUser
}

// modelHandle is an open file.
type modelHandle struct {
	f     *modelFile
	user  *modelUser
	write bool
	*opened
}

type model struct {
	o       *office
	users   []*modelUser
	top     string // of this run, as a path in the volume
	keys    []*modelKey
	dirs    map[string]*modelKey // paths of directories, with their policies' keys; nil for none
	files   []*modelFile
	handles []*modelHandle
	made    int
}

func newModel(rt *rapid.T, o *office, users []*modelUser, run int) *model {
	m := &model{o: o, users: users, top: fmt.Sprintf("/dir/run%d", run), dirs: map[string]*modelKey{}}
	for range 2 {
		k := &modelKey{id: strings.TrimSpace(o.kmsfs(o.root.t, "key", "create")), enabled: true, grants: map[string]lease{}}
		m.keys = append(m.keys, k)
		m.setKeyPolicy(k, []lease{{"uid:0", writing, ""}})
	}
	for _, dir := range []string{m.top, m.top + "/a", m.top + "/b", m.top + "/a/c"} {
		m.makeDirectory(dir)
	}
	m.must(rt, m.setDirectoryKey(m.users[0], m.top, m.keys[0]))
	m.dirs[m.top] = m.keys[0]
	for _, user := range []int{1, 2} {
		m.addGrant(m.keys[0], lease{fmt.Sprint("uid:", users[user].id), writing, m.top})
	}
	return m
}

func (m *model) must(rt *rapid.T, err error) {
	if err != nil {
		rt.Fatal(err)
	}
}

// close leaves nothing open.
func (m *model) close() {
	for _, h := range m.handles {
		_, _ = h.do(order{Do: "close"}) // EACCES where access was lost
	}
}

func (m *model) at(path string) string { return filepath.Join(m.o.point, path) }

func (m *model) makeDirectory(dir string) {
	openToAll(m.o.root.t, m.at(dir))
	m.dirs[dir] = nil
}

// governing is the key of what is made in a directory.
func (m *model) governing(dir string) *modelKey {
	for ; m.dirs[dir] == nil; dir = path.Dir(dir) {
	}
	return m.dirs[dir]
}

func (m *model) user(rt *rapid.T) *modelUser { return rapid.SampledFrom(m.users).Draw(rt, "user") }

func (m *model) dir(rt *rapid.T) string {
	return rapid.SampledFrom(slices.Sorted(maps.Keys(m.dirs))).Draw(rt, "directory")
}

func (m *model) file(rt *rapid.T) *modelFile {
	if len(m.files) == 0 {
		rt.Skip("no file")
	}
	return rapid.SampledFrom(m.files).Draw(rt, "file")
}

func (m *model) name(rt *rapid.T, f *modelFile) string {
	return rapid.SampledFrom(f.names).Draw(rt, "name")
}

func (m *model) newName(dir string) string {
	m.made++
	return fmt.Sprintf("%s/n%d", dir, m.made)
}

// may says whether a user may perform an operation on a file by one of its names.
func (f *modelFile) may(u *modelUser, operation string) bool {
	return slices.ContainsFunc(f.names, func(name string) bool { return f.key.may(u, operation, name) })
}

// mayWrite is for one name at which both reading and writing are allowed.
func (f *modelFile) mayWrite(u *modelUser) bool {
	return slices.ContainsFunc(f.names, func(name string) bool { return f.key.may(u, "Decrypt", name) && f.key.may(u, "GenerateDataKey", name) })
}

// mayOpen says whether mode, the same for group and others, and keys let a user open a file with O_RDONLY, O_WRONLY or O_RDWR.
func (f *modelFile) mayOpen(u *modelUser, flags int) bool {
	bits := f.mode & 7
	if u.id == f.owner.id {
		bits = f.mode >> 6 & 7
	}
	needed := map[int]uint32{unix.O_RDONLY: 4, unix.O_WRONLY: 2, unix.O_RDWR: 6}[flags]
	if u.id != 0 && bits&needed != needed {
		return false
	}
	if flags == unix.O_RDONLY {
		return f.may(u, "Decrypt")
	}
	return f.mayWrite(u)
}

// want checks that something was done or refused, as the model says.
func want(rt *rapid.T, what string, err error, allowed bool, others ...unix.Errno) bool {
	rt.Helper()
	switch {
	case allowed && err != nil:
		rt.Fatalf("%s: %v, though it is allowed", what, err)
	case !allowed && err == nil:
		rt.Fatalf("%s is done, though it isn't allowed", what)
	case !allowed && err != unix.EACCES:
		for _, other := range others {
			if err == other {
				return false
			}
		}
		rt.Fatalf("%s: %v, want EACCES", what, err)
	}
	return allowed
}

func (m *model) open(rt *rapid.T) {
	if len(m.handles) > 20 {
		rt.Skip("enough is open")
	}
	u, f := m.user(rt), m.file(rt)
	name, flags := m.name(rt, f), rapid.SampledFrom([]int{unix.O_RDONLY, unix.O_RDWR}).Draw(rt, "flags")
	file, err := u.p.open(m.at(name), flags)
	if want(rt, fmt.Sprintf("%s opens %s with flags %d", u.name, name, flags), err, f.mayOpen(u, flags)) {
		m.handles = append(m.handles, &modelHandle{f, u, flags == unix.O_RDWR, file})
	}
}

func (m *model) closeOne(rt *rapid.T) {
	if len(m.handles) == 0 {
		rt.Skip("nothing is open")
	}
	i := rapid.IntRange(0, len(m.handles)-1).Draw(rt, "handle")
	_, _ = m.handles[i].do(order{Do: "close"}) // EACCES where access was lost
	m.handles = slices.Delete(m.handles, i, i+1)
}

func (m *model) create(rt *rapid.T) {
	u, dir := m.user(rt), m.dir(rt)
	if len(m.files) > 8 {
		rt.Skip("enough files")
	}
	name, key := m.newName(dir), m.governing(dir)
	file, err := u.p.open(m.at(name), unix.O_CREAT|unix.O_EXCL|unix.O_RDWR)
	if !want(rt, u.name+" creates "+name, err, key.may(u, "GenerateDataKey", name)) {
		return
	}
	f := &modelFile{names: []string{name}, key: key, mode: 0o666, owner: u}
	m.files = append(m.files, f)
	m.handles = append(m.handles, &modelHandle{f, u, true, file})
}

func (m *model) write(rt *rapid.T) {
	var open []*modelHandle
	for _, h := range m.handles {
		if allowed, certain := h.holds(); h.write && allowed && certain {
			open = append(open, h)
		}
	}
	if len(open) == 0 {
		rt.Skip("nothing is open for writing")
	}
	h := rapid.SampledFrom(open).Draw(rt, "handle")
	m.made++
	content := fmt.Sprintf("content %06d", m.made)
	_, err := h.do(order{Do: "pwrite", Data: []byte(content)})
	want(rt, h.user.name+" writes to "+h.f.names[0], err, true)
	h.f.content = content
}

func (m *model) truncate(rt *rapid.T) {
	u, f := m.user(rt), m.file(rt)
	name := m.name(rt, f)
	_, err := u.p.do(order{Do: "truncate", Path: m.at(name)})
	if want(rt, u.name+" truncates "+name, err, f.mayOpen(u, unix.O_WRONLY)) {
		f.content = ""
	}
}

func (m *model) renameFile(rt *rapid.T) {
	u, f, dir := m.user(rt), m.file(rt), m.dir(rt)
	name, to := m.name(rt, f), m.newName(dir)
	under := m.governing(dir)
	allowed := f.key.may(u, "Decrypt", name)
	moved := path.Dir(name) != dir && m.governing(path.Dir(name)) != under
	if moved && len(f.names) > 1 {
		rt.Skip("all of a file's names are under one key")
	}
	if moved {
		allowed = allowed && under.may(u, "GenerateDataKey", to)
	}
	_, err := u.p.do(order{Do: "rename", Path: m.at(name), To: m.at(to)})
	if !want(rt, fmt.Sprintf("%s renames %s to %s", u.name, name, to), err, allowed) {
		return
	}
	f.names[slices.Index(f.names, name)] = to
	if moved {
		f.key = under
	}
}

// renameDirectory is root's: others' are a matter of what is beneath.
func (m *model) renameDirectory(rt *rapid.T) {
	u, dir, into := m.users[0], m.dir(rt), m.dir(rt)
	if dir == m.top || into == dir || strings.HasPrefix(into, dir+"/") {
		rt.Skip("not there")
	}
	to := m.newName(into)
	before, after := m.governing(dir), m.governing(into)
	_, err := u.p.do(order{Do: "rename", Path: m.at(dir), To: m.at(to)})
	if m.dirs[dir] == nil && before != after && path.Dir(dir) != into {
		if err != unix.EXDEV {
			rt.Fatalf("%s renames %s to %s: %v, want EXDEV", u.name, dir, to, err)
		}
		return
	}
	if !want(rt, fmt.Sprintf("%s renames %s to %s", u.name, dir, to), err, before.may(u, "Decrypt", dir+"/")) {
		return
	}
	move := func(path *string) {
		if rest, beneath := strings.CutPrefix(*path, dir+"/"); beneath {
			*path = to + "/" + rest
		}
	}
	for _, d := range slices.Collect(maps.Keys(m.dirs)) {
		now := d
		if move(&now); d == dir {
			now = to
		}
		if now != d {
			m.dirs[now] = m.dirs[d]
			delete(m.dirs, d)
		}
	}
	for _, f := range m.files {
		for i := range f.names {
			move(&f.names[i])
		}
	}
}

func (m *model) link(rt *rapid.T) {
	u, f, dir := m.users[0], m.file(rt), m.dir(rt) // the system protects links to others' files
	name, to := m.name(rt, f), m.newName(dir)
	if m.governing(dir) != m.governing(path.Dir(name)) || m.governing(dir) != f.key || len(f.names) > 3 {
		rt.Skip("all of a file's names are under one key")
	}
	_, err := u.p.do(order{Do: "link", Path: m.at(name), To: m.at(to)})
	if want(rt, fmt.Sprintf("%s links %s to %s", u.name, name, to), err, f.may(u, "Decrypt")) {
		f.names = append(f.names, to)
	}
}

func (m *model) unlink(rt *rapid.T) {
	f := m.file(rt)
	i := rapid.IntRange(0, len(f.names)-1).Draw(rt, "which")
	if len(f.names) == 1 && slices.ContainsFunc(m.handles, func(h *modelHandle) bool { return h.f == f }) {
		rt.Skip("still open")
	}
	_, err := m.user(rt).p.do(order{Do: "unlink", Path: m.at(f.names[i])})
	want(rt, "unlink "+f.names[i], err, true)
	f.names = slices.Delete(f.names, i, i+1)
	if len(f.names) == 0 {
		m.files = slices.DeleteFunc(m.files, func(other *modelFile) bool { return other == f })
	}
}

func (m *model) chmod(rt *rapid.T) {
	u, f := m.user(rt), m.file(rt)
	mode := rapid.SampledFrom([]uint32{0o666, 0o600, 0o644, 0o777, 0o700}).Draw(rt, "mode")
	_, err := u.p.do(order{Do: "chmod", Path: m.at(f.names[0]), Mode: mode})
	if want(rt, fmt.Sprintf("%s changes the mode of %s to %o", u.name, f.names[0], mode), err, u.id == 0 || u.id == f.owner.id, unix.EPERM) {
		f.mode = mode
	}
}

func (m *model) chown(rt *rapid.T) {
	u, f, to := m.users[0], m.file(rt), m.user(rt)
	_, err := u.p.do(order{Do: "chown", Path: m.at(f.names[0]), Len: int(to.id)})
	if want(rt, fmt.Sprintf("%s gives %s to %s", u.name, f.names[0], to.name), err, f.may(u, "Decrypt")) {
		f.owner = to
	}
}

func (m *model) setDirectoryKey(u *modelUser, dir string, k *modelKey) error {
	_, err := u.p.do(order{Do: "setxattr", Path: m.at(dir), To: "user.kmsfs.key", Data: []byte(k.id)})
	return err
}

// setPolicy is root's, to whom the directories belong.
func (m *model) setPolicy(rt *rapid.T) {
	u, dir := m.users[0], m.dir(rt)
	if rapid.Bool().Draw(rt, "clear") && dir != m.top && m.dirs[dir] != nil {
		_, err := u.p.do(order{Do: "removexattr", Path: m.at(dir), To: "user.kmsfs.key"})
		if want(rt, "clear the policy of "+dir, err, true) {
			m.dirs[dir] = nil
		}
		return
	}
	k := rapid.SampledFrom(m.keys).Draw(rt, "key")
	err := m.setDirectoryKey(u, dir, k)
	if want(rt, "set the policy of "+dir, err, k.may(u, "GenerateDataKey", dir), unix.EPERM) {
		m.dirs[dir] = k
	}
}

func (m *model) lease(rt *rapid.T) lease {
	principals := []string{fmt.Sprint("uid:", m.users[1].id), fmt.Sprint("uid:", m.users[2].id), "group:" + m.users[2].groups[0].name}
	return lease{
		rapid.SampledFrom(principals).Draw(rt, "principal"), rapid.SampledFrom([]string{reading, writing}).Draw(rt, "operations"), m.dir(rt),
	}
}

func (m *model) addGrant(k *modelKey, l lease) {
	m.o.key = k.id
	k.grants[m.o.grant(m.o.root.t, l.principal, l.operations, "--path", l.beneath)] = l
}

func (m *model) grant(rt *rapid.T) {
	k := rapid.SampledFrom(m.keys).Draw(rt, "key")
	if !k.enabled || len(k.grants) > 4 {
		rt.Skip("no grant is made under a key that is disabled")
	}
	m.addGrant(k, m.lease(rt))
}

func (m *model) endGrant(rt *rapid.T) {
	k := rapid.SampledFrom(m.keys).Draw(rt, "key")
	if len(k.grants) == 0 {
		rt.Skip("no grant")
	}
	id := slices.Collect(maps.Keys(k.grants))[0] // IDs are random, too
	m.o.key = k.id
	m.o.revoke(m.o.root.t, id)
	delete(k.grants, id)
}

func (m *model) switchKey(rt *rapid.T) {
	k := rapid.SampledFrom(m.keys).Draw(rt, "key")
	k.enabled = !k.enabled
	if k.enabled {
		m.o.kmsfs(m.o.root.t, "key", "enable", k.id)
	} else {
		m.o.kmsfs(m.o.root.t, "key", "disable", k.id)
	}
}

func (m *model) setKeyPolicy(k *modelKey, leases []lease) {
	statements := []statement{administration}
	for _, l := range leases {
		s := allow(l.principal, l.operations)
		if l.beneath != "" {
			s = allow(l.principal, l.operations, l.beneath+"/*")
		}
		statements = append(statements, s)
	}
	m.o.key, k.policy = k.id, leases
	m.o.putPolicy(m.o.root.t, statements...)
}

// putPolicy lets root in or not, and others perhaps.
func (m *model) putPolicy(rt *rapid.T) {
	k := rapid.SampledFrom(m.keys).Draw(rt, "key")
	var leases []lease
	for range rapid.IntRange(0, 2).Draw(rt, "leases") {
		leases = append(leases, m.lease(rt))
	}
	if rapid.Bool().Draw(rt, "root") {
		leases = append(leases, lease{"uid:0", writing, ""})
	}
	m.setKeyPolicy(k, leases)
}

// holds says whether a handle may be used. Where the names of its file differ in that, it isn't certain, as any of them may be the one by which it was opened.
func (h *modelHandle) holds() (allowed, certain bool) {
	by := 0
	for _, name := range h.f.names {
		if h.f.key.may(h.user, "Decrypt", name) && (!h.write || h.f.key.may(h.user, "GenerateDataKey", name)) {
			by++
		}
	}
	return by > 0, by == 0 || by == len(h.f.names)
}

// check compares everything with the model. Revocation has a moment to take hold.
func (m *model) check(rt *rapid.T) {
	for _, h := range m.handles {
		allowed, certain := h.holds()
		if !certain {
			continue
		}
		var err error
		var got answer
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
			if got, err = h.do(order{Do: "pread", Len: 100}); (err == nil) == allowed {
				break
			}
		}
		want(rt, fmt.Sprintf("%s reads %s, which is open (write: %v)", h.user.name, h.f.names[0], h.write), err, allowed)
		if err == nil && string(got.Data) != h.f.content {
			rt.Fatalf("%s holds %q, want %q", h.f.names[0], got.Data, h.f.content)
		}
	}
	for _, f := range m.files {
		for _, u := range m.users {
			for _, flags := range []int{unix.O_RDONLY, unix.O_WRONLY} {
				name := f.names[0]
				file, err := u.p.open(m.at(name), flags)
				if want(rt, fmt.Sprintf("%s opens %s with flags %d", u.name, name, flags), err, f.mayOpen(u, flags)) {
					_, _ = file.do(order{Do: "close"})
				}
			}
			if _, err := u.p.do(order{Do: "stat", Path: m.at(f.names[0])}); err != nil {
				rt.Fatalf("%s looks at %s: %v", u.name, f.names[0], err)
			}
		}
	}
}
