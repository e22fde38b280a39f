package control

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/haulback/haulback/cmd/internal/control/jobpb"
	"github.com/haulback/haulback/hostctl/job"
)

// TestCurl drives a job from its submit to its end with curl.
func TestCurl(t *testing.T) {
	r := newRig(t, nil)
	first := r.call("Jobs/Submit", spec("nightly-1", "vm"))
	if first.status != 200 || strings.Contains(first.body, "alreadyExisted") {
		t.Fatalf("submit: %+v", first)
	}
	again := r.call("Jobs/Submit", spec("nightly-1", "vm"))
	if again.status != 200 || !strings.Contains(again.body, `"alreadyExisted":true`) {
		t.Fatalf("submit again: %+v", again)
	}
	var got struct {
		Job struct {
			Phase, Owner, SpecDigest string
			Disks                    []struct {
				Outcome struct{ Counters struct{ TotalBytes string } }
			}
		}
	}
	wait(t, "the end of the job", func() bool {
		p := r.get(`/haulback.v1.Jobs/Get?encoding=json&message=%7B%22id%22%3A%22nightly-1%22%7D`)
		if p.status != 200 {
			t.Fatalf("get by GET: %+v", p)
		}
		if err := json.Unmarshal([]byte(p.body), &got); err != nil {
			t.Fatalf("%v: %s", err, p.body)
		}
		return got.Job.Phase == "PHASE_COMPLETED"
	})
	if got.Job.Disks[0].Outcome.Counters.TotalBytes != "1099511627776" {
		t.Errorf("64-bit integers are strings in JSON, got %+v", got)
	}
	if !strings.HasPrefix(got.Job.Owner, "uid ") || len(got.Job.SpecDigest) != 64 {
		t.Errorf("owner %q, digest %q", got.Job.Owner, got.Job.SpecDigest)
	}
	if p := r.call("Jobs/Remove", `{"id":"nightly-1"}`); p.status != 200 {
		t.Errorf("remove: %+v", p)
	}
	if e := r.audited("/haulback.v1.Jobs/Submit", ""); e.Object != "nightly-1" || e.Code != "ok" || e.Caller != got.Job.Owner {
		t.Errorf("audit: %+v", e)
	}
	if e := r.audited("/haulback.v1.Jobs/Remove", ""); e.Object != "nightly-1" {
		t.Errorf("audit: %+v", e)
	}
}

