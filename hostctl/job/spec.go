package job

import (
	"fmt"
	"net/url"
	"path"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/haulback/haulback/hostctl/store"
)

// More bounds of a Spec; the exported ones are beside it.
const (
	maxPlace   = 4096 // of a Source or Target, as PATH_MAX
	maxName    = 64   // of a disk's name and a label's key
	maxLabel   = 256  // of a label's value
	maxWindows = 32
	maxSpec    = 256 << 10 // stored, with all disks
	maxTicket  = 16 << 10  // of one disk
)

// The defaults of a Spec.
const (
	defaultTransport = "auto"
	defaultTracking  = "full"
	defaultRetry     = 5 * time.Minute
	defaultSample    = 256
)

// Validate checks a spec as Submit does. The error is a *Failure that names the
// field.
func Validate(s Spec) error {
	if f := check(s.filled()); f != nil {
		return f
	}
	return nil
}

func invalid(format string, args ...any) *Failure {
	return &Failure{Reason: ReasonInvalid, Text: fmt.Sprintf(format, args...), Retry: RetryNever, Exit: 10}
}

// filled is the spec with defaults in place of what was left out. It shares
// nothing with s that changes.
func (s Spec) filled() Spec {
	if s.Transport == "" {
		s.Transport = defaultTransport
	}
	switch {
	case s.Retry == 0:
		s.Retry = defaultRetry
	case s.Retry < 0:
		s.Retry = -1
	}
	s.Disks = append([]Disk{}, s.Disks...)
	for i := range s.Disks {
		d := &s.Disks[i]
		if d.Name == "" {
			d.Name = fmt.Sprintf("disk%d", i)
		}
		if d.Tracking == "" {
			d.Tracking = defaultTracking
		}
		if d.Sample == 0 {
			d.Sample = defaultSample
		}
	}
	labels := make(map[string]string, len(s.Labels))
	for k, v := range s.Labels {
		labels[k] = v
	}
	s.Labels = labels
	s.Limits.Windows = append([]Window{}, s.Limits.Windows...)
	return s
}

// check looks at a filled spec.
func check(s Spec) *Failure {
	switch {
	case s.Mode != Copy && s.Mode != Verify:
		return invalid("mode: %q is neither %q nor %q", s.Mode, Copy, Verify)
	case s.Transport != "auto" && s.Transport != "quic" && s.Transport != "tls":
		return invalid("transport: %q is none of auto, quic and tls", s.Transport)
	case s.Priority < Low || s.Priority > High:
		return invalid("priority: %d is not between %d and %d", s.Priority, Low, High)
	case len(s.Disks) == 0:
		return invalid("disks: there is none")
	case len(s.Disks) > MaxDisks:
		return invalid("disks: %d; %d are allowed in one job", len(s.Disks), MaxDisks)
	}
	if f := checkLimits(s.Limits); f != nil {
		return f
	}
	if f := checkLabels(s.Labels); f != nil {
		return f
	}
	names, places := map[string]int{}, map[string]string{}
	for i, d := range s.Disks {
		if f := checkDisk(i, d); f != nil {
			return f
		}
		if j, twice := names[d.Name]; twice {
			return invalid("disks[%d].name: %q is the name of disks[%d] too", i, d.Name, j)
		}
		names[d.Name] = i
		target := fmt.Sprintf("disks[%d].target", i)
		if other, twice := places[place(d.Target)]; twice {
			return invalid("%s: %q is %s too", target, d.Target, other)
		}
		places[place(d.Target)] = target
	}
	for i, d := range s.Disks {
		if target, both := places[place(d.Source)]; both {
			return invalid("disks[%d].source: %q is %s too", i, d.Source, target)
		}
	}
	return nil
}

// place is a name of a disk in one form, so that two ways to write a path are
// seen as one. It proves nothing: the disk's own lock does.
func place(name string) string {
	for _, scheme := range []string{"file://", "file:"} {
		if rest, ok := strings.CutPrefix(name, scheme); ok {
			name = rest
			break
		}
	}
	if strings.HasPrefix(name, "/") {
		return path.Clean(name)
	}
	return name
}

