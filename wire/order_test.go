package wire

import (
	"encoding/binary"
	"errors"
	"testing"
)

// counterList is a list of n counters with the values 1 to n.
func counterList(n int) []byte {
	b := []byte{byte(n)}
	for i := range n {
		b = binary.BigEndian.AppendUint64(b, uint64(i+1))
	}
	return b
}

func TestCounters(t *testing.T) {
	for _, n := range []int{0, 1, 15, 16, 17, 31} {
		s := Status{Counters: counted}
		if err := Parse(&s, append(counterList(n), 0, 2, 'h', 'i')); err != nil || s.Text != "hi" {
			t.Errorf("%d counters: %q, %v", n, s.Text, err)
		}
		for i, p := range s.Counters.list() {
			want := int64(0)
			if i < n {
				want = int64(i + 1)
			}
			if *p != want {
				t.Errorf("counter %d of %d is %d, want %d", i, n, *p, want)
			}
		}
		body := counterList(n)
		for i := range body {
			if err := Parse(&s, body[:i]); !errors.Is(err, ErrFrame) {
				t.Errorf("%d bytes of %d counters: %v", i, n, err)
			}
		}
	}
	if most := 1 + 255*8 + 2 + maxText; most <= maxBody[TypeStatus] {
		t.Error("255 counters fit; this test no longer shows what it should")
	}
	if got, n := counted.list(), len(counted.list()); *got[15] != counted.Reconnects || *got[n-1] != counted.Refined || n != 19 {
		t.Error("the list has another order or length: append only")
	}
}
