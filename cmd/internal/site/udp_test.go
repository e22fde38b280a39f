package site

import (
	"os"
	"testing"

	"github.com/haulback/haulback/wire"
)

func TestPacketOptions(t *testing.T) {
	for _, c := range []struct {
		env      string
		gro, gso bool
		want     wire.PacketOptions
		noGSO    string
	}{
		{"", true, true, wire.PacketOptions{}, ""},
		{"", false, true, wire.PacketOptions{NoGRO: true}, ""},
		{"", true, false, wire.PacketOptions{}, "true"},
		{"gro", false, true, wire.PacketOptions{}, ""},
		{"plain", true, true, wire.PacketOptions{NoGRO: true}, ""},
		{"stock", false, true, wire.PacketOptions{Stock: true}, ""},
	} {
		t.Setenv(envQUIC, c.env)
		t.Setenv(envGSO, "")
		Offload(c.gro, c.gso)
		got, err := PacketOptions()
		if err != nil || got != c.want || os.Getenv(envGSO) != c.noGSO {
			t.Errorf("%+v: %+v, %v, GSO off: %q", c, got, err, os.Getenv(envGSO))
		}
	}
	t.Setenv(envQUIC, "fast")
	if o, err := PacketOptions(); err == nil {
		t.Errorf("fast: %+v", o)
	}
}
