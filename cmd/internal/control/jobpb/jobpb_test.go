package jobpb

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect/v2"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/hostctl/job"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// fill sets every field of v to something that is not zero, and lists what it
// does not know: a field that is added to a job fails the test until it is
// translated.
func fill(t *testing.T, r *rand.Rand, v reflect.Value) {
	t.Helper()
	switch v.Interface().(type) {
	case time.Time:
		v.Set(reflect.ValueOf(time.Unix(r.Int64N(1<<33), r.Int64N(1e9)).UTC()))
		return
	case job.Phase:
		v.Set(reflect.ValueOf(job.New + job.Phase(r.IntN(int(job.Paused)))))
		return
	case job.Mode:
		v.Set(reflect.ValueOf([]job.Mode{job.Copy, job.Verify}[r.IntN(2)]))
		return
	case job.Priority:
		v.Set(reflect.ValueOf(job.Priority(r.IntN(3) - 1)))
		return
	case job.RetryClass:
		v.Set(reflect.ValueOf(job.RetryClass(1 + r.IntN(3))))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprint("text ", r.IntN(1e6)))
	case reflect.Bool:
		v.SetBool(r.IntN(4) > 0)
	case reflect.Int64:
		v.SetInt(1 + r.Int64N(1<<62))
	case reflect.Int:
		v.SetInt(1 + r.Int64N(1<<30))
	case reflect.Uint64:
		v.SetUint(1 + r.Uint64N(1<<63))
	case reflect.Uint8:
		v.SetUint(1 + r.Uint64N(255))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1+r.IntN(3), 3))
		for i := range v.Len() {
			fill(t, r, v.Index(i))
		}
	case reflect.Array:
		for i := range v.Len() {
			fill(t, r, v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{fmt.Sprint(r.Int()): "x", "y": fmt.Sprint(r.Int())}))
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, r, v.Elem())
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, r, v.Field(i))
		}
	default:
		t.Fatalf("what is a %v?", v.Type())
	}
}

// TestRoundTrip loses nothing of a job, neither as binary nor as JSON.
func TestRoundTrip(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	r := rand.New(rand.NewPCG(seed, 1))
	for range 300 {
		var j job.Job
		fill(t, r, reflect.ValueOf(&j).Elem())
		m := FromJob(&j)
		binary, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		text, err := protojson.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		for name, read := range map[string]func(*controlv1.Job) error{
			"binary": func(m *controlv1.Job) error { return proto.Unmarshal(binary, m) },
			"JSON":   func(m *controlv1.Job) error { return protojson.Unmarshal(text, m) },
		} {
			back := new(controlv1.Job)
			if err := read(back); err != nil {
				t.Fatal(err)
			}
			got, err := ToJob(back)
			if err != nil {
				t.Fatalf("%s, seed %d: %v", name, seed, err)
			}
			if !reflect.DeepEqual(got, &j) {
				t.Fatalf("%s, seed %d:\n got %+v\nwant %+v", name, seed, got, &j)
			}
		}
	}
}

// TestZero translates nothing to nothing.
func TestZero(t *testing.T) {
	spec := &controlv1.JobSpec{Mode: controlv1.Mode_MODE_COPY}
	got, err := ToJob(&controlv1.Job{Spec: spec, Disks: []*controlv1.DiskStatus{nil, {}}})
	if err != nil {
		t.Fatal(err)
	}
	want := &job.Job{Spec: job.Spec{Mode: job.Copy}, Disks: make([]job.DiskStatus, 2)}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	FromJob(&job.Job{}) // no panic
	const raw = "/dev/\xff"
	j := &job.Job{Failure: &job.Failure{Text: raw}, Disks: []job.DiskStatus{{Outcome: job.Outcome{TrackingReason: raw, SourceIdentity: raw, TargetIdentity: raw}}}}
	if _, err := proto.Marshal(FromJob(j)); err != nil {
		t.Errorf("a path that is not UTF-8 hides a job: %v", err)
	}
	if _, err := ToJob(nil); err == nil {
		t.Error("no job at all")
	}
}

// TestNumbers holds the enums that are only converted to equal numbers.
func TestNumbers(t *testing.T) {
	for p := job.New; p <= job.Paused; p++ {
		name := strings.ReplaceAll(strings.TrimPrefix(FromPhase(p).String(), "PHASE_"), "_", "")
		if !strings.EqualFold(name, p.String()) {
			t.Errorf("phase %v is %v in the API", p, FromPhase(p))
		}
	}
	for c, want := range map[job.RetryClass]controlv1.Retry{job.RetryNever: never, job.RetryBackoff: backoff, job.RetryAfterReconcile: reconcile, 99: 0} {
		if got := FromRetry(c); got != want {
			t.Errorf("retry class %d is %v", c, got)
		}
	}
	for d := time.Sunday; d <= time.Saturday; d++ {
		m := fromWeekday(d)
		if back, err := toWeekday("", m); err != nil || back != d || m.String() != "WEEKDAY_"+strings.ToUpper(d.String()) {
			t.Errorf("%v is %v and %v again, %v", d, m, back, err)
		}
	}
}

