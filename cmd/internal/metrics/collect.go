package metrics

import (
	"context"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/failback"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

// collector makes the metrics of one scrape.
type collector struct {
	Sources
	descs map[string]*prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), scrapeTime) // the library has none for us
	defer cancel()
	o := &out{collector: c, ch: ch, said: make(map[string]bool)}
	o.daemon(c.Daemon())
	o.engine(c.Engine())
	jobs, err := c.Jobs(ctx)
	o.gauge("haulback_store_up", one(err == nil), "jobs")
	if err == nil {
		o.jobs(&jobs)
	}
	if c.Failbacks != nil {
		f, err := c.Failbacks(ctx)
		o.gauge("haulback_store_up", one(err == nil), "failbacks")
		if err == nil {
			o.failbacks(&f)
		}
	}
	if c.VSphere != nil {
		o.calls("haulback_vsphere_calls_total", c.VSphere())
	}
	o.openstorage(c.OpenStorage())
}

// out is where the metrics of a scrape go.
type out struct {
	*collector
	ch   chan<- prometheus.Metric
	said map[string]bool // series: two VMs whose names are cut to the same are one
}

func (o *out) tell(kind prometheus.ValueType, name string, v float64, labels ...string) {
	if labels, ok := o.fresh(name, labels); ok {
		o.ch <- prometheus.MustNewConstMetric(o.descs[name], kind, v, labels...)
	}
}

func (o *out) gauge(name string, v float64, labels ...string) {
	o.tell(prometheus.GaugeValue, name, v, labels...)
}

func (o *out) counter(name string, v float64, labels ...string) {
	o.tell(prometheus.CounterValue, name, v, labels...)
}

// fresh makes labels what a label may be, and says whether the series is new.
func (o *out) fresh(name string, labels []string) ([]string, bool) {
	for i, l := range labels {
		labels[i] = label(l)
	}
	key := name + "\x00" + strings.Join(labels, "\x00")
	if o.said[key] {
		return nil, false
	}
	o.said[key] = true
	return labels, true
}

// maxLabel is more than any name that we give, and bounds what others do.
const maxLabel = 128

