package limits

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/haulback/haulback/mover/throttle"
)

const windowForm = `write DAYS FROM-TO LIMIT, as in "Mon-Fri 08:00-18:00 10MiB", "Sat,Sun 00:00-24:00 unlimited" or "22:00-06:00 wire 50MiB read 100MiB"`

// dayNames are those of time.Weekday, cut.
var dayNames = []string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"}

const wholeDay = 24 * 60

// Window reads a time of the week with its limits. Without DAYS it is every
// day. A window whose end is before its beginning ends on the next day. A size
// alone is the wire's.
func Window(s string) (w throttle.Window, err error) {
	words := strings.Fields(s)
	if len(words) > 0 && !strings.Contains(words[0], ":") {
		if w.Days, err = days(words[0]); err != nil {
			return w, fmt.Errorf("window %q: %w; %s", s, err, windowForm)
		}
		words = words[1:]
	}
	if len(words) < 2 {
		return w, fmt.Errorf("window %q: %s", s, windowForm)
	}
	if w.From, w.To, err = span(words[0]); err != nil {
		return w, fmt.Errorf("window %q: %w", s, err)
	}
	if w.Wire, w.Read, err = rates(words[1:]); err != nil {
		return w, fmt.Errorf("window %q: %w", s, err)
	}
	return w, nil
}

// days reads "Mon-Fri,Sun".
func days(s string) (d [7]bool, err error) {
	for part := range strings.SplitSeq(s, ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		a, b := slices.Index(dayNames, first), slices.Index(dayNames, last)
		if a < 0 || b < 0 {
			return d, fmt.Errorf("%q is no day or range of days (Mon, Tue, Wed, Thu, Fri, Sat, Sun)", part)
		}
		for i := a; ; i = (i + 1) % 7 {
			if d[i] {
				return d, fmt.Errorf("%s is there twice", dayNames[i])
			}
			d[i] = true
			if i == b {
				break
			}
		}
	}
	return d, nil
}

// span reads "08:00-18:00" as minutes since midnight.
func span(s string) (from, to int, err error) {
	first, last, ok := strings.Cut(s, "-")
	if !ok {
		return 0, 0, fmt.Errorf("%q is no span of time, as in 08:00-18:00", s)
	}
	if from, err = minutes(first); err != nil {
		return 0, 0, err
	}
	if to, err = minutes(last); err != nil {
		return 0, 0, err
	}
	switch {
	case from == wholeDay:
		return 0, 0, errors.New("it begins at 24:00: write 00:00, of the day after")
	case from == to:
		return 0, 0, fmt.Errorf("%s is no time or a whole day: write 00:00-24:00 for a day", s)
	}
	return from, to, nil
}

func minutes(s string) (int, error) {
	h, m, ok := strings.Cut(s, ":")
	hour, err1 := strconv.ParseUint(h, 10, 8)
	minute, err2 := strconv.ParseUint(m, 10, 8)
	n := int(hour)*60 + int(minute)
	if !ok || len(h) != 2 || len(m) != 2 || err1 != nil || err2 != nil || minute > 59 || n > wholeDay {
		return 0, fmt.Errorf("%q is no time of day from 00:00 to 24:00", s)
	}
	return n, nil
}

// rates reads "10MiB", "wire 10MiB", "read 10MiB", both, or "unlimited".
func rates(words []string) (wire, read int64, err error) {
	switch {
	case len(words) == 1 && words[0] == "unlimited":
		return 0, 0, nil
	case len(words) == 1:
		wire, err = Rate(words[0])
		return wire, 0, err
	}
	for len(words) > 0 {
		to := map[string]*int64{"wire": &wire, "read": &read}[words[0]]
		if to == nil || len(words) < 2 {
			return 0, 0, fmt.Errorf("%q: the limit is a size, wire SIZE, read SIZE, both, or unlimited", strings.Join(words, " "))
		}
		if *to != 0 {
			return 0, 0, fmt.Errorf("%s is there twice", words[0])
		}
		if *to, err = Rate(words[1]); err != nil {
			return 0, 0, err
		}
		words = words[2:]
	}
	return wire, read, nil
}

// Text is what Window reads as w.
func Text(w throttle.Window) string {
	var b strings.Builder
	if w.Days != [7]bool{} {
		var list []string
		for i := range 7 {
			if d := (i + int(time.Monday)) % 7; w.Days[d] {
				list = append(list, dayNames[d])
			}
		}
		b.WriteString(strings.Join(list, ",") + " ")
	}
	from, to := w.From, w.To
	if from == to { // a whole day from there on; only programs write that
		from, to = 0, wholeDay
	}
	fmt.Fprintf(&b, "%02d:%02d-%02d:%02d", from/60, from%60, to/60, to%60)
	if w.Wire > 0 {
		fmt.Fprintf(&b, " wire %s", rateText(w.Wire))
	}
	if w.Read > 0 {
		fmt.Fprintf(&b, " read %s", rateText(w.Read))
	}
	if w.Wire == 0 && w.Read == 0 {
		b.WriteString(" unlimited")
	}
	return b.String()
}

// rateText is exact, unlike size.Text.
func rateText(n int64) string {
	for _, u := range []struct {
		name  string
		bytes int64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10) + "B"
}
