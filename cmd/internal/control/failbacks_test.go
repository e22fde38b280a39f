package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/haulback/haulback/cmd/internal/control/jobpb"
	"github.com/haulback/haulback/hostctl/failback"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// newController is a rig with failbacks.
func newController(t testing.TB, change func(*Config)) (*rig, *fakeFailbacks) {
	t.Helper()
	f := newFailbacks()
	r := newRig(t, func(c *Config) {
		c.Failbacks = f
		c.FailbackRecord = func(_ context.Context, id string) ([]byte, error) {
			if id != "fb-1" {
				return nil, fmt.Errorf("records: %w", fs.ErrNotExist)
			}
			return []byte("{\"a\": \"<&>\"}\n"), nil
		}
		c.FailbackGroups = func() []FailbackGroup {
			return []FailbackGroup{
				{Name: "shop", Parallel: 2, Members: []failback.Spec{{VM: "web", Group: "shop", Order: 2}, {VM: "db", Group: "shop", Order: 1}}},
				{Name: "office", Members: []failback.Spec{{VM: "mail", Group: "office"}}},
			}
		}
		if change != nil {
			change(c)
		}
	})
	return r, f
}

// start is a failback of web.
func start(id string) string {
	return `{"id":"` + id + `","spec":{"vm":"web","destination":"DESTINATION_ORIGINAL","grace":"-1s","disks":[{"disk":"scsi0:1","thin":false}]}}`
}

// TestFailbacksCurl brings a VM home with curl.
func TestFailbacksCurl(t *testing.T) {
	r, _ := newController(t, nil)
	for _, c := range []struct{ method, body, want string }{
		{"PutPair", `{"pair":{"name":"web","original":{"host":"home","name":"web"},"replica":{"host":"dr","id":"vm-7"},"disks":[{"replica":"a","original":"b"}]}}`, `"revision":"1"`},
		{"GetPair", `{"name":"web"}`, `"replica":{"host":"dr","id":"vm-7"}`},
		{"ListPairs", `{}`, `"revision":"1"}`},
		{"Failover", `{"name":"web","expectedRevision":"1"}`, `"state":"VM_STATE_FAILOVER"`},
		{"UndoFailover", `{"name":"web","expectedRevision":"2"}`, `"state":"VM_STATE_READY"`},
		{"CheckReplication", `{"name":"web"}`, `{}`},
		{"Failover", `{"name":"web"}`, `"revision":"4"`},
		{"Plan", `{"spec":{"vm":"web","destination":"DESTINATION_NEW"}}`, `"disks":[{"label":"scsi0:0","replica":{}}]`},
		{"Plan", `{"spec":{"vm":"web","destination":"DESTINATION_NEW"},"measure":true}`, `"differingBytes":"0"`},
		{"Start", start("fb-1"), `"owner":"uid 0"`},
		{"Start", start("fb-1"), `"alreadyExisted":true`},
		{"Get", `{"id":"fb-1"}`, `"switch":{"when":"WHEN_MANUAL"}`},
		{"Get", `{"id":"fb-1"}`, `"grace":"-1s"`},
		{"List", `{"vm":"web"}`, `"id":"fb-1"`},
		{"SetLimits", `{"id":"fb-1","limits":{"wireBytes":"1000000"},"priority":"PRIORITY_HIGH"}`, `"priority":"PRIORITY_HIGH"`},
		{"Switch", `{"id":"fb-1","switch":{"when":"WHEN_AT","at":"2026-11-23T02:00:00Z","budget":"30s"},"expectedRevision":"6"}`, `"budget":"30s"`},
		{"Commit", `{"id":"fb-1","deleteProtective":true}`, `"next":"by uid 0, delete true"`},
		{"Undo", `{"id":"fb-1","keepOff":true}`, `"next":"by uid 0, off true"`},
		{"Cancel", `{"id":"fb-1"}`, `"activity":"ACTIVITY_CANCELED"`},
		{"Cancel", `{"id":"fb-1"}`, `"decisions":[{"by":"uid 0"},{"by":"uid 0"},{"by":"uid 0"},{"by":"uid 0"},{"by":"uid 0"},{"by":"uid 0"}]`},
		{"Garbage", `{}`, `"name":"haulback-x"`},
		{"Garbage", `{"remove":true}`, `{}`},
		{"GetRecord", `{"id":"fb-1"}`, `{"record":"{\"a\": \"<&>\"}\n"}`},
		{"ListGroups", `{}`, `{"groups":[{"name":"office","members":[{"vm":"mail","priority":"PRIORITY_NORMAL","group":"office"}]},{"name":"shop","members":[{"vm":"db",`},
		{"RemovePair", `{"name":"web"}`, `{}`},
	} {
		p := r.call("Failbacks/"+c.method, c.body)
		var text bytes.Buffer // its white space is random
		if err := json.Compact(&text, []byte(p.body)); err != nil || p.status != 200 || !strings.Contains(text.String(), c.want) {
			t.Errorf("%s %s:\n got %+v\nwant %s", c.method, c.body, p, c.want)
		}
	}
	for method, object := range map[string]string{"PutPair": "web", "Plan": "web", "Start": "fb-1", "Commit": "fb-1", "RemovePair": "web"} {
		if e := r.audited("/haulback.v1.Failbacks/"+method, ""); e.Object != object || e.Caller != "uid 0" || e.Code != "ok" {
			t.Errorf("audit of %s: %+v", method, e)
		}
	}
}

