package wan

import "testing"

// TestAdmit: each segment of a bunch is either lost or in exactly one flight, in
// order, and a bunch that lost nothing stays whole.
func TestAdmit(t *testing.T) {
	const count = 40
	for _, tc := range []struct {
		name string
		path Path
	}{
		{"nothing is lost", Path{}},
		{"some are lost", Path{Loss: 0.3}},
		{"all are lost", Path{Loss: 1}},
		{"the queue is full", Path{Rate: 12 * mbit, Queue: 5e6}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w := newWay(-1, -1, tc.path, 1, 1)
			b := w.space()
			n := copy(b, makeBunch(kindTCP4, 1448, count*1448))
			w.admit(0, b[:n])
			c := w.counts()
			if c.Packets != count || c.Reads != 0 || c.Bytes != int64(n-vnetLen)+(count-1)*52 {
				t.Errorf("%+v: want %d packets with a header each", c, count)
			}
			flown, last := 0, 0
			for _, f := range w.flights[:w.size] {
				if f.end == 0 && c.Lost+c.Full == 0 {
					flown = count
					continue
				}
				if f.first < last || f.end <= f.first || f.end > count {
					t.Fatalf("segments %d to %d are on their way after %d", f.first, f.end, last)
				}
				flown, last = flown+f.end-f.first, f.end
			}
			if int64(flown)+c.Lost+c.Full != count {
				t.Errorf("%d segments are on their way, %d lost, %d found the queue full: not %d", flown, c.Lost, c.Full, count)
			}
			if (w.write == 0) != (w.size == 0) {
				t.Errorf("%d flights, and the ring is used up to %d", w.size, w.write)
			}
		})
	}
}

// TestRing fills a small ring, takes one packet out, and goes on, round and round:
// packets never overlap, and a ring that is full holds what it can.
func TestRing(t *testing.T) {
	w := newWay(-1, -1, Path{}, 1, 1)
	w.ring = w.ring[:5*maxPacket]
	packet := makeBunch(0, 0, 40_000)
	for round := range 50 {
		for b := w.space(); b != nil; b = w.space() {
			w.admit(0, b[:copy(b, packet)])
			newest := w.flights[(w.head+w.size-1)%len(w.flights)]
			for i := range w.size - 1 {
				f := w.flights[(w.head+i)%len(w.flights)]
				if newest.off < f.off+f.len && f.off < newest.off+newest.len {
					t.Fatalf("round %d: a packet at %d to %d lies on one at %d to %d", round, newest.off, newest.off+newest.len, f.off, f.off+f.len)
				}
			}
		}
		if w.size < 4 {
			t.Fatalf("round %d: a ring of %d bytes is full with %d packets of %d", round, len(w.ring), w.size, len(packet))
		}
		w.head, w.size = (w.head+1)%len(w.flights), w.size-1
		w.read = w.flights[w.head].off
	}
}
