package wan

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/haulback/haulback/bench/result"
)

// Measurement says which copies are made over an emulated link. All fields but
// Log have to be set; Default gives those of target P9.
type Measurement struct {
	Programs   string // directory with haulback and haulbackd
	Dir        string // for the disks, twice Size, and the states; what is made there is removed
	Size       int64  // bytes of the disk, all of them incompressible
	Rate       int64  // of the link in bit/s
	RTT, Queue time.Duration
	Losses     []float64 // shares, each with all transports
	Transports []string
	Window     time.Duration // how long the rate is measured
	Settle     time.Duration // from the first durable bytes until then: slow start, the choice of a transport
	Most       time.Duration // a copy that is not over by then is ended
	Runs       int           // of each; they alternate
	Seed       uint64        // of contents and losses
	Sysctls    map[string]string
	Log        io.Writer // progress for people; may be nil
}

// Default is target P9: 1 Gbit/s, a round trip of 50 ms, a queue of as much.
func Default(programs, dir string) Measurement {
	return Measurement{
		Programs: programs, Dir: dir, Size: 3 << 30,
		Rate: 1_000_000_000, RTT: 50 * time.Millisecond, Queue: 50 * time.Millisecond,
		Losses: []float64{0, 0.0001, 0.001, 0.01}, Transports: []string{"auto", "quic", "tls"},
		Window: 20 * time.Second, Settle: 4 * time.Second, Most: 45 * time.Second, Runs: 1, Seed: 9,
	}
}

// CaseOf is the case of a loss: those of package result, or "wan-loss-" and per cent.
func CaseOf(loss float64) result.Case {
	switch loss {
	case 0:
		return result.WAN
	case 0.0001:
		return result.WANLowLoss
	case 0.001:
		return result.WANLoss
	}
	return result.Case(fmt.Sprintf("wan-loss-%g", loss*100))
}

// Keys of result.Run.Extra beside those of package result.
const (
	ExtraLoss     = "loss"       // share of the packets that the link was told to lose
	ExtraFull     = "full"       // packets dropped by the full queue, towards the target
	ExtraDropped  = "dropped"    // packets lost by the link, towards the target
	ExtraDurable  = "durable"    // bytes durable at the end: less than the disk if the copy was ended
	ExtraWhole    = "whole_rate" // payload bytes a second from the start of the client to the end
	ExtraMeasured = "measured"   // seconds over which ExtraRate was taken
)

// Setup is the link and the work as a line for people.
func (m *Measurement) Setup() string {
	return fmt.Sprintf("%g Gbit/s, round trip %v, queue %v; full copy of %d MiB of incompressible data",
		float64(m.Rate)/1e9, m.RTT, m.Queue, m.Size>>20)
}

// Run makes the copies, one after the other, and hands each to emit. A copy that
// fails is a row with an Error and no reason to stop; an error of Run is one of the
// machine, ErrRoot too.
func (m *Measurement) Run(ctx context.Context, emit func(result.Line) error) error {
	probe, err := New(Config{}) // before anything is written: may we?
	if err != nil {
		return err
	}
	if err := probe.Close(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(m.Dir, "haulbench-wan.")
	if err != nil {
		return fmt.Errorf("wan: %w", err)
	}
	defer os.RemoveAll(dir)
	source := filepath.Join(dir, "source.img")
	if err := fill(source, m.Size, m.Seed); err != nil {
		return fmt.Errorf("wan: make the source disk: %w", err)
	}
	for _, loss := range m.Losses {
		c := CaseOf(loss)
		image := result.Image{Case: c, Bytes: m.Size, Changed: m.Size, Extents: m.Size, Text: m.Setup() + fmt.Sprintf(", loss %g %%", loss*100)}
		if err := emit(result.Line{Image: &image}); err != nil {
			return err
		}
	}
	for n := 1; n <= m.Runs; n++ {
		for _, loss := range m.Losses {
			for _, transport := range m.Transports {
				r := m.copy(ctx, dir, source, transport, loss, n)
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				m.say(&r, loss)
				if err := emit(result.Line{Run: &r}); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (m *Measurement) say(r *result.Run, loss float64) {
	if m.Log == nil {
		return
	}
	text := fmt.Sprintf("%4.0f Mbit/s (%.0f %% of the link), %.0f Mbit/s over all of %.0f s",
		r.Extra[result.ExtraRate]*8/1e6, r.Extra[result.ExtraLinkShare]*100, r.Extra[ExtraWhole]*8/1e6, r.Wall)
	if r.Error != "" {
		text = r.Error
	}
	fmt.Fprintf(m.Log, "wan: loss %g %%, %s: %s\n", loss*100, r.Variant, text)
}

// copy makes one copy over a link of its own.
func (m *Measurement) copy(ctx context.Context, dir, source, transport string, loss float64, n int) (r result.Run) {
	r = result.Run{
		Case: CaseOf(loss), Peer: "haulback", Variant: transport, N: n, Image: m.Size,
		CPU: map[result.End]float64{}, RSS: map[result.End]int64{}, Extra: map[string]float64{ExtraLoss: loss},
	}
	config := Symmetric(m.Rate, m.RTT, m.Queue, loss, m.Seed+uint64(n))
	config.Sysctls = m.Sysctls
	link, err := New(config)
	if err != nil {
		r.Error = err.Error()
		return r
	}
	p := pair{m: m, link: link, dir: filepath.Join(dir, "run"), source: source, run: &r}
	err = errors.Join(p.all(ctx, transport), link.Close(), os.RemoveAll(p.dir))
	if err != nil {
		r.Error = err.Error()
	}
	s := link.Stats()
	r.Wire = s.Out.Bytes + s.Back.Bytes
	r.Extra[ExtraFull], r.Extra[ExtraDropped] = float64(s.Out.Full), float64(s.Out.Lost)
	return r
}

// fill writes size bytes that do not compress, the same for the same seed.
func fill(path string, size int64, seed uint64) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	var key [32]byte
	key[0], key[1] = byte(seed), byte(seed>>8)
	_, err = io.CopyN(struct{ io.Writer }{f}, rand.NewChaCha8(key), size)
	return errors.Join(err, f.Close())
}
