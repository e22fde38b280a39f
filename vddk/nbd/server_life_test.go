package nbd

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/haulback/haulback/cbt"
)

func rawCertificate(t *testing.T) tls.Certificate {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}
}

// gatedDevice holds every read until the gate opens.
func gatedDevice() (d *rawDevice, begun, gate chan struct{}) {
	begun, gate = make(chan struct{}, 100), make(chan struct{})
	d = newRawDevice(1 << 20)
	d.fail = func(op string, _ cbt.Extent) error {
		if op == "read" {
			begun <- struct{}{}
			<-gate
		}
		return nil
	}
	return d, begun, gate
}

// TestServerRemoveExport waits for the requests in work, answers them, and then
// nobody uses the device.
func TestServerRemoveExport(t *testing.T) {
	d, begun, gate := gatedDevice()
	s := serveRaw(t, ServerConfig{Exports: []Export{{Name: "a", Device: d}, {Device: newRawDevice(1 << 20)}}})
	k := s.dial().hello().choose("a", true)
	shaking := s.dial().hello()
	k.write(requestBytes(0, cmdRead, 1, 0, 512))
	<-begun
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.RemoveExport(short, "a"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("RemoveExport while a read hangs: %v", err)
	}
	if err := s.RemoveExport(t.Context(), "a"); err == nil {
		t.Error("the export was removed twice")
	}
	if err := s.AddExport(Export{Name: "a", Device: newRawDevice(1 << 20)}); err != nil {
		t.Errorf("add another of that name: %v", err)
	}
	removed := make(chan error, 1)
	go func() { removed <- s.RemoveExport(t.Context(), "a") }()
	if err := within(t, "RemoveExport without clients", removed); err != nil {
		t.Error(err)
	}
	s.served()
	close(gate)
	if a := k.answer(0); a.cookie != 1 || len(a.data) != 512 {
		t.Errorf("the request in work was answered %+v", a)
	}
	k.closed()
	shaking.want(repErrUnknown, optGo, join(str("a"), be16(0)))
}

// TestServerRemoveExportWaits wants RemoveExport to return after the read.
func TestServerRemoveExportWaits(t *testing.T) {
	d, begun, gate := gatedDevice()
	s := serveRaw(t, ServerConfig{Exports: []Export{{Name: "a", Device: d}}})
	k := s.dial().hello().choose("a", true)
	k.write(requestBytes(0, cmdRead, 1, 0, 512))
	<-begun
	var open atomic.Bool
	removed := make(chan error, 1)
	go func() {
		err := s.RemoveExport(t.Context(), "a")
		if !open.Load() {
			err = errors.New("RemoveExport returned while a read was in work")
		}
		removed <- err
	}()
	for gone := false; !gone; runtime.Gosched() {
		gone = s.lookup("a") == nil
	}
	open.Store(true)
	close(gate)
	if err := within(t, "RemoveExport", removed); err != nil {
		t.Error(err)
	}
}

// TestServerEnds wants Serve to answer what is in work and take nothing more.
func TestServerEnds(t *testing.T) {
	d, begun, gate := gatedDevice()
	s := serveRaw(t, ServerConfig{Exports: []Export{{Device: d}}})
	busy, idle, shaking := s.dial().hello().choose("", true), s.dial().hello().choose("", true), s.dial().hello()
	busy.write(requestBytes(0, cmdRead, 1, 0, 512))
	<-begun
	s.cancel()
	idle.closed()
	shaking.closed()
	if _, err := net.Dial("unix", s.socket); err == nil {
		t.Error("the socket still takes connections")
	}
	select {
	case err := <-s.done:
		t.Fatalf("Serve returned %v while a read was in work", err)
	default:
	}
	close(gate)
	if a := busy.answer(0); a.cookie != 1 {
		t.Errorf("answer %+v", a)
	}
	busy.closed()
	if err := within(t, "Serve", s.done); err != nil {
		t.Error(err)
	}
}

// TestServerEndsDeaf wants a client that reads nothing not to hold up the end.
func TestServerEndsDeaf(t *testing.T) {
	s := serveRaw(t, ServerConfig{Exports: []Export{{Device: newRawDevice(1 << 20)}}, DrainTimeout: 100 * time.Millisecond})
	k := s.dial().hello().choose("", true)
	go func() {
		for range 1000 {
			if _, err := k.conn.Write(requestBytes(0, cmdRead, 1, 0, 1<<20)); err != nil {
				return
			}
		}
	}()
	k.read(4) // the first answer has begun
	s.cancel()
	if err := within(t, "Serve", s.done); err != nil {
		t.Error(err)
	}
}

