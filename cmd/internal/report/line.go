package report

import (
	"fmt"
	"strings"
	"time"

	"github.com/haulback/haulback/cmd/internal/size"
	"github.com/haulback/haulback/wire"
)

// rateWindow is what the rate is averaged over: a flush stops the count for a
// second or two, and the line should not jump for it.
const rateWindow = 10 * time.Second

// meter measures bytes per second over the last rateWindow.
type meter struct {
	at  []time.Time
	val []int64
}

// rate takes a sample. A count that went back (verdicts that have to be found
// again) starts anew.
func (m *meter) rate(now time.Time, n int64) int64 {
	if k := len(m.val); k > 0 && n < m.val[k-1] {
		*m = meter{}
	}
	m.at, m.val = append(m.at, now), append(m.val, n)
	for len(m.at) > 2 && now.Sub(m.at[0]) > rateWindow {
		m.at, m.val = m.at[1:], m.val[1:]
	}
	d := now.Sub(m.at[0])
	if d <= 0 {
		return 0
	}
	return int64(float64(n-m.val[0]) / d.Seconds())
}

// barWidth is in characters; the numbers matter more.
const barWidth = 20

// progressLine fits into width columns: the numbers that matter come first, and
// of the rest only what fits whole. No number is cut.
func progressLine(c wire.Counters, rate int64, limitedBy string, width int) string {
	if c.Total <= 0 {
		return cut("waiting for the disks to be opened", width)
	}
	share := min(float64(c.Verified+c.Skipped)/float64(c.Total), 1)
	full := int(share * barWidth)
	head := fmt.Sprintf("%5.1f%%", share*100)
	speed := fmt.Sprintf(" %s/s ETA %s", size.Text(rate), eta(c.Total-c.Verified-c.Skipped, rate))
	bar := " [" + strings.Repeat("#", full) + strings.Repeat("-", barWidth-full) + "]"
	line := head
	if len(head)+len(bar)+len(speed) <= width {
		line += bar
	}
	limit := ""
	if limitedBy != "" { // why it is no faster comes before what the rate is made of
		limit = "  limited by " + limitedBy
	}
	for _, part := range []string{
		speed, limit, "  sent " + size.Text(c.Sent), "  differing " + size.Text(c.Differing),
		"  verified " + size.Text(c.Verified), "  scanned " + size.Text(c.Scanned),
	} {
		if len(line)+len(part) > width {
			break
		}
		line += part
	}
	return cut(line, width)
}

// cut keeps the line from wrapping; it has only ASCII.
func cut(line string, width int) string { return line[:min(len(line), max(width, 0))] }

// eta is the time that left bytes take, or dashes when nobody can know.
func eta(left, rate int64) string {
	if left <= 0 {
		return "0s"
	}
	if rate <= 0 {
		return "--"
	}
	d := time.Duration(float64(left) / float64(rate) * float64(time.Second))
	if d > 99*time.Hour {
		return ">99h"
	}
	return d.Round(time.Second).String()
}