func checkDisk(i int, d Disk) *Failure {
	field := fmt.Sprintf("disks[%d].", i)
	if len(d.Name) > maxName || store.CheckKey(d.Name) != nil {
		return invalid("%sname: %q is not a name of up to %d letters, digits, _, - and single dots", field, d.Name, maxName)
	}
	if f := checkPlace(field+"source", d.Source); f != nil {
		return f
	}
	if f := checkPlace(field+"target", d.Target); f != nil {
		return f
	}
	if d.Sample < 0 {
		return invalid("%ssample: %d is negative", field, d.Sample)
	}
	kind, value, _ := strings.Cut(d.Tracking, ":")
	known := d.Tracking == "full" || d.Tracking == "export" || (kind == "bitmap" || kind == "fiemap") && value != ""
	if !known || len(d.Tracking) > maxPlace || !printable(d.Tracking) {
		return invalid("%stracking: %q is none of full, export, bitmap:NAME, fiemap:PATH", field, d.Tracking)
	}
	return nil
}

func checkPlace(field, name string) *Failure {
	switch {
	case name == "":
		return invalid("%s: is empty", field)
	case len(name) > maxPlace:
		return invalid("%s: %d bytes; %d are allowed", field, len(name), maxPlace)
	case !printable(name):
		return invalid("%s: %q has characters that cannot be printed", field, name)
	}
	if strings.Contains(name, "://") {
		if u, err := url.Parse(name); err == nil && u.User != nil {
			if _, secret := u.User.Password(); secret { // not shown
				return invalid("%s: a password in a URI is stored and shown; name a file that holds it", field)
			}
		}
	}
	return nil
}

// What a limit may be at least, and a latency at most: a transfer cannot keep
// to others. The mover has the same bounds.
const (
	leastRate    = 64 << 10 // bytes per second: a grain
	leastLatency = 100 * time.Microsecond
	mostLatency  = time.Minute
)

func checkLimits(l Limits) *Failure {
	switch {
	case l.Latency != 0 && (l.Latency < leastLatency || l.Latency > mostLatency):
		return invalid("limits.latency: %v; %v to %v may be, and 0 for none", l.Latency, leastLatency, mostLatency)
	case len(l.Windows) > maxWindows:
		return invalid("limits.windows: %d; %d are allowed", len(l.Windows), maxWindows)
	}
	if f := checkRates("limits.", l.Wire, l.Read); f != nil {
		return f
	}
	for i, w := range l.Windows {
		field := fmt.Sprintf("limits.windows[%d].", i)
		switch {
		case w.From < 0 || w.From > 1440:
			return invalid("%sfrom_minute: %d is not a minute of a day, 0 to 1440", field, w.From)
		case w.To < 0 || w.To > 1440:
			return invalid("%sto_minute: %d is not a minute of a day, 0 to 1440", field, w.To)
		}
		if f := checkRates(field, w.Wire, w.Read); f != nil {
			return f
		}
	}
	return nil
}

func checkRates(field string, wire, read int64) *Failure {
	name, rate := "wire_bytes", wire
	if wire == 0 || wire >= leastRate {
		name, rate = "read_bytes", read
	}
	if rate == 0 || rate >= leastRate {
		return nil
	}
	return invalid("%s%s: %d bytes a second; %d at least, one grain, and 0 for no limit", field, name, rate, leastRate)
}

func checkLabels(labels map[string]string) *Failure {
	if len(labels) > MaxLabels {
		return invalid("labels: %d; %d are allowed", len(labels), MaxLabels)
	}
	for k, v := range labels {
		if k == "" || len(k) > maxName || !printable(k) {
			return invalid("labels: the key %q is not 1 to %d printable characters", k, maxName)
		}
		if len(v) > maxLabel || !printable(v) {
			return invalid("labels[%q]: the value is longer than %d bytes or cannot be printed", k, maxLabel)
		}
	}
	return nil
}

func checkID(id string) *Failure {
	if id == "" || len(id) > MaxID || store.CheckKey(id) != nil {
		return invalid("id: %q is not 1 to %d letters, digits, _, - and single dots inside", id, MaxID)
	}
	return nil
}

func checkTickets(s Spec, tickets map[string][]byte) *Failure {
	total := 0
	for name, t := range tickets {
		known := false
		for _, d := range s.Disks {
			known = known || d.Name == name
		}
		if !known {
			return invalid("tickets[%q]: the job has no disk of this name", name)
		}
		if len(t) > maxTicket {
			return invalid("tickets[%q]: %d bytes; %d are allowed", name, len(t), maxTicket)
		}
		total += len(t)
	}
	if total > maxSpec {
		return invalid("tickets: %d bytes; %d are allowed in one job", total, maxSpec)
	}
	return nil
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}
