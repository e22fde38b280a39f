package failbackpb

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// words are values of the types that are not any text or number.
var words = map[reflect.Type][]any{
	reflect.TypeFor[failback.Destination](): {failback.Original, failback.Existing, failback.New},
	reflect.TypeFor[failback.FirstPass]():   {failback.FirstHash, failback.FirstCBT},
	reflect.TypeFor[failback.When]():        {failback.WhenNow, failback.WhenAt, failback.WhenManual},
	reflect.TypeFor[failback.State]():       {failback.Ready, failback.Failover, failback.ReadyToSwitch, failback.Failback},
	reflect.TypeFor[failback.Activity](): {
		failback.Waiting, failback.Preparing, failback.Syncing, failback.Standing, failback.Switching, failback.Deciding,
		failback.Committing, failback.Undoing, failback.Canceling, failback.Committed, failback.Undone, failback.Canceled,
	},
	reflect.TypeFor[failback.StepState](): {failback.Intent, failback.Done, failback.Skipped, failback.Compensating, failback.Compensated},
	reflect.TypeFor[hostctl.Power]():      {hostctl.Off, hostctl.On, hostctl.Suspended},
	reflect.TypeFor[job.Priority]():       {job.Low, job.Normal, job.High},
	reflect.TypeFor[job.RetryClass]():     {job.RetryNever, job.RetryBackoff, job.RetryAfterReconcile},
}

// fill sets every field of v to something that is not zero, and fails at what it
// does not know: a field that is added fails the test until it is translated.
func fill(t *testing.T, r *rand.Rand, v reflect.Value) {
	t.Helper()
	if list := words[v.Type()]; list != nil {
		v.Set(reflect.ValueOf(list[r.IntN(len(list))]))
		return
	}
	if v.Type() == reflect.TypeFor[time.Time]() {
		v.Set(reflect.ValueOf(time.Unix(r.Int64N(1<<33), r.Int64N(1e9)).UTC()))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(fmt.Sprint("text ", r.IntN(1e6)))
	case reflect.Bool:
		v.SetBool(r.IntN(4) > 0)
	case reflect.Int64:
		v.SetInt(1 + r.Int64N(1<<62))
	case reflect.Int, reflect.Int32:
		v.SetInt(1 + r.Int64N(1<<30))
	case reflect.Uint64, reflect.Uint32, reflect.Uint8:
		v.SetUint(1 + r.Uint64N(1<<min(63, v.Type().Bits())-1))
	case reflect.Float64:
		v.SetFloat(r.Float64() + 1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1+r.IntN(3), 3))
		fallthrough
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
	case reflect.Func: // Op.Started: of this process alone
	default:
		t.Fatalf("what is a %v?", v.Type())
	}
}

// over sends a message there, as binary and as JSON.
func over[M proto.Message](t *testing.T, m M) (all []M) {
	t.Helper()
	binary, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	text, err := protojson.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	for _, read := range []func(M) error{
		func(m M) error { return proto.Unmarshal(binary, m) },
		func(m M) error { return protojson.Unmarshal(text, m) },
	} {
		back := m.ProtoReflect().New().Interface().(M)
		if err := read(back); err != nil {
			t.Fatal(err)
		}
		all = append(all, back)
	}
	return all
}

// roundTrip loses nothing of a T.
func roundTrip[T any, M proto.Message](t *testing.T, r *rand.Rand, from func(*T) M, to func(M) (T, error)) {
	t.Helper()
	var want T
	fill(t, r, reflect.ValueOf(&want).Elem())
	for i, m := range over(t, from(&want)) {
		got, err := to(m)
		if err != nil {
			t.Fatalf("%T: %v", want, err)
		}
		if at := differ(reflect.ValueOf(got), reflect.ValueOf(want), fmt.Sprintf("%T", want)); at != "" {
			t.Fatalf("as %s: %s", []string{"binary", "JSON"}[i], at)
		}
	}
}

// differ names the first field in which two values are not equal.
func differ(got, want reflect.Value, at string) string {
	if reflect.DeepEqual(got.Interface(), want.Interface()) {
		return ""
	}
	switch {
	case got.Kind() == reflect.Struct && got.NumField() > 0 && got.Type().Field(0).IsExported():
		for i := range got.NumField() {
			if d := differ(got.Field(i), want.Field(i), at+"."+got.Type().Field(i).Name); d != "" {
				return d
			}
		}
	case got.Kind() == reflect.Slice && got.Len() == want.Len():
		for i := range got.Len() {
			if d := differ(got.Index(i), want.Index(i), fmt.Sprintf("%s[%d]", at, i)); d != "" {
				return d
			}
		}
	case got.Kind() == reflect.Pointer && !got.IsNil() && !want.IsNil():
		return differ(got.Elem(), want.Elem(), at)
	}
	return fmt.Sprintf("%s is %+v, and was %+v", at, got, want)
}

// read makes a value of a pointer.
func read[M, T any](f func(M) (*T, error)) func(M) (T, error) {
	return func(m M) (out T, err error) {
		p, err := f(m)
		if err == nil {
			out = *p
		}
		return out, err
	}
}

// TestRoundTrip loses no field of what the package failback tells, whoever adds
// one.
func TestRoundTrip(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	for range 100 {
		roundTrip(t, r, FromSpec, func(m *controlv1.FailbackSpec) (failback.Spec, error) { return ToSpec("spec", m) })
		roundTrip(t, r, FromPair, func(m *controlv1.Pair) (failback.Pair, error) { return ToPair("pair", m) })
		roundTrip(t, r, FromStatus, read(ToStatus))
		roundTrip(t, r, FromPlan, read(ToPlan))
		roundTrip(t, r, func(l *failback.Leftover) *controlv1.Leftover { return FromLeftover(*l) },
			func(m *controlv1.Leftover) (failback.Leftover, error) { return ToLeftover(m), nil })
	}
}

