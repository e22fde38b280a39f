package wan

import (
	"math"
	"testing"
	"time"
)

const mbit = 1_000_000

// offer gives a line packets of size bytes at every gap until end, and returns
// the times of delivery and how many met each fate.
func offer(l *line, size int, gap, end time.Duration) (due []int64, fates [3]int) {
	for now := time.Duration(0); now < end; now += gap {
		at, f := l.take(int64(now), size)
		fates[f]++
		if f == delivered {
			due = append(due, at)
		}
	}
	return due, fates
}

func TestLineRate(t *testing.T) {
	for _, tc := range []struct {
		name string
		rate int64
		size int
	}{
		{"1 Gbit/s", 1000 * mbit, 1500},
		{"a rate that divides nothing", 333_333_331, 1499},
		{"slow", mbit, 40},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newLine(Path{Rate: tc.rate, Queue: time.Hour}, 1, 1)
			const n = 100_000
			var last int64
			for range n {
				last, _ = l.take(0, tc.size)
			}
			want := float64(n) * float64(tc.size) * 8 / float64(tc.rate) * 1e9
			if math.Abs(float64(last)-want) > 1 {
				t.Errorf("%d packets of %d bytes were sent after %d ns, want %.0f: not %d bit/s", n, tc.size, last, want, tc.rate)
			}
		})
	}
}

func TestLineDelay(t *testing.T) {
	l := newLine(Path{Rate: 12 * mbit, Delay: 25 * time.Millisecond, Queue: time.Second}, 1, 1)
	for i, tc := range []struct{ now, want time.Duration }{
		{0, 26 * time.Millisecond}, // 1500 bytes take 1 ms
		{0, 27 * time.Millisecond},
		{500 * time.Microsecond, 28 * time.Millisecond},
		{time.Second, time.Second + 26*time.Millisecond}, // an idle line saves nothing up
	} {
		if due, f := l.take(int64(tc.now), 1500); due != int64(tc.want) || f != delivered {
			t.Errorf("packet %d at %v: due %v, fate %d, want %v", i, tc.now, time.Duration(due), f, tc.want)
		}
	}
}

func TestLineTailDrop(t *testing.T) {
	// 1 ms a packet and 10 ms of queue: one being sent and ten that wait.
	l := newLine(Path{Rate: 12 * mbit, Queue: 10 * time.Millisecond}, 1, 1)
	_, fates := offer(l, 1500, 1, 100)
	if fates[delivered] != 11 || fates[full] != 89 {
		t.Errorf("a burst of 100: %d delivered, %d dropped, want 11 and 89", fates[delivered], fates[full])
	}
	// Offered twice its rate, a line sends at its rate and drops the rest.
	l = newLine(Path{Rate: 12 * mbit, Queue: 10 * time.Millisecond}, 1, 1)
	due, fates := offer(l, 1500, 500*time.Microsecond, 10*time.Second)
	if n := fates[delivered]; n < 9_990 || n > 10_020 {
		t.Errorf("%d of 20000 packets at twice the rate were delivered, want 10000 and the queue", n)
	}
	for i := 1; i < len(due); i++ {
		if due[i]-due[i-1] < int64(time.Millisecond) {
			t.Fatalf("packets %d and %d are delivered %d ns apart: faster than the line", i-1, i, due[i]-due[i-1])
		}
	}
}

func TestLineLoss(t *testing.T) {
	for _, loss := range []float64{0, 0.0001, 0.01, 1} {
		l := newLine(Path{Loss: loss}, 7, 1)
		const n = 200_000
		_, fates := offer(l, 1500, 1, n)
		want := loss * n
		if diff := math.Abs(float64(fates[lost]) - want); diff > 5*math.Sqrt(want*(1-loss)) {
			t.Errorf("loss %v: %d of %d lost, want %.0f", loss, fates[lost], n, want)
		}
	}
	a, _ := offer(newLine(Path{Loss: 0.1}, 7, 1), 1500, 1, 1000)
	b, _ := offer(newLine(Path{Loss: 0.1}, 7, 1), 1500, 1, 1000)
	c, _ := offer(newLine(Path{Loss: 0.1}, 8, 1), 1500, 1, 1000)
	same := func(x, y []int64) bool {
		for i := range min(len(x), len(y)) {
			if x[i] != y[i] {
				return false
			}
		}
		return len(x) == len(y)
	}
	if !same(a, b) || same(a, c) {
		t.Errorf("the same seed loses the same: %v, another seed too: %v; want true, false", same(a, b), same(a, c))
	}
}

// TestLineLossTakesTime: a lost packet was on the line, one that was dropped was not.
func TestLineLossTakesTime(t *testing.T) {
	l := newLine(Path{Rate: 12 * mbit, Queue: time.Second, Loss: 1}, 1, 1)
	l.take(0, 1500)
	l.path.Loss = 0
	if due, _ := l.take(0, 1500); due != int64(2*time.Millisecond) {
		t.Errorf("after a lost packet the next is due at %v, want 2ms", time.Duration(due))
	}
}

func TestPathValidate(t *testing.T) {
	for _, p := range []Path{
		{Rate: -1},
		{Rate: 1e12},
		{Delay: -1},
		{Queue: time.Hour},
		{Loss: 1.5},
		{Loss: -0.1},
		{Loss: math.NaN()},
	} {
		if err := p.validate(); err == nil {
			t.Errorf("%+v is valid, want an error", p)
		}
	}
}