// TestFailbacksRefused has its code, reason, retry class and exit code for every
// refusal.
func TestFailbacksRefused(t *testing.T) {
	r, _ := newController(t, nil)
	r.call("Failbacks/PutPair", `{"pair":{"name":"web"}}`)
	r.call("Failbacks/Failover", `{"name":"web"}`)
	r.call("Failbacks/Start", start("fb-1"))
	const never, reconcile = controlv1.Retry_RETRY_NEVER, controlv1.Retry_RETRY_AFTER_RECONCILE
	for _, c := range []struct {
		method, body string
		status       int
		code, reason string
		retry        controlv1.Retry
		exit, text   string
	}{
		{"Start", `{"id":`, 400, "invalid_argument", "INVALID", never, "", "unmarshal"},
		{"Start", `{"id":"x","spec":{"vm":"web","powerOnUnproven":true}}`, 400, "invalid_argument", "INVALID", never, "", "powerOnUnproven"},
		{"Start", `{"spec":{}}`, 400, "invalid_argument", "INVALID", never, "", "id:"},
		{"Start", `{"id":"x"}`, 400, "invalid_argument", "INVALID", never, "", "spec:"},
		{"Start", `{"id":"x","spec":{"vm":"web"}}`, 400, "invalid_argument", "INVALID", never, "", "spec.destination"},
		{"Start", `{"id":"x","spec":{"vm":"web","destination":7}}`, 400, "invalid_argument", "INVALID", never, "", "spec.destination"},
		{"Start", `{"id":"x","confirmedDigest":"07","spec":{"vm":"web","destination":1}}`, 400, "invalid_argument", "INVALID", never, "", "confirmed_digest"},
		{"Start", `{"id":"x","confirmedDigest":"` + strings.Repeat("08", 32) + `","spec":{"vm":"web","destination":1}}`, 400, "failed_precondition", "PLAN_CHANGED", never, "10", "confirmed"},
		{"Start", `{"id":"` + strings.Repeat("x", 1<<20) + `"}`, 429, "resource_exhausted", "QUOTA", never, "", "1048576"},
		{"PutPair", `{}`, 400, "invalid_argument", "INVALID", never, "", "pair:"},
		{"PutPair", `{"pair":{}}`, 400, "invalid_argument", "INVALID", never, "", "pair.name"},
		{"PutPair", `{"pair":{"name":"web"},"expectedRevision":"9"}`, 400, "failed_precondition", "STATE_CONFLICT", reconcile, "", "revision 2, not 9"},
		{"GetPair", `{}`, 400, "invalid_argument", "INVALID", never, "", "name"},
		{"GetPair", `{"name":"x"}`, 404, "not_found", "VM_UNKNOWN", never, "", "x"},
		{"Failover", `{"name":"web","expectedRevision":"1"}`, 400, "failed_precondition", "STATE_CONFLICT", reconcile, "", ""},
		{"RemovePair", `{"name":"web","expectedRevision":"1"}`, 400, "failed_precondition", "STATE_CONFLICT", reconcile, "", ""},
		{"CheckReplication", `{"name":"web"}`, 400, "failed_precondition", "HELD_BY_FAILBACK", reconcile, "11", "fb-1"},
		{"Get", `{"id":"x"}`, 404, "not_found", "FAILBACK_UNKNOWN", never, "", ""},
		{"Get", `{}`, 400, "invalid_argument", "INVALID", never, "", "id"},
		{"List", `{"pageSize":-1}`, 400, "invalid_argument", "INVALID", never, "", "page_size"},
		{"List", `{"pageToken":"zz"}`, 400, "invalid_argument", "INVALID", never, "", "page_token"},
		{"Switch", `{"id":"fb-1"}`, 400, "invalid_argument", "INVALID", never, "", "switch.when"},
		{"Switch", `{"id":"fb-1","switch":{"when":"WHEN_NOW"},"expectedRevision":"1"}`, 400, "failed_precondition", "STATE_CONFLICT", reconcile, "", ""},
		{"Commit", `{"id":"fb-1","expectedRevision":"1"}`, 400, "failed_precondition", "STATE_CONFLICT", reconcile, "", ""},
		{"Undo", `{"id":"fb-1","expectedRevision":"1"}`, 400, "failed_precondition", "STATE_CONFLICT", reconcile, "", ""},
		{"Cancel", `{"id":"fb-1","expectedRevision":"1"}`, 400, "failed_precondition", "STATE_CONFLICT", reconcile, "", ""},
		{"Continue", `{"id":"fb-1"}`, 400, "failed_precondition", "NOT_HALTED", never, "10", ""},
		{"SetLimits", `{"id":"fb-1"}`, 400, "invalid_argument", "INVALID", never, "", "limits"},
		{"SetLimits", `{"id":"fb-1","limits":{},"priority":9}`, 400, "invalid_argument", "INVALID", never, "", "priority"},
		{"GetRecord", `{"id":"x"}`, 404, "not_found", "NOT_FOUND", never, "", "no record"},
		{"Erase", `{}`, 501, "unimplemented", "UNIMPLEMENTED", never, "", ""},
	} {
		p := r.call("Failbacks/"+c.method, c.body)
		a, info := p.info(t)
		if p.status != c.status || a.Code != c.code || info.Reason != c.reason || info.Retry != c.retry || info.Metadata["exit_code"] != c.exit || !strings.Contains(a.Message, c.text) {
			t.Errorf("%s %.100s:\n got %d %s %v: %s\nwant %+v", c.method, c.body, p.status, a.Code, info, a.Message, c)
		}
	}
	if e := r.audited("/haulback.v1.Failbacks/Commit", "STATE_CONFLICT"); e.Object != "fb-1" || e.Code != "failed_precondition" {
		t.Errorf("audit: %+v", e)
	}
	if f := jobpb.Refusal(jobpb.FromError(refused("HOST_REFUSED", 5, "no"))); f.Reason != "HOST_REFUSED" || f.Exit != 5 {
		t.Errorf("a program that calls the API gets %+v", f)
	}
}

