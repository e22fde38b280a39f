package record

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
)

// key is a daemon's key, always the same.
type key struct{ private ed25519.PrivateKey }

func newKey(seed byte) key {
	return key{ed25519.NewKeyFromSeed(append([]byte{seed}, make([]byte, 31)...))}
}

func (k key) Public() ed25519.PublicKey { return k.private.Public().(ed25519.PublicKey) }

func (k key) Sign(domain string, message []byte) []byte {
	return ed25519.Sign(k.private, append(append([]byte(domain), 0), message...))
}

type hooks struct{}

func (hooks) Named(step string) []string { return []string{"before: /usr/local/bin/" + step} }

// keeper keeps records in a new directory; its clock stands.
func keeper(t testing.TB, change func(*Config)) *Keeper {
	t.Helper()
	c := Config{
		Dir: filepath.Join(t.TempDir(), "records"), Key: func() (Signer, string, error) { return newKey(1), "SITE-1", nil }, Controller: "home",
		Program: map[string]string{"version": "v1"}, Head: func() (uint64, [32]byte) { return 7, [32]byte{9} }, Hooks: hooks{},
		Clock: func() time.Time { return time.Unix(2000, 5).In(time.FixedZone("CET", 3600)) },
	}
	if change != nil {
		change(&c)
	}
	k, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// committed is a failback that went well.
func committed() *failback.Status {
	at := time.Unix(1000, 0).UTC()
	counters := job.Counters{Total: 1 << 30, Scanned: 1 << 30, Verified: 1 << 30}
	first := failback.Pass{Number: 1, Asked: "hash", Used: "full", Began: at, Ended: at.Add(time.Minute), Counters: counters, Verified: true}
	first.Counters.Durable = 4096
	last := failback.Pass{Number: 2, Final: true, Asked: "hash", Used: "hint", Began: at, Ended: at.Add(time.Minute), Counters: counters, Verified: true, Root: cbt.Digest{3}}
	return &failback.Status{
		ID: "fb-1", Run: "01a2", Owner: "uid 0", Created: at, Ended: at.Add(time.Hour), State: failback.Ready, Activity: failback.Committed,
		Target: hostctl.Ref{Host: "home", Name: "web"},
		Spec:   failback.Spec{VM: "web", Destination: failback.Original},
		Steps:  []failback.Step{{Name: "power-off-target", Number: 1, State: failback.Done, Began: at, Ended: at}},
		Disks: []failback.Disk{
			{Label: "scsi0:0", Target: hostctl.Disk{UUID: "u1", Size: 1 << 30}, Passes: []failback.Pass{first, last}, Verified: true, Root: cbt.Digest{3}},
			{Label: "scsi0:1", Target: hostctl.Disk{UUID: "u2"}, Excluded: true},
		},
		Decisions: []failback.Decision{{What: "start", By: "uid 0", At: at}, {What: "commit", By: "uid 7", At: at}},
	}
}

// write writes s and reads what is there then.
func write(t testing.TB, k *Keeper, s *failback.Status) []byte {
	t.Helper()
	if err := k.Write(context.Background(), s); err != nil {
		t.Fatal(err)
	}
	text, err := k.Read(context.Background(), s.ID)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func parse(t testing.TB, text []byte) *Record {
	t.Helper()
	r, err := Parse(text)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	return r
}

// TestWrite keeps one file for each failback, and a chain of its versions.
func TestWrite(t *testing.T) {
	k := keeper(t, nil)
	s := committed()
	s.State, s.Activity, s.Ended, s.Decisions = failback.Failback, failback.Deciding, time.Time{}, s.Decisions[:1]
	first := write(t, k, s)
	if again := write(t, k, s); string(again) != string(first) {
		t.Errorf("the same again is another version:\n%s\n%s", first, again)
	}
	second := write(t, k, committed())
	r := parse(t, second)
	sum := sha256.Sum256(first)
	if r.Version != 2 || r.Previous != hex.EncodeToString(sum[:]) || !r.Replaces(first) || r.Replaces(second) {
		t.Errorf("version %d after %s", r.Version, r.Previous)
	}
	if r.Schema != 1 || r.Audit.Seq != 7 || r.Audit.Hash[:2] != "09" || r.KeyID != "SITE-1" || !r.PublicKey().Equal(newKey(1).Public()) || !r.Written.Equal(time.Unix(2000, 5)) {
		t.Errorf("%+v", r)
	}
	f := &r.Failback
	if len(f.Overwritten) != 1 || f.Overwritten[0].Bytes != 4096 || f.Overwritten[0].Disk.UUID != "u1" || f.Overwritten[0].VM.Name != "web" {
		t.Errorf("overwritten: %+v", f.Overwritten)
	}
	if len(f.Overrides) != 1 || f.Overrides[0].What != "exclude" || f.Hooks[0].Name != "before: /usr/local/bin/power-off-target" {
		t.Errorf("overrides %+v, hooks %+v", f.Overrides, f.Hooks)
	}
	if list := r.Check(); len(list) != 0 {
		t.Errorf("%+v", list)
	}
	st, err := os.Stat(filepath.Join(k.c.Dir, "fb-1.json"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", st, err)
	}
	if _, err := k.Read(t.Context(), "fb-2"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// TestDamaged puts a record aside that is not whole, and writes another.
func TestDamaged(t *testing.T) {
	k := keeper(t, nil)
	path := filepath.Join(k.c.Dir, "fb-1.json")
	if err := os.WriteFile(path, []byte("half a rec"), 0o600); err != nil {
		t.Fatal(err)
	}
	r := parse(t, write(t, k, committed()))
	if list := r.Check(); r.Version != 1 || len(list) != 1 || !list[0].Note || !strings.Contains(list[0].Text, "damaged") {
		t.Errorf("version %d: %+v", r.Version, list)
	}
	if text, err := os.ReadFile(path + ".damaged"); err != nil || string(text) != "half a rec" {
		t.Errorf("%q %v", text, err)
	}
}

// TestID keeps an ID from being a path.
func TestID(t *testing.T) {
	k := keeper(t, nil)
	for _, id := range []string{"", ".", "..", "../x", "a/b", ".x", "a..b", "x\x00", strings.Repeat("x", 129)} {
		s := committed()
		s.ID = id
		if err := k.Write(t.Context(), s); err == nil {
			t.Errorf("%q is taken", id)
		}
		if _, err := k.Read(t.Context(), id); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v", id, err)
		}
	}
	s := committed()
	s.ID = strings.Repeat("x", 128)
	write(t, k, s)
}

// TestNoKey leaves nothing behind that is not signed.
func TestNoKey(t *testing.T) {
	k := keeper(t, func(c *Config) {
		c.Key = func() (Signer, string, error) { return nil, "", errors.New("site.key: mode 0644") }
	})
	if err := k.Write(t.Context(), committed()); err == nil || !strings.Contains(err.Error(), "site.key") {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := keeper(t, nil).Write(ctx, committed()); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if _, err := k.Read(t.Context(), "fb-1"); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// moment are the fields of a status that a record has no use for.
var moment = []string{"Next", "Wait", "Disks[].Passes[].Rate", "Disks[].Passes[].Left"}

// fill sets every field to a text or a number that is nowhere else, and lists
// the texts by their fields.
func fill(t *testing.T, v reflect.Value, field string, n *int, want map[string]string) {
	t.Helper()
	*n++
	switch {
	case v.Type() == reflect.TypeFor[time.Time]():
		at := time.Unix(int64(1000000+*n), 0).UTC()
		v.Set(reflect.ValueOf(at))
		want[field] = at.Format(time.RFC3339)
	case v.Type() == reflect.TypeFor[time.Duration]():
		v.SetInt(int64(7000000+*n) * int64(time.Millisecond))
		want[field] = fmt.Sprint(7000000 + *n)
	case v.Type() == reflect.TypeFor[cbt.Digest]():
		d := cbt.Digest(sha256.Sum256([]byte(field)))
		v.Set(reflect.ValueOf(d))
		want[field] = hex.EncodeToString(d[:])
	case v.Kind() == reflect.String:
		v.SetString(fmt.Sprintf("text-%d-", *n))
		want[field] = v.String()
	case v.Kind() == reflect.Bool:
		v.SetBool(true)
	case v.CanInt() && v.Type().Size() > 1:
		v.SetInt(int64(5000000 + *n))
		want[field] = fmt.Sprint(v.Int())
	case v.CanUint() && v.Type().Size() > 1:
		v.SetUint(uint64(5000000 + *n))
		want[field] = fmt.Sprint(v.Uint())
	case v.CanInt():
		v.SetInt(1)
	case v.CanUint():
		v.SetUint(1)
	case v.CanFloat():
		v.SetFloat(float64(5000000 + *n))
		want[field] = fmt.Sprint(5000000 + *n)
	case v.Kind() == reflect.Map:
		v.Set(reflect.ValueOf(map[string]string{field: "mapped-" + field}))
		want[field] = "mapped-" + field
	case v.Kind() == reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(t, v.Index(0), field+"[]", n, want)
	case v.Kind() == reflect.Array:
		fill(t, v.Index(0), field+"[]", n, want)
	case v.Kind() == reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), field, n, want)
	case v.Kind() == reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i), strings.TrimPrefix(field+"."+v.Type().Field(i).Name, "."), n, want)
		}
	default:
		t.Fatalf("%s: what is a %v?", field, v.Type())
	}
}

// TestEverything has every field of a status in its record, whoever adds one.
func TestEverything(t *testing.T) {
	var s failback.Status
	want, n := map[string]string{}, 0
	fill(t, reflect.ValueOf(&s).Elem(), "", &n, want)
	s.ID = "fb-9"
	delete(want, "ID")
	text := string(write(t, keeper(t, nil), &s))
	for _, left := range moment {
		for field := range want {
			if strings.HasPrefix(field, left) {
				delete(want, field)
			}
		}
	}
	if len(want) < 120 {
		t.Errorf("%d fields only", len(want))
	}
	for field, value := range want {
		if !strings.Contains(text, value) {
			t.Errorf("%s is not in the record", field)
		}
	}
	for _, word := range []string{"thin", "power_on", "isolated", "full", "no_rollback", "policy_undo", "power_on_unproved", "excluded", "final", "is_verified", "within_budget", "exclude"} {
		if !strings.Contains(text, `"`+word+`":true`) {
			t.Errorf("%s is not in the record", word)
		}
	}
}

// TestChanged refuses a record of which any byte is another, or any end is
// missing.
func TestChanged(t *testing.T) {
	text := write(t, keeper(t, nil), committed())
	for i := range text {
		if _, err := Parse(text[:i]); err == nil {
			t.Fatalf("the first %d bytes are a record", i)
		}
		x := []byte{1, 0x20, 0x80}[i%3]
		other := append([]byte{}, text...)
		other[i] ^= x
		if _, err := Parse(other); err == nil {
			t.Fatalf("byte %d ^ %#x: nobody noticed", i, x)
		}
	}
	for name, change := range map[string]func(string) string{
		"a blank":             func(s string) string { return strings.Replace(s, `"owner":`, `"owner": `, 1) },
		"a field twice":       func(s string) string { return strings.Replace(s, `"schema":1`, `"schema":1,"schema":1`, 1) },
		"an unknown field":    func(s string) string { return strings.Replace(s, `"schema":1`, `"schema":1,"x":1`, 1) },
		"a field in capitals": func(s string) string { return strings.Replace(s, `"owner"`, `"Owner"`, 1) },
		"capital digits": func(s string) string {
			i := strings.Index(s, signatureHead) + len(signatureHead)
			return s[:i] + strings.ToUpper(s[i:i+128]) + s[i+128:]
		},
		"more behind it": func(s string) string { return s + "\n" },
		"another owner":  func(s string) string { return strings.Replace(s, `"owner":"uid 0"`, `"owner":"uid 1"`, 1) },
		"another key": func(s string) string {
			return strings.Replace(s, hex.EncodeToString(newKey(1).Public()), hex.EncodeToString(newKey(2).Public()), 1)
		},
	} {
		other := change(string(text))
		if _, err := Parse([]byte(other)); other == string(text) || !errors.Is(err, ErrFormat) && !errors.Is(err, ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
	}
	newer := strings.Replace(string(text), `"schema":1`, `"schema":2,"more":1`, 1)
	if _, err := Parse([]byte(newer)); !errors.Is(err, ErrSchema) {
		t.Error(err)
	}
}

// TestNotUTF8 writes what a host said although it is not UTF-8.
func TestNotUTF8(t *testing.T) {
	s := committed()
	s.Steps[0].Text, s.Warnings = "web\xff<&>\u2028", []string{"\x00"}
	if r := parse(t, write(t, keeper(t, nil), s)); r.Failback.Steps[0].Text != "web\uFFFD<&>\u2028" {
		t.Errorf("%q", r.Failback.Steps[0].Text)
	}
}

// TestForeign checks a signature with nothing but doc.go, Python and OpenSSL.
func TestForeign(t *testing.T) {
	k := keeper(t, nil)
	text := write(t, k, committed())
	path := filepath.Join(k.c.Dir, "fb-1.json")
	check := func() (string, error) {
		out, err := exec.CommandContext(t.Context(), "/usr/bin/python3", "testdata/verify.py", path).CombinedOutput()
		return string(out), err
	}
	if out, err := check(); err != nil || !strings.Contains(out, "good, committed by uid 7") {
		t.Fatalf("%v %s; it needs python3 and openssl", err, out)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), "uid 7", "uid 8", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := check(); err == nil || !strings.Contains(out, "WRONG") {
		t.Errorf("%v %s", err, out)
	}
}
