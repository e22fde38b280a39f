package wiretest

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/quic-go/quic-go/testutils/simnet"
)

// Faults is what a Net does to packets. Probabilities are 0 to 1, per packet
// and direction.
type Faults struct {
	Loss    float64       // the packet is gone
	Dup     float64       // it comes twice
	Corrupt float64       // one byte of it is changed
	Delay   time.Duration // one way
	Jitter  time.Duration // added to Delay, uniform from 0; reorders
}

// Stats counts what a Net did.
type Stats struct {
	Sent, Lost, Dup, Corrupt int
}

// Net is a packet network in memory for use in a synctest bubble: time is the
// bubble's, chance comes from the seed. Faults may change while it runs.
type Net struct {
	mu     sync.Mutex
	rng    *rand.Rand
	faults Faults
	cuts   map[[2]string]bool // from, to; "" is anybody
	nodes  map[string]simnet.PacketReceiver
	links  []*simnet.SimulatedLink
	conns  []net.PacketConn
	stats  Stats
}

// NewNet returns a network without faults.
func NewNet(seed uint64) *Net {
	return &Net{
		rng:   rand.New(rand.NewPCG(seed, 0x4e6574)),
		cuts:  map[[2]string]bool{},
		nodes: map[string]simnet.PacketReceiver{},
	}
}

// Endpoint attaches a socket with the address addr ("10.0.0.1:7420").
func (n *Net) Endpoint(addr string) net.PacketConn {
	udp := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(addr))
	link := &simnet.SimulatedLink{LatencyFunc: n.latency, UploadPacket: n}
	link.UplinkSettings.MTU, link.DownlinkSettings.MTU = 1500, 1500
	conn := simnet.NewBlockingSimConn(udp, link)
	link.Start()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.nodes[addr] = link
	n.links = append(n.links, link)
	n.conns = append(n.conns, conn)
	return conn
}

// SetFaults applies to the packets that are sent from now on.
func (n *Net) SetFaults(f Faults) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.faults = f
}

// Cut drops what is sent from one address to another, in this direction only.
// "" stands for any address: Cut("", "") is a partition.
func (n *Net) Cut(from, to string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cuts[[2]string{from, to}] = true
}

// Heal ends all cuts.
func (n *Net) Heal() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.cuts)
}

// Stats is what happened until now.
func (n *Net) Stats() Stats {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.stats
}

// settle is more than what links and private sockets need to end after they
// were closed. In a bubble it costs nothing.
const settle = 10 * time.Second

// Close ends the network. It first waits for the sockets of links that were
// closed before: a bubble's clock stands still after its function returned.
func (n *Net) Close() error {
	time.Sleep(settle)
	n.mu.Lock()
	links, conns := n.links, n.conns
	n.mu.Unlock()
	var errs []error
	for _, c := range conns {
		errs = append(errs, c.Close())
	}
	for _, l := range links {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

// AddNode implements simnet.Router; Endpoint does it.
func (n *Net) AddNode(net.Addr, simnet.PacketReceiver) {}

// SendPacket implements simnet.Router.
func (n *Net) SendPacket(p simnet.Packet) error {
	to, copies := n.fate(&p)
	for range copies {
		to.RecvPacket(simnet.Packet{From: p.From, To: p.To, Data: slices.Clone(p.Data)})
	}
	return nil
}

// fate decides where p goes, how often, and damages it.
func (n *Net) fate(p *simnet.Packet) (to simnet.PacketReceiver, copies int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.stats.Sent++
	to, ok := n.nodes[p.To.String()]
	if !ok || n.cutLocked(p.From.String(), p.To.String()) || n.rng.Float64() < n.faults.Loss {
		n.stats.Lost++
		return nil, 0
	}
	if len(p.Data) > 0 && n.rng.Float64() < n.faults.Corrupt {
		n.stats.Corrupt++
		p.Data = slices.Clone(p.Data)
		p.Data[n.rng.IntN(len(p.Data))] ^= byte(1 + n.rng.IntN(255))
	}
	if n.rng.Float64() < n.faults.Dup {
		n.stats.Dup++
		return to, 2
	}
	return to, 1
}

func (n *Net) cutLocked(from, to string) bool {
	return n.cuts[[2]string{"", ""}] || n.cuts[[2]string{from, ""}] || n.cuts[[2]string{"", to}] || n.cuts[[2]string{from, to}]
}

func (n *Net) latency(simnet.Packet) time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	d := n.faults.Delay
	if n.faults.Jitter > 0 {
		d += time.Duration(n.rng.Int64N(int64(n.faults.Jitter)))
	}
	return d
}
