package wire_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/haulback/haulback/wire"
	"github.com/haulback/haulback/wire/wiretest"
)

const (
	nearAddr = "10.1.0.1:7420"
	farAddr  = "10.2.0.1:7420"
)

// simulated runs a test on a QUIC link of 1 connection, and on one of 2, over a
// simulated network, in a bubble.
func simulated(t *testing.T, seed uint64, run func(t *testing.T, n *wiretest.Net, d, l wire.Link)) {
	for _, connections := range []int{1, 2} {
		if connections > 1 && testing.Short() {
			break
		}
		t.Run(fmt.Sprint(connections), func(t *testing.T) { simulatedOn(t, seed, connections, run) })
	}
}

func simulatedOn(t *testing.T, seed uint64, connections int, run func(t *testing.T, n *wiretest.Net, d, l wire.Link)) {
	a, b := wiretest.Key(t), wiretest.Key(t)
	synctest.Test(t, func(t *testing.T) {
		n := wiretest.NewNet(seed)
		n.SetFaults(wiretest.Faults{Delay: 10 * time.Millisecond})
		listener, err := wire.ListenQUIC(n.Endpoint(farAddr), b, wiretest.NewPeers(a.ID()), wire.ListenConfig{})
		if err != nil {
			t.Fatal(err)
		}
		d, l := wiretest.Connect(t, listener, func(ctx context.Context) (wire.Link, error) {
			return wire.DialQUIC(ctx, n.Endpoint(nearAddr), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(farAddr)), a, wire.DialConfig{Connections: connections}, b.ID())
		})
		if have := l.Stats().Connections; have != connections {
			t.Errorf("%d connections of %d", have, connections)
		}
		run(t, n, d, l)
		d.CloseWithError(wire.CodeOK, "")
		l.CloseWithError(wire.CodeOK, "")
		listener.Close()
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	})
}

// transfer sends size bytes on a data stream and compares.
func transfer(t *testing.T, d, l wire.Link, size int) {
	want := bytes.Repeat([]byte("0123456789abcde\n"), size/16)
	out, err := d.OpenSend(t.Context(), wire.StreamID{Kind: wire.StreamData})
	if err != nil {
		t.Fatal(err)
	}
	in, err := func() (wire.Stream, error) {
		go func() {
			out.Write(want)
			out.CloseWrite()
		}()
		return l.OpenReceive(t.Context(), wire.StreamID{Kind: wire.StreamData})
	}()
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(in)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d came over, equal %v, %v", len(got), len(want), bytes.Equal(got, want), err)
	}
}

func TestFaultyNetwork(t *testing.T) {
	for name, faults := range map[string]wiretest.Faults{
		"loss":    {Loss: 0.01, Delay: 10 * time.Millisecond},
		"dup":     {Dup: 0.05, Delay: 10 * time.Millisecond},
		"jitter":  {Delay: 10 * time.Millisecond, Jitter: 5 * time.Millisecond},
		"corrupt": {Corrupt: 0.005, Delay: 10 * time.Millisecond},
		"all":     {Loss: 0.01, Dup: 0.01, Corrupt: 0.005, Delay: 20 * time.Millisecond, Jitter: 3 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			simulated(t, 42, func(t *testing.T, n *wiretest.Net, d, l wire.Link) {
				n.SetFaults(faults)
				transfer(t, d, l, 4<<20)
				s := n.Stats()
				if faults.Loss > 0 && s.Lost == 0 || faults.Dup > 0 && s.Dup == 0 || faults.Corrupt > 0 && s.Corrupt == 0 {
					t.Errorf("the network did nothing: %+v", s)
				}
			})
		})
	}
}

// A partition that is over before the idle timeout costs time only.
func TestShortPartition(t *testing.T) {
	simulated(t, 1, func(t *testing.T, n *wiretest.Net, d, l wire.Link) {
		go func() {
			time.Sleep(100 * time.Millisecond)
			n.Cut("", "")
			time.Sleep(20 * time.Second)
			n.Heal()
		}()
		transfer(t, d, l, 16<<20)
		if d.Err() != nil || l.Err() != nil {
			t.Errorf("ended with %v and %v", d.Err(), l.Err())
		}
	})
}