// TestNoController says so, for every method.
func TestNoController(t *testing.T) {
	r := newRig(t, nil)
	n := 0
	for path := range r.s.specs {
		method, ok := strings.CutPrefix(path, "/haulback.v1.Failbacks/")
		if !ok || method == "Watch" {
			continue
		}
		n++
		body := `{}`
		if method == "SetLimits" {
			body = `{"limits":{}}`
		}
		p := r.call("Failbacks/"+method, body)
		if a, info := p.info(t); p.status != 501 || info.Reason != "UNIMPLEMENTED" || !strings.Contains(a.Message, "[controller] is not in this daemon's configuration") {
			t.Errorf("%s: %+v", method, p)
		}
	}
	if n != 20 {
		t.Errorf("%d methods", n)
	}
	for _, path := range []string{"/v1/failbacks/events", "/v1/failbacks/events.ndjson"} {
		if p := r.get(path); p.status != 501 {
			t.Errorf("%s: %+v", path, p)
		}
	}
}

// TestFailbacksRoles lets a viewer look and do nothing else.
func TestFailbacksRoles(t *testing.T) {
	ca := newAuthority(t, "ca")
	ca.server("server")
	ca.client("ops")
	ca.client("monitor")
	r, _ := newController(t, func(c *Config) {
		c.Listen = "127.0.0.1:0"
		c.TLS = TLS{Cert: ca.path("server.crt"), Key: ca.path("server.key"), CA: ca.path("ca.crt"), Allow: []Caller{{"ops", Admin}, {"monitor", Viewer}}}
	})
	call := func(who, method, body string) reply {
		return curl(t, body, "--cacert", ca.path("ca.crt"), "--cert", ca.path(who+".crt"), "--key", ca.path(who+".key"), "-H", "Content-Type: application/json",
			"--data-binary", "@-", "https://"+r.s.Addrs()[1].String()+"/haulback.v1.Failbacks/"+method)
	}
	call("ops", "PutPair", `{"pair":{"name":"web"}}`)
	if p := call("ops", "Start", start("fb-1")); p.status != 200 || !strings.Contains(p.body, `"owner":"cert ops"`) {
		t.Fatalf("%+v", p)
	}
	if p := call("ops", "Undo", `{"id":"fb-1"}`); !strings.Contains(p.body, "by cert ops") {
		t.Errorf("%+v", p)
	}
	may := map[string]string{
		"GetPair": `{"name":"web"}`, "ListPairs": `{}`, "CheckReplication": `{"name":"web"}`, "Get": `{"id":"fb-1"}`, "List": `{}`,
		"GetRecord": `{"id":"fb-1"}`, "ListGroups": `{}`,
	}
	for path := range r.s.specs {
		method, ok := strings.CutPrefix(path, "/haulback.v1.Failbacks/")
		if !ok || method == "Watch" {
			continue
		}
		want, body := 403, `{}`
		if b, ok := may[method]; ok {
			want, body = 200, b
		}
		if p := call("monitor", method, body); p.status != want {
			t.Errorf("a viewer calls %s: %+v", method, p)
		}
	}
	if e := r.audited("/haulback.v1.Failbacks/Undo", "AUTH"); e.Caller != "cert monitor" {
		t.Errorf("audit: %+v", e)
	}
}

