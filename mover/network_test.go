package mover_test

import (
	"context"
	"flag"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/haulback/haulback/wire"
	"github.com/haulback/haulback/wire/wiretest"
)

// network is a simulated network between a source and a machine: real QUIC and
// TLS over packets that are lost, doubled, damaged, late, or cut off.
type network struct {
	net          *wiretest.Net
	near, far    *wire.Key
	source       *wire.Socket
	timers       []*time.Timer
	planned      time.Duration
	afterPlanned time.Duration
	connections  int // under a link; 1 or 2, by the seed
}

const (
	sourceAddr = "10.1.0.1:7420"
	targetAddr = "10.2.0.1:7420"
)

// newNetwork returns the way to attach a network in a bubble; making keys is
// left outside.
func newNetwork(t *testing.T) func(seed uint64) *network {
	near, far := wiretest.Key(t), wiretest.Key(t)
	return func(seed uint64) *network {
		n := &network{net: wiretest.NewNet(seed), near: near, far: far, connections: 1 + int(seed%2)}
		n.source = wire.NewSocket(n.net.Endpoint(sourceAddr), near)
		n.quiet()
		return n
	}
}

// heal ends all cuts, also those still planned.
func (n *network) heal() {
	for _, t := range n.timers {
		t.Stop()
	}
	n.timers = nil
	n.net.Heal()
}

// quiet is a network without faults, 5 ms away.
func (n *network) quiet() {
	n.heal()
	n.net.SetFaults(wiretest.Faults{Delay: 5 * time.Millisecond})
	n.planned = 0
}

// trouble plans the faults of the next life.
func (n *network) trouble(rng *rand.Rand) {
	n.heal()
	f := wiretest.Faults{Delay: time.Duration(1+rng.IntN(40)) * time.Millisecond}
	if rng.IntN(2) == 0 {
		f.Loss, f.Dup, f.Corrupt = 0.02*rng.Float64(), 0.02*rng.Float64(), 0.005*rng.Float64()
		f.Jitter = time.Duration(rng.IntN(5)) * time.Millisecond
	}
	n.net.SetFaults(f)
	n.planned, n.afterPlanned = 0, 0
	if rng.IntN(2) == 0 { // a partition or a one-way cut, sometimes longer than anyone waits
		n.planned = time.Duration(1+rng.IntN(800)) * time.Millisecond
		n.afterPlanned = []time.Duration{time.Second, 10 * time.Second, 40 * time.Second, 10 * time.Minute}[rng.IntN(4)]
	}
}

func (n *network) connect(wrap func(wire.Link) wire.Link) (wire.ID, wire.Listener, func(context.Context) (wire.Link, error)) {
	l, err := wire.ListenQUIC(n.net.Endpoint(targetAddr), n.far, wiretest.NewPeers(n.near.ID()), wire.ListenConfig{})
	if err != nil {
		panic(err) // of a simulated socket: a bug of the test
	}
	if n.planned > 0 {
		from, to := "", ""
		if n.planned%2 == 0 {
			from, to = sourceAddr, targetAddr
		}
		n.timers = append(n.timers, time.AfterFunc(n.planned, func() { n.net.Cut(from, to) }),
			time.AfterFunc(n.planned+n.afterPlanned, n.net.Heal))
	}
	addr := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(targetAddr))
	return n.near.ID(), l, func(ctx context.Context) (wire.Link, error) {
		link, err := n.source.Dial(ctx, addr, wire.DialConfig{Connections: n.connections}, n.far.ID())
		if err == nil && wrap != nil {
			link = wrap(link)
		}
		return link, err
	}
}

func (n *network) close() {
	n.heal()
	_ = n.source.Close()
	_ = n.net.Close()
}

var (
	netSeeds = flag.Uint64("netseeds", 500, "how many seeds TestSimulatedNetwork lives through")
	netSeed  = flag.Uint64("netseed", 0, "the seed of TestSimulatedNetworkSeed")
)

// TestSimulatedNetwork is TestSimulatedMachine over real QUIC on a simulated
// network.
func TestSimulatedNetwork(t *testing.T) {
	attach := newNetwork(t)
	seeds := *netSeeds
	if testing.Short() {
		seeds = 40
	}
	for seed := range seeds {
		if err := simulateOn(t, seed, 0, attach); err != nil {
			t.Fatalf("seed %d: %v\nreplay: go test ./mover -run TestSimulatedNetworkSeed -netseed %d", seed, err, seed)
		}
	}
	t.Logf("figure: simulated network with real QUIC: %d seeds, no invariant broken", seeds)
}

func TestSimulatedNetworkSeed(t *testing.T) {
	if err := simulateOn(t, *netSeed, 0, newNetwork(t)); err != nil {
		t.Fatalf("seed %d: %v", *netSeed, err)
	}
}