// TestErrors is the table of docs/api.md: every refusal has its code, reason and
// retry class, over a real socket with a real curl.
func TestErrors(t *testing.T) {
	r := newRig(t, nil)
	r.call("Jobs/Submit", spec("taken", "vm"))
	r.call("Jobs/Submit", spec("runs", "hang"))
	for _, c := range []struct {
		name, method, body string
		args               []string
		status             int
		code, reason       string
		retry              job.RetryClass
		text               string
	}{
		{name: "malformed JSON", method: "Jobs/Submit", body: `{"id":`, status: 400, code: "invalid_argument", reason: "INVALID", retry: job.RetryNever, text: "unmarshal"},
		{name: "no JSON at all", method: "Jobs/Submit", body: "", status: 400, code: "invalid_argument", reason: "INVALID", retry: job.RetryNever},
		{name: "a misspelt field", method: "Jobs/Submit", body: `{"id":"x","spec":{"mode":"MODE_COPY","stritc":true}}`, status: 400, code: "invalid_argument", reason: "INVALID", retry: job.RetryNever, text: "stritc"},
		{name: "a wrong type", method: "Jobs/Get", body: `{"id":7}`, status: 400, code: "invalid_argument", reason: "INVALID", retry: job.RetryNever},
		{name: "no id", method: "Jobs/Submit", body: `{}`, status: 400, code: "invalid_argument", reason: "INVALID", retry: job.RetryNever, text: "id:"},
		{name: "no spec", method: "Jobs/Submit", body: `{"id":"x"}`, status: 400, code: "invalid_argument", reason: "INVALID", retry: job.RetryNever, text: "spec:"},
		{name: "no mode", method: "Jobs/Submit", body: `{"id":"x","spec":{"disks":[{}]}}`, status: 400, code: "invalid_argument", reason: "INVALID", retry: job.RetryNever, text: "spec.mode"},
		{name: "no disk", method: "Jobs/Submit", body: `{"id":"x","spec":{"mode":"MODE_COPY"}}`, status: 400, code: "invalid_argument", reason: "INVALID", retry: job.RetryNever, text: "disks"},
		{name: "an id that is none", method: "Jobs/Submit", body: strings.Replace(spec("ID", "vm"), "ID", "../etc", 1), status: 400, code: "invalid_argument", reason: "INVALID", retry: job.RetryNever},
		{name: "too large", method: "Jobs/Submit", body: `{"id":"` + strings.Repeat("x", 1<<20) + `"}`, status: 429, code: "resource_exhausted", reason: "QUOTA", retry: job.RetryNever, text: "1048576"},
		{name: "another spec", method: "Jobs/Submit", body: spec("taken", "other"), status: 409, code: "already_exists", reason: "ALREADY_EXISTS", retry: job.RetryNever, text: "taken"},
		{name: "not found", method: "Jobs/Get", body: `{"id":"absent"}`, status: 404, code: "not_found", reason: "NOT_FOUND", retry: job.RetryNever, text: "absent"},
		{name: "not found to watch", method: "Jobs/Cancel", body: `{"id":"absent"}`, status: 404, code: "not_found", reason: "NOT_FOUND", retry: job.RetryNever},
		{name: "wrong phase", method: "Jobs/Remove", body: `{"id":"runs"}`, status: 400, code: "failed_precondition", reason: "STATE_CONFLICT", retry: job.RetryAfterReconcile},
		{name: "page too large", method: "Jobs/List", body: `{"pageSize":1001}`, status: 400, code: "invalid_argument", reason: "INVALID", retry: job.RetryNever, text: "page_size"},
		{name: "no such page", method: "Jobs/List", body: `{"pageToken":"zz"}`, status: 400, code: "invalid_argument", reason: "INVALID", retry: job.RetryNever},
		{name: "limits not said", method: "Jobs/SetLimits", body: `{"id":"runs"}`, status: 400, code: "invalid_argument", reason: "INVALID", retry: job.RetryNever, text: "limits"},
		{name: "no ticket in it", method: "Jobs/SetTickets", body: `{"id":"runs","tickets":[{"disk":"disk0"}]}`, status: 400, code: "invalid_argument", reason: "INVALID", retry: job.RetryNever, text: "tickets[0]"},
		{name: "no such disk", method: "Endpoint/Probe", body: `{"uri":"/absent"}`, status: 400, code: "invalid_argument", reason: "ENDPOINT_INVALID", retry: job.RetryNever},
		{name: "a bug", method: "Endpoint/Probe", body: `{"uri":"/panic"}`, status: 500, code: "internal", reason: "INTERNAL", retry: job.RetryNever, text: "bug"},
		{name: "a configuration with a mistake", method: "Daemon/Reload", body: `{}`, status: 400, code: "invalid_argument", reason: "INVALID", retry: job.RetryNever, text: "unknown key"},
		{name: "no such method", method: "Jobs/Undo", body: `{}`, status: 501, code: "unimplemented", reason: "UNIMPLEMENTED", retry: job.RetryNever},
		{name: "no such service", method: "Fleet/Drain", body: `{}`, status: 501, code: "unimplemented", reason: "UNIMPLEMENTED", retry: job.RetryNever},
		{name: "a page of another site", method: "Jobs/Get", body: `{"id":"taken"}`, args: []string{"-H", "Origin: https://evil.example"}, status: 403, code: "permission_denied", reason: "AUTH", retry: job.RetryNever},
		{name: "a frame of another site", method: "Jobs/Get", body: `{"id":"taken"}`, args: []string{"-H", "Sec-Fetch-Site: cross-site"}, status: 403, code: "permission_denied", reason: "AUTH", retry: job.RetryNever},
		{name: "out of time", method: "Jobs/Get", body: `{"id":"taken"}`, args: []string{"-H", "Connect-Timeout-Ms: x"}, status: 400, code: "invalid_argument"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := r.call(c.method, c.body, c.args...)
			if c.reason == "" { // what the protocol itself refuses
				if p.status != c.status || !strings.Contains(p.body, c.code) {
					t.Errorf("got %+v", p)
				}
				return
			}
			a, info := p.info(t)
			if p.status != c.status || a.Code != c.code || info.Reason != c.reason || info.Retry != jobpb.FromRetry(c.retry) || info.Domain != "haulback" {
				t.Errorf("got %d %s %v: %s\nwant %d %s %s %v", p.status, a.Code, info, a.Message, c.status, c.code, c.reason, c.retry)
			}
			if !strings.Contains(a.Message, c.text) {
				t.Errorf("message %q does not say %q", a.Message, c.text)
			}
			if c.reason == "ALREADY_EXISTS" {
				if m := info.Metadata; len(m["stored_digest"]) != 64 || len(m["submitted_digest"]) != 64 || m["stored_digest"] == m["submitted_digest"] || m["job_id"] != "taken" {
					t.Errorf("metadata %v", m)
				}
			}
		})
	}
	if p := r.call("Jobs/Get", `{"id":"taken"}`); p.status != 200 {
		t.Errorf("after all that: %+v", p)
	}
}
