package mover

import (
	"encoding/binary"
	"iter"
	"sync"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/wire"
)

// badList passes on to Progress.Different what is settled as different.
//
// Batches settle in disk order, so a list is a matter of merging neighbours. It
// is not one where all verdicts have to be found again (a disk that was lost and
// opened anew, a target that was taken over): what was passed on cannot be taken
// back, and must not come twice. Then the list is silent up to the place where
// it was, and compares what it is told with what it has told, by a chained
// digest: the memory for it does not grow with the disk. Two lists that are not
// one mean that a disk changed, and the run says so in the end.
type badList struct {
	tell    func(BadRun)  // nil: nobody asked
	telling chan struct{} // 1: who tells; a reader may take his time, so it is not mu

	mu      sync.Mutex
	hash    *cbt.Hasher
	mark    int64      // batches below were told
	told    cbt.Digest // of all that was told
	again   cbt.Digest // of what was found again, up to mark
	replay  bool
	changed bool
	last    BadRun   // not passed on yet: the next one may touch it; Len 0: none
	ready   []BadRun // to be told: never more than a window of batches has
}

// begin is called once, before anything is added.
func (l *badList) begin(tell func(BadRun)) {
	l.tell, l.hash, l.telling = tell, cbt.NewHasher(), make(chan struct{}, 1)
}

// add takes the verdict over batch b. Who adds holds the lock of its half, which
// Acks need: pass tells, later and without.
func (l *badList) add(lay layout, b int64, mask, unread wire.Mask) {
	if l.tell == nil || mask == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.replay && b < l.mark {
		l.chain(&l.again, b, mask, unread)
		return
	}
	l.caughtUp()
	if l.changed {
		return // what would come does not belong to what was told
	}
	l.chain(&l.told, b, mask, unread)
	l.mark = b + 1
	for r := range badRuns(lay, b, mask, unread) {
		if l.last.Len > 0 && touches(l.last, r) {
			l.last.Len += r.Len
			continue
		}
		l.flush()
		l.last = r
	}
}

// chain makes sum that of one more batch.
func (l *badList) chain(sum *cbt.Digest, b int64, mask, unread wire.Mask) {
	text := append(make([]byte, 0, 48), sum[:]...)
	text = binary.BigEndian.AppendUint64(text, uint64(b))
	text = binary.BigEndian.AppendUint16(text, uint16(mask))
	text = binary.BigEndian.AppendUint16(text, uint16(unread&mask))
	l.hash.Sum(text, sum)
}

// caughtUp ends a replay.
func (l *badList) caughtUp() {
	if l.replay {
		l.replay, l.changed = false, l.changed || l.again != l.told
	}
}

// rewind says that every verdict will be found again.
func (l *badList) rewind() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.replay, l.again = l.mark > 0, cbt.Digest{}
}

func (l *badList) flush() {
	if l.last.Len > 0 {
		l.ready = append(l.ready, l.last)
		l.last = BadRun{}
	}
}

// pass tells what was added. Who is told may block for as long as he likes: that
// is no stall, and both ends stay awake.
func (l *badList) pass(p *pulse) {
	if l.tell == nil {
		return
	}
	l.telling <- struct{}{}
	defer func() { <-l.telling }()
	l.mu.Lock()
	list := l.ready
	l.ready = nil
	l.mu.Unlock()
	if len(list) == 0 {
		return
	}
	call := p.enter()
	for _, r := range list {
		l.tell(r)
	}
	p.beat() // first: nothing moved while the call was on
	p.leave(call)
}

// end passes on what is left. The error of a run that came to a verdict is that
// of the list, where the list is not one of the disks as they are.
func (l *badList) end(err error) error {
	if l.tell == nil {
		return err
	}
	l.mu.Lock()
	l.flush()
	l.mu.Unlock()
	l.pass(newPulse())
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil && codeOf(err) != wire.CodeVerify {
		return err // there was no verdict; nothing of the list is called complete
	}
	l.caughtUp()
	if l.changed {
		return wire.Errorf(wire.CodeDiskChanged, "the disks were compared again after one was lost, and other places differ than before: "+
			"a program writes to one of them; stop it and compare again")
	}
	return err
}

// badRuns yields the grains in mask of batch b as runs in disk order, those in
// unread apart.
func badRuns(l layout, b int64, mask, unread wire.Mask) iter.Seq[BadRun] {
	return func(yield func(BadRun) bool) {
		for lo, hi := range spans(mask) {
			for lo < hi {
				end, bad := lo+1, unread.Has(lo)
				for end < hi && unread.Has(end) == bad {
					end++
				}
				e := l.span(b, lo, end)
				if !yield(BadRun{Off: e.Off, Len: e.Len, Unreadable: bad}) {
					return
				}
				lo = end
			}
		}
	}
}

// touches reports whether b goes on where a ends, and is of the same kind.
func touches(a, b BadRun) bool { return a.Off+a.Len == b.Off && a.Unreadable == b.Unreadable }
