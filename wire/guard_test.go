package wire

import (
	"bytes"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func from(ip string) net.Addr { return &net.UDPAddr{IP: net.ParseIP(ip), Port: 1} }

// fillSlots takes slots from ip until there are none.
func fillSlots(g *guard, ip string) (releases []func()) {
	for {
		release, ok := g.admit(from(ip))
		if !ok {
			return releases
		}
		releases = append(releases, release)
	}
}

func TestGuardPrefix(t *testing.T) {
	for _, c := range []struct{ a, same, other string }{
		{"192.0.2.1", "192.0.2.77", "192.0.3.1"},
		{"::ffff:192.0.2.1", "192.0.2.77", "192.0.3.1"},
		{"2001:db8:1:100::1", "2001:db8:1:1ff::2", "2001:db8:1:200::1"},
	} {
		g := newGuard(ListenConfig{})
		held := fillSlots(g, c.a)
		if len(held) != maxOpeningPrefix {
			t.Errorf("%s got %d slots", c.a, len(held))
		}
		if _, ok := g.admit(from(c.same)); ok {
			t.Errorf("%s got a slot beside %s", c.same, c.a)
		}
		if _, ok := g.admit(from(c.other)); !ok {
			t.Errorf("%s got none beside %s", c.other, c.a)
		}
		held[0]()
		held[0]() // the second call must not free another's
		if got := len(fillSlots(g, c.same)); got != 1 {
			t.Errorf("one release made room for %d", got)
		}
	}
}

func TestGuardReserve(t *testing.T) {
	known := netip.MustParseAddr("198.51.100.9")
	refusals := new(Refusals)
	g := newGuard(ListenConfig{KnownAddrs: func(a netip.Addr) bool { return a == known }, Refusals: refusals})
	var releases []func()
	for i := range 100 {
		releases = append(releases, fillSlots(g, net.IPv4(10, 0, byte(i), 1).String())...)
	}
	if len(releases) != maxOpening {
		t.Errorf("strangers got %d slots", len(releases))
	}
	reserved := fillSlots(g, known.String())
	if len(reserved) != reservedOpening {
		t.Errorf("a paired peer got %d slots of a full listener", len(reserved))
	}
	if refusals.Busy.Load() != 101 {
		t.Errorf("%d refusals counted", refusals.Busy.Load())
	}
	for _, release := range append(releases, reserved...) {
		release()
	}
	if g.open != 0 || g.reserved != 0 || len(g.prefixes) != 0 {
		t.Errorf("%d open, %d reserved, %d prefixes remain", g.open, g.reserved, len(g.prefixes))
	}
}

func TestGuardMustProve(t *testing.T) {
	known := netip.MustParseAddr("198.51.100.9")
	g := newGuard(ListenConfig{KnownAddrs: func(a netip.Addr) bool { return a == known }})
	if !g.mustProve(from("192.0.2.1")) || g.mustProve(from(known.String())) {
		t.Error("an unknown address need not, or a known one must, prove itself")
	}
	g = newGuard(ListenConfig{})
	if g.mustProve(from("192.0.2.1")) {
		t.Error("an idle listener that knows nobody asks for proof")
	}
	for range retryOpeningPrefix {
		g.admit(from("192.0.2.1"))
	}
	if !g.mustProve(from("192.0.2.2")) {
		t.Error("a half full prefix need not prove itself")
	}
	for i := range 40 {
		g.admit(from(net.IPv4(10, 0, byte(i), 1).String()))
	}
	if !g.mustProve(from("203.0.113.1")) {
		t.Error("a busy listener asks for no proof")
	}
}

func TestGuardLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		g := newGuard(ListenConfig{Log: slog.New(slog.NewTextHandler(&out, nil))})
		for range 1000 {
			g.failed(from("192.0.2.1"), Errorf(CodeUnauthorized, "%w\nforged=line", ErrUnknownPeer))
		}
		if n := strings.Count(out.String(), "\n"); n != 1 {
			t.Errorf("%d lines for 1000 refusals", n)
		}
		time.Sleep(refusalLogEvery)
		g.failed(from("192.0.2.1"), ErrFrame)
		if n := strings.Count(out.String(), "\n"); n != 2 || !strings.Contains(out.String(), "unknown=1000 failed=1") {
			t.Errorf("after 10 s:\n%s", out.String())
		}
	})
}
