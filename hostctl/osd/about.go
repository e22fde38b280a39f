package osd

import (
	"context"
	"math"
	"os"
	"strings"

	"github.com/libopenstorage/openstorage/api"
	"google.golang.org/grpc"
)

// About is what an endpoint says of itself.
type About struct {
	Driver, Version string // of the storage
	SDK             string // version of the API
	Node            string // id of the node that answers; attachments are made there
	Hostname        string
	Scheduler       string // the node's name for Kubernetes

	addresses []string // of the node
}

// About asks the endpoint what it is.
func (c *Client) About(ctx context.Context) (About, error) {
	var r *api.SdkIdentityVersionResponse
	err := c.observe(ctx, op{method: "Version"}, func(ctx context.Context, o ...grpc.CallOption) (err error) {
		r, err = c.identity.Version(ctx, &api.SdkIdentityVersionRequest{}, o...)
		return err
	})
	if err != nil {
		return About{}, err
	}
	a := About{
		Driver: clean(r.GetVersion().GetDriver()), Version: clean(r.GetVersion().GetVersion()),
		SDK: clean(r.GetSdkVersion().GetVersion()),
	}
	if !plain(a.Driver, maxProfile) {
		return About{}, c.refuse("Version", "", "it calls its driver %q, which is no name", a.Driver)
	}
	n, err := c.node(ctx, c.nodes)
	if err != nil && !isClass(err, Unsupported) {
		return About{}, err
	}
	a.Node, a.Hostname, a.Scheduler = clean(n.GetId()), clean(n.GetHostname()), clean(n.GetSchedulerNodeName())
	a.addresses = []string{n.GetMgmtIp(), n.GetDataIp()}
	c.mu.Lock()
	c.about = &a
	c.mu.Unlock()
	return a, nil
}

// known is what the endpoint has said of itself, asked once.
func (c *Client) known(ctx context.Context) (About, error) {
	c.mu.Lock()
	a := c.about
	c.mu.Unlock()
	if a != nil {
		return *a, nil
	}
	return c.About(ctx)
}

// node asks which node answers.
func (c *Client) node(ctx context.Context, nodes api.OpenStorageNodeClient) (*api.StorageNode, error) {
	var r *api.SdkNodeInspectCurrentResponse
	err := c.observe(ctx, op{method: "InspectCurrent"}, func(ctx context.Context, o ...grpc.CallOption) (err error) {
		r, err = nodes.InspectCurrent(ctx, &api.SdkNodeInspectCurrentRequest{}, o...)
		return err
	})
	return r.GetNode(), err
}

// Here answers nil when what the endpoint attaches appears on this machine: it is a
// unix socket, or the node that answers is the one that it has to be. It asks twice,
// the second time over a connection of its own: a balancer that leads to more than
// one node would attach elsewhere.
func (c *Client) Here(ctx context.Context) error {
	want := []string{c.cfg.Node}
	if c.cfg.Node == "" {
		if c.cfg.unixPath() != "" {
			return nil
		}
		name, err := os.Hostname()
		if err != nil || name == "" {
			return c.refuse("InspectCurrent", "", "this machine has no hostname; name the node in node")
		}
		// The kernel's name may have the domain; a node is known by either.
		short, _, _ := strings.Cut(name, ".")
		want = []string{name, short}
	}
	first, err := c.node(ctx, c.nodes)
	if err != nil {
		return err
	}
	other, err := c.dial()
	if err != nil {
		return err
	}
	defer other.Close()
	second, err := c.node(ctx, api.NewOpenStorageNodeClient(other))
	if err != nil {
		return err
	}
	if first.GetId() == "" || first.GetId() != second.GetId() {
		return c.refuse("InspectCurrent", "", "two calls are answered by node %q and node %q: the endpoint has to be that of this machine's node, not of a balancer",
			clean(first.GetId()), clean(second.GetId()))
	}
	c.mu.Lock()
	if c.about != nil && c.about.Node != first.GetId() { // the node was set up anew
		c.about = nil
	}
	c.mu.Unlock()
	for _, w := range want {
		if w == first.GetId() || w == first.GetHostname() || w == first.GetSchedulerNodeName() {
			return nil
		}
	}
	return c.refuse("InspectCurrent", "", "the endpoint is that of node %q (hostname %q, scheduler's name %q), not of %q: volumes would be attached there; write this machine's endpoint, or its node's name into node",
		clean(first.GetId()), clean(first.GetHostname()), clean(first.GetSchedulerNodeName()), want[0])
}

// Space is the free space and the size of the node's pools together, in bytes; 0
// and 0 where it says nothing of them.
func (c *Client) Space(ctx context.Context) (free, size int64, err error) {
	n, err := c.node(ctx, c.nodes)
	if isClass(err, Unsupported) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, err
	}
	for _, p := range n.GetPools() {
		total, used := p.GetTotalSize(), p.GetUsed()
		if total > math.MaxInt64-uint64(size) {
			return 0, 0, c.refuse("InspectCurrent", "", "its pools have more bytes than there are")
		}
		size += int64(total)
		free += int64(total - min(used, total))
	}
	return free, size, nil
}

// Identity is "osd:DRIVER/ID": the same for every profile that leads to the volume.
func (c *Client) Identity(v Volume) string { return Scheme + ":" + v.driver + "/" + v.ID }
