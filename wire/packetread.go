package wire

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/quic-go/quic-go"
	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// prepare sets the options for reading; one that the kernel does not have is
// no reason to stop.
func (c *PacketConn) prepare(raw syscall.RawConn) error {
	c.backlog = newBacklog(&c.stats)
	c.plain = ipv4.NewPacketConn(c.UDPConn)
	if c.options.Stock {
		c.groOff = "stock socket"
		return nil
	}
	return raw.Control(func(fd uintptr) {
		// With it a read tells of packets that the kernel had no room for.
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 1)
		if err := c.merge(int(fd)); err != nil {
			c.groOff = err.Error()
			return
		}
		c.gro = newGROReader(c.UDPConn, &c.stats)
	})
}

// merge asks the kernel to merge packets. Before Linux 5.0 only vendors had it,
// and not always right (quic-go#4394).
func (c *PacketConn) merge(fd int) error {
	if c.options.NoGRO {
		return errors.New("switched off")
	}
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	release := unix.ByteSliceToString(u.Release[:])
	if major, _, _ := strings.Cut(release, "."); !since5(major) {
		return fmt.Errorf("kernel %s is older than 5.0", release)
	}
	return unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1)
}

func since5(major string) bool {
	n, err := strconv.Atoi(major)
	return err == nil && n >= 5
}

// quietEnv keeps quic-go from writing of small buffers to standard error: that is
// what BufferHint is for.
const quietEnv = "QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING"

// attach makes tr use c.
func (c *PacketConn) attach(tr *quic.Transport) {
	if os.Getenv(quietEnv) == "" {
		_ = os.Setenv(quietEnv, "true") // the name is valid
	}
	if c.options.Stock {
		tr.Conn = c.UDPConn
		return
	}
	tr.ConnectionIDGenerator = c.backlog.ids
}

// ReadBatch is what quic-go reads with, from one goroutine: it fills ms and
// returns how many of them, at least one without an error. Flags are not used.
// It allocates nothing but the address of a sender that is new.
func (c *PacketConn) ReadBatch(ms []ipv4.Message, flags int) (n int, err error) {
	c.backlog.wait()
	overflow := false
	if c.gro != nil {
		n, overflow, err = c.gro.read(ms)
	} else if n, err = c.plain.ReadBatch(ms, flags); err == nil {
		c.stats.plainReads.Add(1)
		c.stats.plainPackets.Add(uint64(n))
	}
	if err != nil {
		return 0, err
	}
	if overflow {
		c.backlog.overflow()
	}
	for i := range ms[:n] {
		if len(ms[i].Buffers) > 0 {
			c.backlog.hand(ms[i].Buffers[0][:ms[i].N])
		}
	}
	return n, nil
}

// packetCounters are what PacketStats shows.
type packetCounters struct {
	mergedReads, mergedPackets, plainReads, plainPackets atomic.Uint64
	truncated, overflowed, refused                       atomic.Uint64
	waits, waited, resyncs                               atomic.Uint64
}

func (n *packetCounters) waitedSince(start time.Time) {
	n.waits.Add(1)
	n.waited.Add(uint64(time.Since(start)))
}

// PacketStats are the counters of a PacketConn so far. All but the sends are of
// reading; a stock socket counts nothing.
type PacketStats struct {
	GRO string // "on", or why not

	MergedReads, MergedPackets uint64 // reads of several packets, and these
	PlainReads, PlainPackets   uint64 // the others; a read is a system call
	Truncated                  uint64 // packets cut off for want of room: no peer of ours sends such
	Overflowed                 uint64 // packets that the kernel had no room for

	Waits, Resyncs uint64 // for connections that were behind; those of them without progress
	Waited         time.Duration

	// Refused are sends of several packets that the device could not split:
	// quic-go then sends one by one on that connection.
	Refused uint64
	Lost    uint64 // that were not sent, for a reason that passes; Lost says which
}

// Stats returns the counters.
func (c *PacketConn) Stats() PacketStats {
	n, gro := &c.stats, "on"
	if c.gro == nil {
		gro = c.groOff
	}
	var lost uint64
	for i := range c.lost {
		lost += c.lost[i].Load()
	}
	return PacketStats{
		GRO:         gro,
		MergedReads: n.mergedReads.Load(), MergedPackets: n.mergedPackets.Load(),
		PlainReads: n.plainReads.Load(), PlainPackets: n.plainPackets.Load(),
		Truncated: n.truncated.Load(), Overflowed: n.overflowed.Load(),
		Waits: n.waits.Load(), Resyncs: n.resyncs.Load(), Waited: time.Duration(n.waited.Load()),
		Refused: n.refused.Load(), Lost: lost,
	}
}

// LogValue shows the counters under short names.
func (s PacketStats) LogValue() slog.Value {
	return slog.GroupValue(
		slog.String("gro", s.GRO),
		slog.Uint64("merged_reads", s.MergedReads), slog.Uint64("merged_packets", s.MergedPackets),
		slog.Uint64("plain_reads", s.PlainReads), slog.Uint64("plain_packets", s.PlainPackets),
		slog.Uint64("truncated", s.Truncated), slog.Uint64("overflowed", s.Overflowed),
		slog.Uint64("waits", s.Waits), slog.Uint64("resyncs", s.Resyncs), slog.Duration("waited", s.Waited),
		slog.Uint64("refused", s.Refused), slog.Uint64("lost", s.Lost),
	)
}
