package transfer

import (
	"context"
	"fmt"

	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/vddk"
	"github.com/haulback/haulback/wire"
)

// Place is a disk that no text of a caller names: one of a host.
type Place struct {
	Text string // for messages

	// Open opens one of this process. Unit tells it from others: two with the same
	// are the same disk.
	Open mover.OpenDisk
	Unit string

	// Otherwise it is an export of a paired daemon, and Peer its name.
	Address, Export, Peer string
}

// endpoint is p, or what text names where there is none.
func (p *Place) endpoint(text string) (*Endpoint, error) {
	if p == nil {
		return ParseEndpoint(text)
	}
	return &Endpoint{Text: p.Text, Address: p.Address, Export: p.Export, Peer: p.Peer, open: p.Open, unit: p.Unit}, nil
}

// ProbePlace tells what the daemon of p says of it, and changes nothing.
func ProbePlace(ctx context.Context, engine *mover.Engine, reach Reach, p *Place, transport string) (wire.Probed, error) {
	e, err := p.endpoint("")
	if err != nil {
		return wire.Probed{}, err
	}
	id, err := e.Pin(reach)
	if err != nil {
		return wire.Probed{}, err
	}
	out, err := engine.Probe(ctx, e.At(reach, transport, id))
	return out, unreachable(e, err, transport)
}

// describe is Describe of a Place.
func (e *Endpoint) describe(ctx context.Context) (vddk.Description, error) {
	disk, err := e.open(ctx, mover.ReadOnly)
	if err != nil {
		return vddk.Description{}, fmt.Errorf("open %s: %w", e.Text, err)
	}
	defer disk.Close() // only read
	d, ok := disk.(interface{ Describe() vddk.Description })
	if !ok {
		return vddk.Description{Size: disk.Size(), Identity: disk.Identity()}, nil
	}
	return d.Describe(), nil
}