// TestUnknown refuses what it does not understand and names the field.
func TestUnknown(t *testing.T) {
	good := func() *controlv1.JobSpec {
		return &controlv1.JobSpec{Mode: controlv1.Mode_MODE_COPY, Disks: []*controlv1.JobDisk{{}}, Limits: &controlv1.Limits{Windows: []*controlv1.LimitWindow{{}}}}
	}
	for _, c := range []struct {
		field string
		do    func(*controlv1.JobSpec)
	}{
		{"spec.mode: it is missing", func(s *controlv1.JobSpec) { s.Mode = 0 }},
		{"spec.mode: this daemon does not know the value 99", func(s *controlv1.JobSpec) { s.Mode = 99 }},
		{"spec.mode", func(s *controlv1.JobSpec) { s.Mode = -1 }},
		{"spec.priority", func(s *controlv1.JobSpec) { s.Priority = 4 }},
		{"spec.disks[0]", func(s *controlv1.JobSpec) { s.Disks[0] = nil }},
		{"spec.disks", func(s *controlv1.JobSpec) { s.Disks = make([]*controlv1.JobDisk, 257) }},
		{"spec.retry", func(s *controlv1.JobSpec) { s.Retry = &durationpb.Duration{Seconds: 1, Nanos: -1} }},
		{"spec.retry", func(s *controlv1.JobSpec) { s.Retry = &durationpb.Duration{Seconds: 300000000000} }},
		{"spec.limits.latency", func(s *controlv1.JobSpec) { s.Limits.Latency = &durationpb.Duration{Seconds: -300000000000} }},
		{"spec.limits.windows[0]", func(s *controlv1.JobSpec) { s.Limits.Windows[0] = nil }},
		{"spec.limits.windows[0].days", func(s *controlv1.JobSpec) { s.Limits.Windows[0].Days = []controlv1.Weekday{0} }},
		{"spec.limits.windows[0].days", func(s *controlv1.JobSpec) { s.Limits.Windows[0].Days = []controlv1.Weekday{8} }},
		{"spec.limits.windows", func(s *controlv1.JobSpec) { s.Limits.Windows = make([]*controlv1.LimitWindow, 257) }},
	} {
		s := good()
		if _, err := ToSpec("spec", s); err != nil {
			t.Fatal(err)
		}
		c.do(s)
		_, err := ToSpec("spec", s)
		f, ok := errors.AsType[*job.Failure](err)
		if !ok || f.Reason != job.ReasonInvalid || !strings.HasPrefix(f.Text, c.field) {
			t.Errorf("%s: %v", c.field, err)
		}
	}
	if _, err := ToSpec("spec", nil); err == nil {
		t.Error("no spec at all")
	}
	if _, err := ToJob(&controlv1.Job{Spec: good(), SpecDigest: "xy"}); err == nil {
		t.Error("a digest that is none")
	}
}

// reasons are all that there are.
func reasons() []string {
	return []string{
		job.ReasonInternal, job.ReasonInvalid, job.ReasonNotFound, job.ReasonConflict, job.ReasonExists, job.ReasonAuth, job.ReasonFenced, job.ReasonBusy,
		job.ReasonUnavailable, job.ReasonEndpoint, job.ReasonTooSmall, job.ReasonChecksum, job.ReasonCBT, job.ReasonBase, job.ReasonSource, job.ReasonStorage,
		job.ReasonNoSpace, job.ReasonIncomplete, job.ReasonCanceled, job.ReasonDraining, job.ReasonQuota, job.ReasonEngine, ReasonDeadline, ReasonUnimplemented,
	}
}

// TestErrors takes every reason to a caller and back.
func TestErrors(t *testing.T) {
	for _, reason := range reasons() {
		k := kindOf(reason)
		if reason != job.ReasonInternal && k.code == connect.CodeInternal || k.retry == 0 {
			t.Errorf("%s has no place in the table: %v", reason, k)
		}
		for _, retry := range []job.RetryClass{0, job.RetryNever, job.RetryBackoff, job.RetryAfterReconcile} {
			e := FromError(fmt.Errorf("disk scsi0:1: %w", &job.Failure{Reason: reason, Text: "text", Retry: retry}))
			back := Refusal(e)
			want := retry
			if retry == 0 {
				want = job.RetryClass(k.retry)
			}
			if e.Code() != k.code || back.Reason != reason || back.Text != "text" || back.Retry != want || back.Exit == 0 {
				t.Errorf("%s %v: %v, %+v", reason, retry, e, back)
			}
		}
	}
	for _, c := range []struct {
		err    error
		code   connect.Code
		reason string
	}{
		{context.DeadlineExceeded, connect.CodeDeadlineExceeded, ReasonDeadline},
		{context.Canceled, connect.CodeCanceled, job.ReasonCanceled},
		{errors.New("x"), connect.CodeInternal, job.ReasonInternal},
		{errors.New("not UTF-8 \xff"), connect.CodeInternal, job.ReasonInternal},
		{connect.NewError(connect.CodeInvalidArgument, "unmarshal"), connect.CodeInvalidArgument, job.ReasonInvalid},
		{connect.NewError(connect.CodeResourceExhausted, "too large"), connect.CodeResourceExhausted, job.ReasonQuota},
	} {
		e := FromError(c.err)
		info, ok := Info(e)
		if e.Code() != c.code || !ok || info.Reason != c.reason || info.Domain != Domain {
			t.Errorf("%v: %v, %v", c.err, e, info)
		}
	}
	if FromError(nil) != nil {
		t.Error("no error is an error")
	}
	exists := FromError(&job.ExistsError{ID: "a", Have: cbt.Digest{1}, Asked: cbt.Digest{2}})
	if info, _ := Info(exists); exists.Code() != connect.CodeAlreadyExists || info.Metadata["stored_digest"][:2] != "01" || info.Metadata["submitted_digest"][:2] != "02" {
		t.Errorf("%v %v", exists, info)
	}
}

