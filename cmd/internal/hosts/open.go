package hosts

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/haulback/haulback/cmd/internal/config"
	"github.com/haulback/haulback/hostctl"
	"github.com/haulback/haulback/hostctl/osd"
	"github.com/haulback/haulback/hostctl/vsphere"
)

// Host is an opened host of any kind.
type Host interface {
	Host() *hostctl.Host
	// About asks it what it is.
	About(ctx context.Context) (About, error)
	Close(ctx context.Context) error
}

// About is what a host says of itself.
type About struct {
	Product string        // "VMware vCenter Server 8.0.2 build-22617221", "OpenStorage pxd 3.1.0, node worker-1"
	User    string        // who is logged in, or empty
	Ahead   time.Duration // how far its clock is ahead of ours, where it has one
}

// Options are what hosts are opened with.
type Options struct {
	// Client is that of a profile, and outlives the hosts.
	Client func(profile string) (*osd.Client, error)
	// Mine reports whether this controller's own passes use a volume; nil: none do.
	Mine func(volume string) bool
	// Calls counts those of vSphere hosts; nil: nobody does.
	Calls *hostctl.Calls
	Log   *slog.Logger
}

// Opened is a host of a configuration, or why it cannot be.
type Opened struct {
	*config.Host
	Open Host
	Err  error
}

// Open makes the clients of hosts, in their order. It talks to nobody: the first
// call logs in.
func Open(ctx context.Context, list []config.Host, o Options) []Opened {
	out := make([]Opened, len(list))
	compute := map[string]hostctl.Compute{}
	for i := range list {
		h := &list[i]
		out[i].Host = h
		if h.Kind == config.KindOpenStorage {
			continue
		}
		c, err := openVSphere(ctx, h, &o)
		if err != nil {
			out[i].Err = err
			continue
		}
		out[i].Open, compute[h.Name] = vm{c}, c.Host().Compute
	}
	for i := range list {
		if list[i].Kind == config.KindOpenStorage {
			out[i].Open, out[i].Err = openCluster(&list[i], compute, &o)
		}
	}
	return out
}

func openVSphere(ctx context.Context, h *config.Host, o *Options) (*vsphere.Client, error) {
	c := vsphere.Config{
		Name: h.Name, URL: h.URL, User: h.User, PasswordFile: h.PasswordFile,
		Thumbprint: h.Thumbprint, CAFile: h.CAFile, Datacenter: h.Datacenter, Log: o.Log,
	}
	if o.Calls != nil {
		c.Called = o.Calls.Of(h.Name)
	}
	return vsphere.Open(ctx, c)
}

// vm is a host that owns VMs.
type vm struct{ *vsphere.Client }

// About implements Host.
func (v vm) About(ctx context.Context) (About, error) {
	a, err := v.Client.About(ctx)
	return About{a.Product, a.User, a.Ahead}, err
}

// cluster is a host of workloads. Its client is the profile's.
type cluster struct {
	host   *osd.Host
	client *osd.Client
}

// Host implements Host.
func (c cluster) Host() *hostctl.Host { return c.host.Host() }

func openCluster(h *config.Host, compute map[string]hostctl.Compute, o *Options) (Host, error) {
	c, err := o.Client(h.OpenStorage)
	if err != nil {
		return nil, err
	}
	cfg := osd.HostConfig{Name: h.Name, Client: c, Mine: o.Mine, Log: o.Log}
	for i := range h.Workloads {
		w := &h.Workloads[i]
		one := osd.Workload{Name: w.Name}
		for _, v := range w.Volumes {
			one.Volumes = append(one.Volumes, osd.WorkloadVolume{Volume: v.Volume, Label: v.Label})
		}
		switch w.Compute {
		case config.ComputeNone:
		case config.ComputeExec:
			one.Power = programs{h.Name, w}
		default:
			of, ok := compute[w.Compute]
			if !ok {
				return nil, fmt.Errorf("workload %s: host %q, which powers it, cannot be opened", w.Name, w.Compute)
			}
			one.Power = &osd.VMPower{Compute: of, VM: query(w.VM)}
		}
		cfg.Workloads = append(cfg.Workloads, one)
	}
	return cluster{osd.NewHost(cfg), c}, nil
}

// query is a VM by its UUID, or by its name.
func query(vm string) hostctl.Query {
	if id, err := uuid.Parse(vm); err == nil && len(vm) == len(id.String()) {
		return hostctl.Query{UUID: vm}
	}
	return hostctl.Query{Name: vm}
}

// About implements Host.
func (c cluster) About(ctx context.Context) (About, error) {
	a, err := c.client.About(ctx)
	if err != nil {
		return About{}, err
	}
	return About{Product: fmt.Sprintf("OpenStorage %s %s, node %s", a.Driver, a.Version, a.Node)}, nil
}

// Close implements Host; the client goes on.
func (c cluster) Close(context.Context) error { return nil }
