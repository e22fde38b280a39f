package osd

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/libopenstorage/openstorage/api"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// maxReply bounds a reply in bytes: a volume is some KiB, a cluster has thousands.
const maxReply = 64 << 20

// Client is one profile's endpoint. It is safe for concurrent use.
type Client struct {
	cfg   Config
	log   *slog.Logger
	token *tokenFile
	wait  waits

	conn     *grpc.ClientConn
	identity api.OpenStorageIdentityClient
	nodes    api.OpenStorageNodeClient
	volumes  api.OpenStorageVolumeClient
	mounts   api.OpenStorageMountAttachClient

	mu    sync.Mutex
	about *About // what was last said, or nil
}

// waits are a Client's numbers that a test wants small.
type waits struct {
	tries int           // of one call
	least time.Duration // before the second try; doubles
	most  time.Duration
	poll  time.Duration // between two looks at what takes its time
}

var defaultWaits = waits{tries: 3, least: 200 * time.Millisecond, most: 5 * time.Second, poll: time.Second}

// Open makes a Client of what Check takes. It talks to nobody: a server that is
// down is found by the first call.
func Open(cfg Config) (*Client, error) {
	if err := cfg.Check(); err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg.withDefaults(), token: &tokenFile{path: cfg.TokenFile, granted: cfg.Granted}, wait: defaultWaits}
	c.log = c.cfg.Log.With("profile", c.cfg.Name)
	conn, err := c.dial()
	if err != nil {
		return nil, err
	}
	c.use(conn)
	return c, nil
}

// use makes all calls over conn.
func (c *Client) use(conn *grpc.ClientConn) {
	c.conn = conn
	c.identity = api.NewOpenStorageIdentityClient(conn)
	c.nodes = api.NewOpenStorageNodeClient(conn)
	c.volumes = api.NewOpenStorageVolumeClient(conn)
	c.mounts = api.NewOpenStorageMountAttachClient(conn)
}

// dial makes a connection that is made when it is used. Nothing repeats a call but
// observe and change: gRPC's own retries, and those that a name server may ask for,
// are off. So is a proxy from the environment.
func (c *Client) dial(more ...grpc.DialOption) (*grpc.ClientConn, error) {
	creds := insecure.NewCredentials()
	if !c.cfg.Plaintext && c.cfg.unixPath() == "" {
		t, err := c.cfg.tlsConfig()
		if err != nil {
			return nil, fmt.Errorf("openstorage %s: %w", c.cfg.Name, err)
		}
		creds = credentials.NewTLS(t)
	}
	target, authority := c.cfg.Endpoint, c.cfg.Endpoint
	if p := c.cfg.unixPath(); p != "" {
		target, authority = p, "localhost"
	}
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(creds),
		grpc.WithContextDialer(c.dialer),
		grpc.WithDisableRetry(), grpc.WithDisableServiceConfig(), grpc.WithNoProxy(),
		grpc.WithUserAgent("haulback"),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxReply)),
		grpc.WithConnectParams(grpc.ConnectParams{
			// The default starts at 1 s, in which all tries of a call fail at once.
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 5 * time.Second},
			MinConnectTimeout: 10 * time.Second,
		}),
	}
	if !c.tls() {
		options = append(options, grpc.WithAuthority(authority))
	}
	conn, err := grpc.NewClient("passthrough:///"+target, append(options, more...)...)
	if err != nil {
		return nil, fmt.Errorf("openstorage %s: endpoint: %w", c.cfg.Name, err)
	}
	return conn, nil
}

func (c *Client) tls() bool { return c.cfg.unixPath() == "" && !c.cfg.Plaintext }

// dialer connects, and refuses a plaintext connection that leaves the machine: only
// an address that was dialled says what "localhost" is.
func (c *Client) dialer(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	if c.cfg.unixPath() != "" {
		return d.DialContext(ctx, "unix", address)
	}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil || c.tls() {
		return conn, err
	}
	if a, ok := conn.RemoteAddr().(*net.TCPAddr); !ok || !a.IP.IsLoopback() {
		_ = conn.Close()
		return nil, fmt.Errorf("%s is not on this machine; plaintext is for loopback only", address)
	}
	return conn, nil
}

// Name is the profile's.
func (c *Client) Name() string { return c.cfg.Name }

// Config is what the Client was made of, with the defaults.
func (c *Client) Config() Config { return c.cfg }

// Close ends the connection. It is idempotent. What a Keeper holds is not released.
func (c *Client) Close() error {
	_ = c.conn.Close() // an error says that it is closed already
	return nil
}