// TestFailbackPages tells every failback once, whatever the size of a page.
func TestFailbackPages(t *testing.T) {
	r, f := newController(t, nil)
	for i := range 7 {
		f.all[fmt.Sprint("fb-", i)] = failback.Status{ID: fmt.Sprint("fb-", i), Created: time.Unix(int64(i/2), 0)}
	}
	const want = "fb-6 fb-4 fb-5 fb-2 fb-3 fb-0 fb-1"
	for size := range 9 {
		var ids []string
		for token := ""; ; {
			p := r.call("Failbacks/List", fmt.Sprintf(`{"pageSize":%d,"pageToken":%q}`, size, token))
			var page struct {
				Failbacks     []struct{ Id string }
				NextPageToken string
			}
			if err := json.Unmarshal([]byte(p.body), &page); err != nil || p.status != 200 {
				t.Fatal(err, p)
			}
			for _, one := range page.Failbacks {
				ids = append(ids, one.Id)
			}
			if token = page.NextPageToken; token == "" {
				break
			}
		}
		if got := strings.Join(ids, " "); got != want {
			t.Errorf("pages of %d: %s, want %s", size, got, want)
		}
	}
}

// TestFailbackEvents follows a failback with curl, breaks off, and goes on.
func TestFailbackEvents(t *testing.T) {
	r, f := newController(t, nil)
	r.call("Failbacks/Start", start("fb-1"))
	ctx, cancel := context.WithCancel(t.Context())
	first := r.sseOf(ctx, "/v1/failbacks/events")
	if e := next(t, first, "the snapshot", func(event) bool { return true }); e.kind != "failback" || e.id != "" {
		t.Errorf("inside a snapshot: %+v", e)
	}
	synced := next(t, first, "synced", func(e event) bool { return e.kind == "synced" })
	if synced.id != "1" {
		t.Errorf("synced: %+v", synced)
	}
	s, err := f.Get(ctx, "fb-1")
	if err != nil {
		t.Fatal(err)
	}
	f.live <- s // telemetry has the revision of the last change
	if e := next(t, first, "telemetry", func(event) bool { return true }); e.kind != "progress" || e.id != "" {
		t.Errorf("telemetry: %+v", e)
	}
	cancel()
	r.call("Failbacks/Switch", `{"id":"fb-1","switch":{"when":"WHEN_NOW"}}`)
	r.call("Failbacks/Start", start("fb-2"))
	again := r.sseOf(t.Context(), "/v1/failbacks/events?after="+synced.id)
	for _, id := range []string{"2", "3"} {
		if e := next(t, again, "what was missed", func(event) bool { return true }); e.kind != "failback" || e.id != id {
			t.Errorf("want revision %s: %+v", id, e)
		}
	}
	one := r.sseOf(t.Context(), "/v1/failbacks/events?failback=fb-2&after=3")
	r.call("Failbacks/Commit", `{"id":"fb-1"}`)
	r.call("Failbacks/Commit", `{"id":"fb-2"}`)
	if e := next(t, one, "the one", func(event) bool { return true }); e.id != "5" {
		t.Errorf("another failback: %+v", e)
	}
	for path, status := range map[string]int{"?failback=x": 404, "?job=fb-1": 400, "?after=x": 400, "?failback=" + strings.Repeat("x", 129): 400} {
		if p := r.get("/v1/failbacks/events" + path); p.status != status {
			t.Errorf("%s: %+v", path, p)
		}
	}
	r.stop() // SIGTERM
	if last := next(t, one, "the end", func(e event) bool { return e.kind == "error" }); last.data.Reason != "DRAINING" {
		t.Errorf("the last event: %+v", last)
	}
	r.end()
}

