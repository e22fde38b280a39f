package site

import (
	"fmt"
	"os"

	"github.com/haulback/haulback/wire"
)

// What the environment says about UDP. Sockets are opened in many places of a
// process, for all of which it holds.
const (
	// envQUIC is "gro" or empty for what is fastest, "plain" for sockets whose
	// packets the kernel does not merge, "stock" for quic-go's own reading.
	// The last is for comparison.
	envQUIC = "HAULBACK_QUIC"
	envGSO  = "QUIC_GO_DISABLE_GSO" // quic-go's
)

// PacketOptions are the switches for UDP sockets.
func PacketOptions() (wire.PacketOptions, error) {
	switch v := os.Getenv(envQUIC); v {
	case "", "gro":
		return wire.PacketOptions{}, nil
	case "plain":
		return wire.PacketOptions{NoGRO: true}, nil
	case "stock":
		return wire.PacketOptions{Stock: true}, nil
	default:
		return wire.PacketOptions{}, fmt.Errorf("%s=%q: not gro, plain or stock", envQUIC, v)
	}
}

// Offload switches off what the configuration of a daemon does not want, before
// its first socket. The environment wins.
func Offload(gro, gso bool) {
	for _, e := range []struct {
		name, value string
		allowed     bool
	}{{envQUIC, "plain", gro}, {envGSO, "true", gso}} {
		if os.Getenv(e.name) == "" && !e.allowed {
			_ = os.Setenv(e.name, e.value) // fails for names and values that cannot be
		}
	}
}

// openUDP opens a socket to dial from. The hint about buffers is the daemon's
// to give.
func openUDP() (*wire.PacketConn, error) {
	o, err := PacketOptions()
	if err != nil {
		return nil, err
	}
	pc, _, err := o.Listen(":0")
	return pc, err
}