func TestLongPartition(t *testing.T) {
	for name, cut := range map[string][2]string{"both ways": {}, "one way": {nearAddr, ""}} {
		t.Run(name, func(t *testing.T) {
			simulated(t, 1, func(t *testing.T, n *wiretest.Net, d, l wire.Link) {
				n.Cut(cut[0], cut[1])
				start := time.Now()
				for _, link := range []wire.Link{d, l} {
					_, err := link.Control().Read(make([]byte, 1))
					e, ok := errors.AsType[*wire.Error](err)
					// One that hears nothing on a connection can say so on another.
					told := e != nil && e.Remote && link.Stats().Connections == 1
					if !ok || e.Code != wire.CodeTimeout || !e.Retryable() || told {
						t.Errorf("got %v (%T), want a local, retryable timeout", err, err)
					}
					if link.Err() == nil {
						t.Error("the link lives")
					}
				}
				if took := time.Since(start); took < 29*time.Second || took > 90*time.Second {
					t.Errorf("noticed after %v", took)
				}
			})
		})
	}
}

// A quiet link stays: the keep-alive is shorter than the idle timeout.
func TestQuietLink(t *testing.T) {
	simulated(t, 1, func(t *testing.T, n *wiretest.Net, d, l wire.Link) {
		time.Sleep(time.Hour)
		transfer(t, d, l, 1<<20)
	})
}

// The reason of a close survives the loss of the packet that carries it.
func TestCloseLost(t *testing.T) {
	simulated(t, 1, func(t *testing.T, n *wiretest.Net, d, l wire.Link) {
		n.Cut(nearAddr, "")
		d.CloseWithError(wire.CodeNoSpace, "full")
		time.Sleep(50 * time.Millisecond)
		n.Heal()
		l.Control().Write([]byte("are you there?"))
		<-l.Done()
		if e, ok := errors.AsType[*wire.Error](l.Err()); !ok || e.Code != wire.CodeNoSpace {
			t.Errorf("got %v", l.Err())
		}
	})
}

// A silent dialer is refused after the deadline and counted; it delays nobody.
func TestNoControlStream(t *testing.T) {
	a, b := wiretest.Key(t), wiretest.Key(t)
	synctest.Test(t, func(t *testing.T) {
		n := wiretest.NewNet(1)
		refusals := new(wire.Refusals)
		listener, err := wire.ListenQUIC(n.Endpoint(farAddr), b, wiretest.NewPeers(a.ID()), wire.ListenConfig{Refusals: refusals})
		if err != nil {
			t.Fatal(err)
		}
		d, err := wire.DialQUIC(t.Context(), n.Endpoint(nearAddr), net.UDPAddrFromAddrPort(netip.MustParseAddrPort(farAddr)), a, wire.DialConfig{Connections: 1}, b.ID())
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		<-d.Done()
		if took := time.Since(start); took < 4*time.Second || took > 7*time.Second {
			t.Errorf("refused after %v", took)
		}
		if e, ok := errors.AsType[*wire.Error](d.Err()); !ok || e.Code != wire.CodeTimeout || refusals.Failed.Load() != 1 {
			t.Errorf("got %v, %d counted", d.Err(), refusals.Failed.Load())
		}
		listener.Close()
		n.Close()
	})
}

// A pipe needs no network to run in a bubble.
func TestPipeInBubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, l := wire.Pipe(wire.ID{1}, wire.ID{2})
		transfer(t, d, l, 4<<20)
		start := time.Now()
		d.Control().SetReadDeadline(start.Add(time.Minute))
		if _, err := d.Control().Read(make([]byte, 1)); err == nil || time.Since(start) != time.Minute {
			t.Errorf("deadline after %v: %v", time.Since(start), err)
		}
		d.CloseWithError(wire.CodeOK, "")
	})
}
