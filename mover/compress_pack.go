package mover

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/wire"
)

// packer decides for one worker, grain by grain, what is worth compressing. A
// neighbourhood where nothing gained is asked for its first bytes only.
type packer struct {
	*compressor
	dw    *wire.DataWriter
	dull  [1024]uint8 // by region: grains in a row that did not gain
	count uint        // grains while compression is off
	batch packed
}

// packed is what the grains of one batch came to.
type packed struct {
	grains, packed int   // with bytes; of them compressed
	raw, wire      int64 // bytes of packed; what they became
	tried, out     int64 // bytes that went through the encoder; what they became
	took           time.Duration
}

const (
	region    = 16 << 20 // bytes that are taken to be of one kind
	dullAfter = 8        // grains
	probeSize = 4 << 10  // bytes
)

// add appends grain p at off to the frame.
func (k *packer) add(off int64, p []byte, d *cbt.Digest) {
	k.batch.grains++
	if !k.want() {
		k.dw.AddRaw(off, p, d)
		return
	}
	dull := &k.dull[uint64(off)/region%uint64(len(k.dull))]
	began := threadTime()
	n := len(p)
	if *dull >= dullAfter && n > probeSize && !k.dw.Gains(p[:probeSize]) {
		k.dw.AddRaw(off, p, d)
	} else {
		n = k.dw.Add(off, p, d)
	}
	k.batch.took += threadTime() - began
	k.batch.tried, k.batch.out = k.batch.tried+int64(len(p)), k.batch.out+int64(n)
	if n == len(p) {
		*dull = min(*dull+1, dullAfter)
		return
	}
	*dull = 0
	k.batch.packed++
	k.batch.raw, k.batch.wire = k.batch.raw+int64(len(p)), k.batch.wire+int64(n)
}

// addParts appends the pieces in parts of grain p, which is e. They are no trial:
// where compression is off they go as they are.
func (k *packer) addParts(e cbt.Extent, p []byte, parts wire.Mask, d *cbt.Digest) {
	raw := wire.PartBytes(e.Len, parts)
	n := int64(k.dw.AddParts(e.Off, p, parts, d, k.on.Load()))
	k.batch.grains++
	if n < raw {
		k.batch.packed++
		k.batch.raw, k.batch.wire = k.batch.raw+raw, k.batch.wire+n
	}
}

// want says whether the next grain is to be tried: all, or now and then one, so
// that it is known what compressing would cost and gain.
func (k *packer) want() bool {
	switch {
	case k.on.Load():
		return true
	case k.asked == Off || k.here:
		return false
	}
	k.count++
	if k.first.Load() {
		return k.count%tryFirst == 0
	}
	return k.count%tryLater == 0
}

// end tells the policy of the batch.
func (k *packer) end() {
	k.encoded(&k.batch)
	k.batch = packed{}
}

// threadTime is the processor time of this thread. A goroutine that changes
// its thread in between makes one value useless, which the mean survives.
func threadTime() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// processors is the processor time that this process has used, and what all
// processors of the machine, at most as many as it may use, have been idle.
func processors() (own, idle time.Duration) {
	var r unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &r) == nil {
		own = time.Duration(r.Utime.Nano() + r.Stime.Nano())
	}
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return own, 0
	}
	return own, idleTime(b)
}

// idleTime reads the first line of /proc/stat, "cpu  user nice system idle
// iowait ...": what is idle waits for nothing, or for a disk.
func idleTime(stat []byte) time.Duration {
	const tick = 10 * time.Millisecond // USER_HZ, the same on all Linux
	var n, sum time.Duration
	field := 0
	for i, c := range stat {
		if c >= '0' && c <= '9' && i > 3 {
			n = n*10 + time.Duration(c-'0')
			continue
		}
		if i > 0 && stat[i-1] >= '0' && stat[i-1] <= '9' {
			if field++; field == 4 || field == 5 {
				sum += n
			}
		}
		if n = 0; c == '\n' || field == 5 {
			break
		}
	}
	return sum * tick
}