// TestZero translates nothing to nothing, and what a peer leaves out to no
// panic.
func TestZero(t *testing.T) {
	if got, err := ToSpec("spec", FromSpec(&failback.Spec{})); err != nil || !reflect.DeepEqual(got, failback.Spec{}) {
		t.Errorf("spec: %+v %v", got, err)
	}
	if got, err := ToStatus(FromStatus(&failback.Status{})); err != nil || !reflect.DeepEqual(*got, failback.Status{}) {
		t.Errorf("status: %+v %v", got, err)
	}
	if got, err := ToPair("pair", FromPair(&failback.Pair{})); err != nil || !reflect.DeepEqual(got, failback.Pair{}) {
		t.Errorf("pair: %+v %v", got, err)
	}
	if got, err := ToPlan(FromPlan(&failback.Plan{})); err != nil || !reflect.DeepEqual(*got, failback.Plan{}) {
		t.Errorf("plan: %+v %v", got, err)
	}
	_, err := ToStatus(&controlv1.Failback{
		Spec: &controlv1.FailbackSpec{}, Steps: []*controlv1.FailbackStep{nil}, Disks: []*controlv1.FailbackDisk{nil, {Passes: []*controlv1.FailbackPass{nil}}},
		Decisions: []*controlv1.Decision{nil},
	})
	if err != nil {
		t.Error(err)
	}
	plan, err := ToPlan(&controlv1.FailbackPlan{
		Disks: []*controlv1.PlanDisk{nil}, Actions: []*controlv1.PlanAction{nil}, Problems: []*controlv1.Problem{nil},
		Replica: &controlv1.Vm{Snapshots: []*controlv1.VmSnapshot{nil}, Disks: []*controlv1.VirtualDisk{nil}, Nics: []*controlv1.Nic{nil}},
	})
	if err != nil || plan.Disks[0].Differing >= 0 {
		t.Errorf("%+v %v; what nobody measured is not 0", plan, err)
	}
	ToLeftover(nil)
	for _, none := range []error{second(ToStatus(nil)), second(ToPlan(nil)), second(ToSpec("spec", nil)), second(ToPair("pair", nil))} {
		if none == nil {
			t.Error("nothing at all is taken for something")
		}
	}
}

func second[T any](_ T, err error) error { return err }

// TestRefused names the field of what cannot be understood.
func TestRefused(t *testing.T) {
	for field, m := range map[string]*controlv1.FailbackSpec{
		"spec.destination":                {Destination: 99},
		"spec.tracking":                   {Tracking: 99},
		"spec.priority":                   {Priority: 99},
		"spec.switch.when":                {Switch: &controlv1.SwitchSpec{When: 99}},
		"spec.switch.at":                  {Switch: &controlv1.SwitchSpec{At: &timestamppb.Timestamp{Nanos: -1}}},
		"spec.switch.budget":              {Switch: &controlv1.SwitchSpec{Budget: &durationpb.Duration{Seconds: 1 << 40}}},
		"spec.grace":                      {Grace: &durationpb.Duration{Seconds: 1, Nanos: -1}},
		"spec.policy.after":               {Policy: &controlv1.FailbackPolicy{After: &durationpb.Duration{Seconds: 1 << 50}}},
		"spec.disks[1]":                   {Disks: []*controlv1.DiskRule{{}, nil}},
		"spec.limits.latency":             {Limits: &controlv1.Limits{Latency: &durationpb.Duration{Seconds: 1, Nanos: -1}}},
		"spec: 257 disks or networks, 25": {Disks: make([]*controlv1.DiskRule, 257)},
	} {
		_, err := ToSpec("spec", m)
		if f, ok := err.(*job.Failure); !ok || f.Reason != job.ReasonInvalid || !strings.HasPrefix(f.Text, field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	if _, err := ToPair("pair", &controlv1.Pair{State: 99}); err == nil {
		t.Error("a state that nobody knows")
	}
	if _, err := ToStatus(&controlv1.Failback{Spec: &controlv1.FailbackSpec{}, Disks: []*controlv1.FailbackDisk{{Root: "xy"}}}); err == nil {
		t.Error("a digest that is none")
	}
}

// TestMended sends what a host said although it is not UTF-8.
func TestMended(t *testing.T) {
	const raw = "web\xff"
	vm := hostctl.VM{Ref: hostctl.Ref{Name: raw}, Marks: map[string]string{raw: raw}, Disabled: []string{raw}, Disks: []hostctl.Disk{{File: raw}}}
	plan := FromPlan(&failback.Plan{Replica: vm, Target: &vm, Warnings: []string{raw}})
	if got := plan.Target; got.Ref.Name != "web\uFFFD" || got.Marks["web\uFFFD"] != "web\uFFFD" || got.Disabled[0] != "web\uFFFD" || got.Disks[0].File != "web\uFFFD" {
		t.Errorf("%v", got)
	}
	for _, m := range []proto.Message{
		plan,
		FromStatus(&failback.Status{Steps: []failback.Step{{Text: raw}}, Halted: &failback.Halt{Text: raw}, Spec: failback.Spec{Networks: map[string]string{raw: raw}}}),
		FromPair(&failback.Pair{Former: &hostctl.Ref{Name: raw}}),
		FromLeftover(failback.Leftover{Error: raw}),
	} {
		if _, err := proto.Marshal(m); err != nil {
			t.Error(err)
		}
	}
}