// TestServerClose ends all listeners and refuses new ones.
func TestServerClose(t *testing.T) {
	s := serveRaw(t, ServerConfig{})
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	second := make(chan error, 1)
	go func() { second <- s.Serve(context.WithoutCancel(t.Context()), tcp) }()
	if err := s.AddExport(Export{Device: newRawDevice(1 << 20)}); err != nil {
		t.Fatal(err)
	}
	s.served()
	conn, err := net.Dial("tcp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if k := newRawClient(t, conn).hello().choose("", true); k == nil {
		t.Error("no client over TCP")
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	if err := errors.Join(within(t, "Serve of TCP", second), within(t, "Serve", s.done)); err != nil {
		t.Error(err)
	}
	if err := s.Serve(t.Context(), tcp); !errors.Is(err, ErrServerClosed) {
		t.Errorf("Serve after Close: %v", err)
	}
	if err := s.AddExport(Export{Name: "x", Device: newRawDevice(1)}); !errors.Is(err, ErrServerClosed) {
		t.Errorf("AddExport after Close: %v", err)
	}
}

// TestServerIdle is called when the last client left, and not for one that
// only looked around.
func TestServerIdle(t *testing.T) {
	idle := make(chan struct{}, 10)
	s := serveRaw(t, ServerConfig{Exports: []Export{{Device: newRawDevice(1 << 20)}}, Idle: func() { idle <- struct{}{} }})
	look := s.dial().hello()
	look.want(repAck, optList, nil)
	look.want(repAck, optAbort, nil)
	look.closed()
	a, b := s.dial().hello().choose("", true), s.dial().hello().choose("", false)
	a.conn.Close()
	b.write(requestBytes(0, cmdRead, 1, 0, 512))
	b.answer(512)
	if len(idle) != 0 {
		t.Error("idle with a client")
	}
	b.conn.Close()
	select {
	case <-idle:
	case <-time.After(10 * time.Second):
		t.Error("not idle without clients")
	}
}

// TestServerRefusesExports is what AddExport checks.
func TestServerRefusesExports(t *testing.T) {
	d := newRawDevice(1000)
	for _, x := range []Export{
		{},
		{Device: d, Name: "\xff"},
		{Device: d, MinBlock: 3},
		{Device: d, MinBlock: 512},
		{Device: d, MinBlock: 1 << 20},
		{Device: d, PreferredBlock: 100},
		{Device: d, MaxRequest: 100},
		{Device: d, MaxRequest: 1 << 30},
	} {
		if s, err := NewServer(ServerConfig{Exports: []Export{x}}); err == nil {
			t.Errorf("%+v was accepted: %v", x, s)
		}
	}
	if _, err := NewServer(ServerConfig{Exports: []Export{{Device: d}, {Device: d}}}); err == nil {
		t.Error("two exports of one name were accepted")
	}
	if _, err := NewServer(ServerConfig{MaxMemory: 10}); err == nil {
		t.Error("10 bytes of memory were accepted")
	}
}

// TestServerAllocates nothing per request.
func TestServerAllocates(t *testing.T) {
	if serverRace {
		t.Skip("the race detector allocates")
	}
	d := newRawDevice(4 << 20)
	d.holes = []cbt.Extent{{Off: 2 << 20, Len: 1 << 20}}
	s := serveRaw(t, ServerConfig{Exports: []Export{{Device: d, FastZero: true}}})
	k := s.dial().hello().choose("", true)
	payload := make([]byte, 65536)
	requests := [][]byte{
		requestBytes(0, cmdRead, 1, 0, 65536),
		requestBytes(0, cmdRead, 1, 2<<20, 65536),
		join(requestBytes(0, cmdWrite, 1, 0, 65536), payload),
		join(requestBytes(cmdFlagFUA, cmdWrite, 1, 3, 512), payload[:512]),
		requestBytes(0, cmdFlush, 1, 0, 0),
		requestBytes(0, cmdTrim, 1, 0, 4096),
		requestBytes(0, cmdWriteZeroes, 1, 0, 4096),
		requestBytes(0, cmdBlockStatus, 1, 0, 4<<20),
		requestBytes(0, cmdRead, 1, 1<<63, 1),
	}
	var buf [1 << 17]byte
	round := func() {
		for _, r := range requests {
			if _, err := k.conn.Write(r); err != nil {
				t.Fatal(err)
			}
			readAnswer(t, k, buf[:])
		}
	}
	for range 50 {
		round() // blocks and stacks are made
	}
	if n := testing.AllocsPerRun(300, round); n > 0.5 {
		t.Errorf("%.1f allocations for %d requests", n, len(requests))
	}
}

// readAnswer reads one answer and allocates nothing.
func readAnswer(t *testing.T, k *rawClient, buf []byte) {
	need := func(n int) []byte {
		for read := 0; read < n; {
			m, err := k.br.Read(buf[read:n])
			if err != nil {
				t.Fatal(err)
			}
			read += m
		}
		return buf[:n]
	}
	if b := need(16); b[0] == 0x66 {
		length := int(need(4)[2])<<8 | int(buf[3]) | int(buf[1])<<16
		need(length)
	}
}