// TestFailbackReset begins anew where a watch cannot be taken up.
func TestFailbackReset(t *testing.T) {
	r, f := newController(t, nil)
	f.revision, f.forgot = 200, true
	r.call("Failbacks/Start", start("fb-1"))
	events := r.sseOf(t.Context(), "/v1/failbacks/events?after=7")
	var kinds []string
	for range 3 {
		kinds = append(kinds, next(t, events, "an event", func(event) bool { return true }).kind)
	}
	if got := strings.Join(kinds, " "); got != "reset failback synced" {
		t.Error(got)
	}
}

// TestFailbacksLost is not ready when a controller's store does not answer.
func TestFailbacksLost(t *testing.T) {
	r, f := newController(t, nil)
	if p := r.get("/readyz"); p.status != 200 {
		t.Errorf("%+v", p)
	}
	f.mu.Lock()
	f.lost = errors.New("failback.db: input/output error")
	f.mu.Unlock()
	if p := r.get("/readyz"); p.status != 503 || strings.TrimSpace(p.body) != "the failback store does not answer" {
		t.Errorf("%+v", p)
	}
}

// FuzzFailbackJSON posts any bytes as a start and as a pair: an answer that is
// JSON comes, always.
func FuzzFailbackJSON(f *testing.F) {
	r, _ := newController(f, nil)
	for _, seed := range []string{
		"", "[]", `{"id":"a"}`, start("a"), `{"id":"a","spec":{"destination":1,"disks":[null],"policy":{},"newTarget":{"place":{}}}}`,
		`{"pair":{"name":"a","disks":[null],"excluded":[null],"former":{}}}`, `{"id":"a","spec":{"destination":1,"switch":{"at":"0001-01-01T00:00:00Z"}}}`,
		`{"id":"a","spec":{"destination":1,"networks":{"a":"\ud800"},"limits":{"windows":[null]}}}`,
	} {
		f.Add([]byte(seed))
	}
	client := r.httpClient()
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, method := range []string{"Start", "PutPair", "Plan", "Switch"} {
			resp, err := client.Post("http://haulback/haulback.v1.Failbacks/"+method, "application/json", bytes.NewReader(body))
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || !json.Valid(text) || resp.StatusCode >= 500 {
				t.Errorf("%s %q: %v %s %q", method, body, err, resp.Status, text)
			}
		}
	})
}