// TestTable holds the table of docs/api.md to what callers get.
func TestTable(t *testing.T) {
	text, err := os.ReadFile("../../../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	row := regexp.MustCompile("(?m)^\\| (`[A-Z_`, ]+`) \\| ([a-z_]+) \\| [0-9]+ \\| ([A-Z_]+) \\|")
	seen := map[string]bool{}
	for _, m := range row.FindAllStringSubmatch(string(text), -1) {
		for _, reason := range strings.Split(strings.ReplaceAll(m[1], "`", ""), ", ") {
			k := kindOf(reason)
			if k.code.String() != m[2] || k.retry.String() != "RETRY_"+m[3] {
				t.Errorf("%s is %v %v, the table says %s %s", reason, k.code, k.retry, m[2], m[3])
			}
			seen[reason] = true
		}
	}
	for _, reason := range reasons() {
		if !seen[reason] {
			t.Errorf("%s is not in the table", reason)
		}
	}
}

// TestEvents makes rates of counters, and forgets what does not run.
func TestEvents(t *testing.T) {
	var s Events
	at := time.Unix(1000, 0)
	tell := func(after time.Duration, scanned int64) *controlv1.DiskProgress {
		m := s.From(&job.Event{Kind: job.Telemetry, Time: at.Add(after), Job: job.Job{ID: "a"}, Counters: []job.DiskCounters{{Disk: "d", Counters: job.Counters{Total: 1000, Scanned: scanned}}}})
		return m.GetProgress().Disks[0]
	}
	if p := tell(0, 100); p.ScanRateBytes != 0 || p.Remaining != nil {
		t.Errorf("of one sample: %v", p)
	}
	if p := tell(2*time.Second, 300); p.ScanRateBytes != 100 || p.Remaining.AsDuration() != 7*time.Second {
		t.Errorf("of two samples: %v", p)
	}
	if p := tell(2*time.Second, 300); p.ScanRateBytes != 0 && p.ScanRateBytes != 100 {
		t.Errorf("in no time: %v", p)
	}
	if p := tell(3*time.Second, 10); p.ScanRateBytes < 0 {
		t.Errorf("a disk that began anew: %v", p)
	}
	s.From(&job.Event{Kind: job.Changed, Job: job.Job{ID: "a", Phase: job.Completed}})
	if len(s.seen) != 0 {
		t.Errorf("still remembered: %v", s.seen)
	}
	if m := s.From(&job.Event{Kind: 99}); m != nil {
		t.Errorf("a kind of event that the API does not have: %v", m)
	}
}

// TestFailbackReasons holds the table of failbacks in docs/api.md to the
// constants of package failback, by its source.
func TestFailbackReasons(t *testing.T) {
	text, err := os.ReadFile("../../../../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(text), "| reason of a failback | when |\n")
	table, _, _ = strings.Cut(table, "\n\n")
	told := map[string]bool{}
	for _, row := range strings.Split(table, "\n") {
		first, _, _ := strings.Cut(strings.TrimPrefix(row, "| "), " |")
		for _, reason := range regexp.MustCompile("`([A-Z_]+)`").FindAllStringSubmatch(first, -1) {
			told[reason[1]] = true
		}
	}
	source, err := os.ReadFile("../../../../hostctl/failback/reason.go")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^\tReason\w+\s+= "([A-Z_]+)"`).FindAllStringSubmatch(string(source), -1) {
		known[m[1]] = true
		if !told[m[1]] {
			t.Errorf("%s is not in the table", m[1])
		}
	}
	for reason := range told {
		if !known[reason] {
			t.Errorf("%s is in the table, and no reason", reason)
		}
	}
	if !known[reasonUnknownVM] || !known[reasonUnknownFailback] {
		t.Error("what has a code of its own is no reason")
	}
}
