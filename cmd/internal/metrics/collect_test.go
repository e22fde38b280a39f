package metrics

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

// busy is a daemon of which everything is to be told, and whose VMs have the
// names that nobody hopes for.
func busy() Sources {
	open := func(vm string, halted *failback.Halt) failback.Status {
		return failback.Status{
			Spec: failback.Spec{VM: vm}, Activity: failback.Syncing, Halted: halted, Forecast: failback.Forecast{Downtime: time.Minute},
			Disks: []failback.Disk{{Passes: []failback.Pass{{Counters: job.Counters{Total: 100, Scanned: 40}}}}},
		}
	}
	halt := &failback.Halt{Step: "pass-1", Reason: "HOST_UNAVAILABLE"}
	return Sources{
		Engine: func() mover.Stats {
			s := mover.Stats{
				Ended: map[mover.Ending]uint64{{Code: 999}: 3, {Other: true}: 4, {Code: wire.CodeDiskLost}: 5}, Retries: map[wire.Code]uint64{wire.CodeTimeout: 7},
				Links: []mover.LinkUse{{Transport: "quic", Links: 2, RTT: 50 * time.Millisecond}}, Memory: 1, MemoryLimit: 2,
			}
			for _, h := range []mover.Half{{}, {Verify: true}, {Target: true}, {Target: true, Verify: true}} {
				w := mover.Work{Half: h}
				w.Times[mover.TimeRead].Counts = [20]uint64{0: 1, 4: 2, 19: 1}
				w.Times[mover.TimeRead].Sum = 30 * time.Second
				s.Work = append(s.Work, w)
			}
			return s
		},
		Daemon: func() Daemon {
			now := time.Unix(1e9, 0)
			return Daemon{Looped: now, Configured: now, CertificateEnds: now, Packets: &wire.PacketStats{GRO: "on", Overflowed: 9}, Targets: map[wire.State]int{wire.StatePoisoned: 1}}
		},
		Jobs: func(context.Context) (Jobs, error) { return Jobs{Active: []job.Job{{ID: "nightly \"1\"\n"}}}, nil },
		Failbacks: func(context.Context) (Failbacks, error) {
			long := strings.Repeat("v", 200)
			return Failbacks{Open: []failback.Status{open("web\n\"} 1\xff", halt), open(long+"1", halt), open(long+"2", halt)}}, nil
		},
		OpenStorage: func() OpenStorage {
			return OpenStorage{Calls: map[hostctl.Call]uint64{{To: "px", Method: "Attach", Class: "no space"}: 1}, Rows: 2, Left: 1}
		},
		VSphere: func() map[hostctl.Call]uint64 {
			return map[hostctl.Call]uint64{{To: "dr", Method: "PowerOffVM_Task", Class: "ok"}: 1}
		},
	}
}

// TestFamilies: every metric of the table is told by a busy daemon and no other
// is, names are conventional, and what comes from outside breaks nothing.
func TestFamilies(t *testing.T) {
	r := Registry(busy())
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, f := range Families {
		want = append(want, f.Name)
	}
	for _, f := range families {
		if strings.HasPrefix(f.GetName(), "haulback_") {
			got = append(got, f.GetName())
			i := slices.IndexFunc(Families[:], func(x Family) bool { return x.Name == f.GetName() })
			if i >= 0 && !strings.EqualFold(f.GetType().String(), Families[i].Kind) {
				t.Errorf("%s is a %v, the table says %s", f.GetName(), f.GetType(), Families[i].Kind)
			}
		}
	}
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("a busy daemon tells\n%v\nthe table has\n%v", got, want)
	}
	problems, err := testutil.GatherAndLint(r)
	if err != nil || len(problems) > 0 {
		t.Errorf("lint: %v %v", problems, err)
	}
	text := scraped(t, Handler(r, slog.New(slog.DiscardHandler)))
	for _, want := range []string{
		`haulback_failback_halted{reason="HOST_UNAVAILABLE",step="pass-1",vm="web\n\"} 1?"} 1` + "\n",
		`haulback_job_scanned_bytes{job="nightly \"1\"\n"} 0` + "\n",
		`haulback_passes_ended_total{mode="copy",result="other",side="source"} `,
		`haulback_passes_ended_total{mode="verify",result="verify",side="target"} 0` + "\n",
		`haulback_io_duration_seconds_bucket{call="read",side="source",le="0.001024"} 6` + "\n",
		`haulback_io_duration_seconds_bucket{call="read",side="source",le="+Inf"} 8` + "\n",
		`haulback_io_duration_seconds_sum{call="read",side="source"} 60` + "\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("a scrape has no %q", want)
		}
	}
	if n := strings.Count(text, "haulback_failback_halted{"); n != 2 {
		t.Errorf("%d VMs are halted, two of three names are cut to the same: want 2", n)
	}
}

func scraped(t *testing.T, h http.Handler) string {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://127.0.0.1/metrics", nil))
	if w.Code != http.StatusOK {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

// TestStoreDown: a store that does not answer is told, and all the rest.
func TestStoreDown(t *testing.T) {
	s := busy()
	s.Jobs = func(context.Context) (Jobs, error) { return Jobs{}, errors.New("store is broken") }
	text := scraped(t, Handler(Registry(s), slog.New(slog.DiscardHandler)))
	for _, want := range []string{"\nhaulback_store_up{store=\"jobs\"} 0\n", "\nhaulback_store_up{store=\"failbacks\"} 1\n", "\nhaulback_sessions 0\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q", want)
		}
	}
	if strings.Contains(text, "haulback_jobs{") {
		t.Error("jobs are told that nobody knows")
	}
}

// TestPort: plain HTTP has metrics and nothing else, and no page of a browser
// gets them.
func TestPort(t *testing.T) {
	p, err := Listen(t.Context(), "127.0.0.1:0", Handler(Registry(busy()), slog.New(slog.DiscardHandler)), slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- p.Serve(ctx) }()
	_, port, _ := net.SplitHostPort(p.Addr().String())
	for _, c := range []struct {
		name, method, path, host, site string
		want                           int
	}{
		{"Prometheus", "GET", Path, "", "", 200},
		{"by name", "GET", Path, "localhost:" + port, "", 200},
		{"another path", "GET", "/", "", "", 404},
		{"it changes nothing", "POST", Path, "", "", 405},
		{"a name that resolves to us", "GET", Path, "evil.example:" + port, "", 403},
		{"a page", "GET", Path, "", "cross-site", 403},
	} {
		req, err := http.NewRequestWithContext(ctx, c.method, "http://"+p.Addr().String()+c.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.host != "" {
			req.Host = c.host
		}
		if c.site != "" {
			req.Header.Set("Sec-Fetch-Site", c.site)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("%s: %s, want %d", c.name, resp.Status, c.want)
		}
	}
	cancel()
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if err := p.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}
