package wan

import (
	"errors"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Counts are packets of the link, of at most 1500 bytes, in one direction.
type Counts struct {
	Packets, Bytes int64 // taken from the sending side, dropped ones too; bytes of IP
	Full           int64 // dropped because the queue was full
	Lost           int64 // dropped by the seeded loss
	Failed         int64 // refused by the receiving kernel, in bunches; 0 when all is well
	Reads          int64 // bunches taken from the sending side
}

type counters struct{ packets, bytes, full, lost, failed, reads atomic.Int64 }

func (c *counters) counts() Counts {
	return Counts{
		Packets: c.packets.Load(), Bytes: c.bytes.Load(), Full: c.full.Load(), Lost: c.lost.Load(),
		Failed: c.failed.Load(), Reads: c.reads.Load(),
	}
}

// flight is a run of segments of one packet in the ring, on its way.
type flight struct {
	due        int64
	off, len   int // of the whole packet, in the ring
	first, end int // segments; 0, 0: all of it
}

// way is one direction: a device to read, one to write, and between them a ring
// of bytes and a queue of flights, both in order of delivery. It is used by the
// loop only, but for its counters.
type way struct {
	from, to int // file descriptors of the devices
	line     *line
	counters

	ring       []byte
	read       int // where the oldest flight's packet begins
	write      int // where the next packet is put
	flights    []flight
	head, size int // of flights, a circle
	header     [maxHeader]byte
}

// newWay makes room for what the path can hold: twice, as a bunch stays whole
// until the last of its parts was delivered.
func newWay(from, to int, p Path, seed, direction uint64) *way {
	const least, most = 16 << 20, 256 << 20
	room := 2 * float64(p.Rate) / 8 * (p.Delay + p.Queue).Seconds()
	return &way{
		from: from, to: to, line: newLine(p, seed, direction),
		ring: make([]byte, least+int(min(room, most))), flights: make([]flight, 1024),
	}
}

// space is a place of maxPacket bytes in the ring, or nil when it is full. The
// oldest packet is never overtaken: an empty ring has read = write.
func (w *way) space() []byte {
	if w.size == 0 {
		w.read, w.write = 0, 0
	}
	if w.write >= w.read {
		if len(w.ring)-w.write >= maxPacket {
			return w.ring[w.write : w.write+maxPacket]
		}
		if w.read <= maxPacket {
			return nil
		}
		w.write = 0
	}
	if w.read-w.write <= maxPacket {
		return nil
	}
	return w.ring[w.write : w.write+maxPacket]
}

// take reads what waits in the sending side's device, at most limit bunches,
// and says how many there were. What finds no room in the ring stays in the device.
func (w *way) take(now int64, limit int) (int, error) {
	for n := range limit {
		b := w.space()
		if b == nil {
			return n, nil
		}
		got, err := unix.Read(w.from, b)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return n, nil
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return n, err
		case got <= vnetLen:
			continue
		}
		w.reads.Add(1)
		w.admit(now, b[:got])
	}
	return limit, nil
}

// admit gives each segment of b, which lies at the ring's write position, its fate.
func (w *way) admit(now int64, b []byte) {
	u := parse(b)
	f := flight{off: w.write, len: len(b)}
	kept, before := 0, w.size
	var bytes, fulls, losts int64
	for i := range u.count {
		size := u.bytes(i)
		bytes += int64(size)
		due, fate := w.line.take(now, size)
		if fate == delivered {
			if f.end != i || kept == 0 {
				f.first = i
			}
			f.due, f.end = due, i+1
			kept++
			continue
		}
		if fate == full {
			fulls++
		} else {
			losts++
		}
		w.launch(f, i)
	}
	if kept == u.count {
		f.first, f.end = 0, 0
		w.push(f)
	} else {
		w.launch(f, u.count)
	}
	if w.size > before {
		w.write += len(b)
	}
	w.packets.Add(int64(u.count))
	w.bytes.Add(bytes)
	w.full.Add(fulls)
	w.lost.Add(losts)
}

// launch sends the run of segments that ends right before segment i, if there is one.
func (w *way) launch(f flight, i int) {
	if f.end == i && f.end > f.first {
		w.push(f)
	}
}

func (w *way) push(f flight) {
	if w.size == len(w.flights) {
		grown := make([]flight, 2*len(w.flights))
		n := copy(grown, w.flights[w.head:])
		copy(grown[n:], w.flights[:w.head])
		w.flights, w.head = grown, 0
	}
	w.flights[(w.head+w.size)%len(w.flights)] = f
	w.size++
}

// deliver writes what is due by now into the receiving side's device.
func (w *way) deliver(now int64) {
	for w.size > 0 {
		f := w.flights[w.head]
		if f.due > now {
			return
		}
		b := w.ring[f.off : f.off+f.len]
		var err error
		if f.end == 0 {
			_, err = unix.Write(w.to, b)
		} else {
			u := parse(b)
			header, payload := u.part(w.header[:], b, f.first, f.end)
			_, err = unix.Writev(w.to, [][]byte{header, payload})
		}
		if err != nil {
			w.failed.Add(1)
		}
		w.head = (w.head + 1) % len(w.flights)
		w.size--
		if w.size > 0 {
			w.read = w.flights[w.head].off
		}
	}
}

// next is when deliver has work again; ok says that there will be some.
func (w *way) next() (due int64, ok bool) {
	if w.size == 0 {
		return 0, false
	}
	return w.flights[w.head].due, true
}

// monotonic is the time in nanoseconds since some moment.
func monotonic() int64 {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) != nil {
		return time.Now().UnixNano()
	}
	return t.Nano()
}