func label(s string) string {
	if len(s) > maxLabel {
		s = s[:maxLabel]
	}
	return strings.ToValidUTF8(s, "?")
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func stamp(t time.Time) float64 { return float64(t.UnixMilli()) / 1000 }

func (o *out) daemon(d Daemon) {
	o.gauge("haulback_build_info", 1, d.Version, d.Revision, d.Go)
	o.gauge("haulback_draining", one(d.Draining))
	o.gauge("haulback_config_last_reload_successful", one(d.ConfigGood))
	o.gauge("haulback_peers", float64(d.Peers))
	o.gauge("haulback_peers_readable", one(d.PeersGood))
	o.gauge("haulback_sessions", float64(d.Sessions))
	for name, t := range map[string]time.Time{
		"haulback_supervision_last_loop_timestamp_seconds":      d.Looped,
		"haulback_config_last_reload_success_timestamp_seconds": d.Configured,
		"haulback_control_certificate_expiry_timestamp_seconds": d.CertificateEnds,
	} {
		if !t.IsZero() {
			o.gauge(name, stamp(t))
		}
	}
	for reason, n := range map[string]uint64{"busy": d.Busy, "unknown": d.Unknown, "failed": d.Failed} {
		o.counter("haulback_connections_refused_total", float64(n), reason)
	}
	for st := wire.StateClean; st <= wire.StatePoisoned && d.Targets != nil; st++ {
		o.gauge("haulback_targets", float64(d.Targets[st]), strings.ToLower(st.String()))
	}
	if p := d.Packets; p != nil {
		o.counter("haulback_udp_received_packets_total", float64(p.MergedPackets+p.PlainPackets))
		for reason, n := range map[string]uint64{"overflow": p.Overflowed, "truncated": p.Truncated, "unsent": p.Lost} {
			o.counter("haulback_udp_dropped_packets_total", float64(n), reason)
		}
		o.gauge("haulback_udp_offload", one(p.GRO == "on"))
	}
}

// half are the labels of a half.
func half(h mover.Half) (side, mode string) {
	side, mode = "source", "copy"
	if h.Target {
		side = "target"
	}
	if h.Verify {
		mode = "verify"
	}
	return side, mode
}

// code is a code as a label; one that a peer made up is other.
func code(c wire.Code) string {
	name := c.String()
	if c == wire.CodeOK || strings.HasPrefix(name, "code ") {
		return "other"
	}
	return strings.ReplaceAll(name, " ", "_")
}

func (o *out) engine(s mover.Stats) {
	for i := range s.Work {
		w := &s.Work[i]
		side, mode := half(w.Half)
		c := &w.Counters
		for kind, n := range map[string]int64{
			"scanned": c.Scanned, "hole": c.Holes, "same": c.Same, "differing": c.Differing, "zero": c.Zero, "sent": c.Sent, "wire": c.Wire, "durable": c.Durable,
			"verified": c.Verified, "read_back": c.ReadBack, "resumed": c.Had, "skipped": c.Skipped, "sampled": c.Sampled, "refined": c.Refined,
		} {
			o.counter("haulback_bytes_total", float64(n), side, mode, kind)
		}
		for outcome, n := range map[string]int64{"bad": c.Bad, "redone": c.Redone, "lost": c.Lost} {
			o.counter("haulback_grains_total", float64(n), side, mode, outcome)
		}
		o.counter("haulback_reconnects_total", float64(c.Reconnects), side, mode)
		o.gauge("haulback_passes_active", float64(w.Active), side, mode)
	}
	for e, n := range s.Ended {
		side, mode := half(e.Half)
		result := code(e.Code)
		if e.Code == wire.CodeOK && !e.Other {
			result = "ok"
		}
		o.counter("haulback_passes_ended_total", float64(n), side, mode, result)
	}
	for c, n := range s.Retries {
		o.counter("haulback_retries_total", float64(n), code(c))
	}
	o.zeros()
	o.counter("haulback_tracking_distrusted_total", float64(s.Dropped))
	o.counter("haulback_tracking_unusable_total", float64(s.Unhinted))
	o.times(s.Work)
	for _, l := range s.Links {
		o.gauge("haulback_links", float64(l.Links), l.Transport)
		o.gauge("haulback_link_rtt_seconds", l.RTT.Seconds(), l.Transport)
	}
	o.gauge("haulback_engine_memory_bytes", float64(s.Memory))
	o.gauge("haulback_engine_memory_limit_bytes", float64(s.MemoryLimit))
}

// watched are the results that alerts wait for.
var watched = [...]wire.Code{
	wire.CodeVerify, wire.CodeDigest, wire.CodePoisoned, wire.CodeUnreadable, wire.CodeTimeout, wire.CodeUnauthorized, wire.CodeTicket, wire.CodeDistrust,
}

// zeros tells of what has never happened: of a counter that is not there, the
// first time would be no increase, and no alert.
func (o *out) zeros() {
	for _, h := range []mover.Half{{}, {Verify: true}, {Target: true}, {Target: true, Verify: true}} {
		side, mode := half(h)
		o.counter("haulback_passes_ended_total", 0, side, mode, "ok")
		for _, c := range watched {
			o.counter("haulback_passes_ended_total", 0, side, mode, code(c))
		}
	}
	for _, c := range watched {
		o.counter("haulback_retries_total", 0, code(c))
	}
}

// times tells the histograms: copies and comparisons read the same disks, so
// they are one.
func (o *out) times(work []mover.Work) {
	const name = "haulback_io_duration_seconds"
	calls := [...]string{mover.TimeRead: "read", mover.TimeWrite: "write", mover.TimeFlush: "flush", mover.TimeJournal: "journal"}
	for _, target := range []bool{false, true} {
		for i, call := range calls {
			if i != mover.TimeRead && !target {
				continue // a source has none
			}
			var d mover.Durations
			for j := range work {
				if work[j].Target != target {
					continue
				}
				for k, n := range work[j].Times[i].Counts {
					d.Counts[k] += n
				}
				d.Sum += work[j].Times[i].Sum
			}
			buckets, n := make(map[float64]uint64), uint64(0)
			for k, count := range d.Counts {
				if n += count; k < len(d.Counts)-1 {
					buckets[mover.DurationBound(k).Seconds()] = n
				}
			}
			side, _ := half(mover.Half{Target: target})
			o.ch <- prometheus.MustNewConstHistogram(o.descs[name], n, d.Sum.Seconds(), buckets, side, call)
		}
	}
}

func (o *out) jobs(j *Jobs) {
	for p := job.New; p <= job.Paused; p++ {
		o.gauge("haulback_jobs", float64(j.Phases[p]), strings.ToLower(p.String()))
	}
	o.gauge("haulback_job_disks", float64(j.Waiting), "waiting")
	o.gauge("haulback_job_disks", float64(j.Running), "running")
	o.gauge("haulback_job_disk_slots", float64(j.Slots))
	for i := range j.Active {
		a := &j.Active[i]
		var c job.Counters
		for k := range a.Disks {
			d := &a.Disks[k].Outcome.Counters
			c.Total, c.Scanned, c.Verified = c.Total+d.Total, c.Scanned+d.Scanned, c.Verified+d.Verified
		}
		o.gauge("haulback_job_size_bytes", float64(c.Total), a.ID)
		o.gauge("haulback_job_scanned_bytes", float64(c.Scanned), a.ID)
		o.gauge("haulback_job_verified_bytes", float64(c.Verified), a.ID)
	}
}

// activities are those of failbacks that have not ended.
var activities = [...]failback.Activity{
	failback.Waiting, failback.Preparing, failback.Syncing, failback.Standing, failback.Switching, failback.Deciding,
	failback.Committing, failback.Undoing, failback.Canceling,
}

func (o *out) failbacks(f *Failbacks) {
	for _, s := range []failback.State{failback.Ready, failback.Failover, failback.ReadyToSwitch, failback.Failback} {
		o.gauge("haulback_vms", float64(f.VMs[s]), strings.ToLower(string(s)))
	}
	by := make(map[failback.Activity]int)
	for i := range f.Open {
		by[f.Open[i].Activity]++
	}
	for _, a := range activities {
		o.gauge("haulback_failbacks", float64(by[a]), string(a))
	}
	for i := range f.Open {
		s := &f.Open[i]
		if h := s.Halted; h != nil {
			o.gauge("haulback_failback_halted", 1, s.Spec.VM, h.Step, h.Reason)
		}
		var size, scanned int64
		for k := range s.Disks {
			if n := len(s.Disks[k].Passes); n > 0 && s.Disks[k].Passes[n-1].Ended.IsZero() {
				c := &s.Disks[k].Passes[n-1].Counters
				size, scanned = size+c.Total, scanned+c.Scanned
			}
		}
		if size > 0 {
			o.gauge("haulback_failback_pass_size_bytes", float64(size), s.Spec.VM)
			o.gauge("haulback_failback_pass_scanned_bytes", float64(scanned), s.Spec.VM)
		}
		if s.Forecast.Downtime > 0 {
			o.gauge("haulback_failback_downtime_expected_seconds", s.Forecast.Downtime.Seconds(), s.Spec.VM)
		}
	}
}

func (o *out) calls(name string, all map[hostctl.Call]uint64) {
	for c, n := range all {
		o.counter(name, float64(n), c.To, c.Method, strings.ReplaceAll(c.Class, " ", "_"))
	}
}

func (o *out) openstorage(s OpenStorage) {
	o.calls("haulback_openstorage_calls_total", s.Calls)
	o.gauge("haulback_openstorage_ledger_rows", float64(s.Rows))
	o.gauge("haulback_openstorage_left_volumes", float64(s.Left))
}
