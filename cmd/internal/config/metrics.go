package config

import (
	"fmt"
	"net"
	"strconv"
)

// Metrics says where Prometheus may ask besides the control API.
type Metrics struct {
	Listen string // HOST:PORT, plain HTTP; empty: none
}

type metricsTOML struct {
	Listen    string `toml:"listen"`
	Plaintext bool   `toml:"plaintext"`
}

// metrics keeps the names of VMs and peers off a network unless somebody says
// that they may go there.
func (c *checker) metrics(t metricsTOML) Metrics {
	if t.Listen == "" {
		if t.Plaintext {
			c.wrong("metrics.plaintext", fmt.Errorf("metrics.plaintext: it belongs to listen, which is missing; add it, or take this out"))
		}
		return Metrics{}
	}
	host, port, err := net.SplitHostPort(t.Listen)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	switch {
	case err != nil:
		c.wrong("metrics.listen", fmt.Errorf("metrics.listen %q: write ADDRESS:PORT, as in \"127.0.0.1:9920\"", t.Listen))
	case loopback(host) || t.Plaintext:
	default:
		c.wrong("metrics.listen", fmt.Errorf("metrics.listen %q: whoever reaches this address could read the names of VMs; write 127.0.0.1, or have Prometheus ask control.listen, "+
			"which has /metrics with TLS for viewers, or say plaintext = true", t.Listen))
	}
	return Metrics{Listen: t.Listen}
}
