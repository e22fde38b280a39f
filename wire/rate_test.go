package wire_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/haulback/haulback/wire"
	"github.com/haulback/haulback/wire/wiretest"
)

// BenchmarkRate is the payload rate of one link between two processes, which
// is what two daemons are; 256 KiB to a write. A child of the test binary is
// the far end. Besides MB/s it reports the CPU time of both ends, which wanders
// less than the rate does:
//
//	GOMAXPROCS=1 go test ./wire -run '^$' -bench Rate -benchtime 4096x
//
// lost/op is what the sender has found lost; on loopback all of it is ours.
func BenchmarkRate(b *testing.B) {
	for _, kind := range []string{"stock", "plain", "gro", "tls"} {
		for _, way := range []string{"up", "down"} {
			b.Run(kind+"/"+way, func(b *testing.B) { benchmarkRate(b, kind, way) })
		}
	}
}

const (
	rateChunk = 256 << 10
	rateEnv   = "HAULBACK_RATE_SINK"
)

var packetOptions = map[string]wire.PacketOptions{"stock": {Stock: true}, "plain": {NoGRO: true}, "gro": {}}

func TestMain(m *testing.M) {
	if kind := os.Getenv(rateEnv); kind != "" {
		if err := rateSink(context.Background(), kind); err != nil {
			fmt.Fprintln(os.Stderr, "sink:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func benchmarkRate(b *testing.B, kind, way string) {
	key := wiretest.Key(b)
	child := exec.CommandContext(b.Context(), os.Args[0])
	child.Env = append(os.Environ(), rateEnv+"="+kind)
	child.Stderr = os.Stderr
	stdin, err := child.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	stdout, err := child.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := child.Start(); err != nil {
		b.Fatal(err)
	}
	defer child.Wait()
	defer stdin.Close()
	fmt.Fprintf(stdin, "%v\n", key.ID())
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	addr, far, _ := strings.Cut(strings.TrimSpace(line), " ")
	id, err := wire.ParseID(far)
	if err != nil {
		b.Fatal(err)
	}
	link, pc, err := rateDial(b.Context(), kind, addr, key, id)
	if err != nil {
		b.Fatal(err)
	}
	rateRun(b, link, way)
	link.CloseWithError(wire.CodeOK, "")
	if pc != nil && testing.Verbose() {
		b.Logf("near %+v", pc.Stats())
	}
}

func rateDial(ctx context.Context, kind, addr string, key *wire.Key, far wire.ID) (wire.Link, *wire.PacketConn, error) {
	if kind == "tls" {
		link, err := wire.DialTLS(ctx, addr, key, far)
		return link, nil, err
	}
	to, err := net.ResolveUDPAddr("udp", addr)
	if err != nil {
		return nil, nil, err
	}
	pc, _, err := packetOptions[kind].Listen(":0")
	if err != nil {
		return nil, nil, err
	}
	link, err := wire.DialQUIC(ctx, pc, to, key, one, far)
	return link, pc, err
}

// rateRun moves b.N chunks, up from here or down to here. The child answers
// with its CPU time and its losses on the control stream.
func rateRun(b *testing.B, link wire.Link, way string) {
	b.SetBytes(rateChunk)
	order := make([]byte, 9)
	order[0] = way[0]
	binary.BigEndian.PutUint64(order[1:], uint64(b.N))
	b.ResetTimer()
	cpu, lost := cpuTime(), link.Stats().Lost
	if _, err := link.Control().Write(order); err != nil {
		b.Fatal(err)
	}
	if err := rateMove(b.Context(), link, way[0] == 'u', b.N); err != nil {
		b.Fatal(err)
	}
	var answer [16]byte
	if _, err := io.ReadFull(link.Control(), answer[:]); err != nil {
		b.Fatal(err)
	}
	near, farCPU := cpuTime()-cpu, time.Duration(binary.BigEndian.Uint64(answer[:]))
	b.StopTimer()
	gib := float64(b.N) * rateChunk / (1 << 30)
	b.ReportMetric(near.Seconds()/gib, "near-cpu-s/GiB")
	b.ReportMetric(farCPU.Seconds()/gib, "far-cpu-s/GiB")
	b.ReportMetric(float64(link.Stats().Lost-lost+binary.BigEndian.Uint64(answer[8:])), "lost")
}

func rateMove(ctx context.Context, link wire.Link, send bool, n int) error {
	id := wire.StreamID{Kind: wire.StreamData}
	if !send {
		in, err := link.OpenReceive(ctx, id)
		if err != nil {
			return err
		}
		_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{in}, make([]byte, 1<<20))
		return err
	}
	out, err := link.OpenSend(ctx, id)
	if err != nil {
		return err
	}
	chunk := bytes.Repeat([]byte("0123456789abcdef"), rateChunk/16)
	for range n {
		if _, err := out.Write(chunk); err != nil {
			return err
		}
	}
	return out.CloseWrite()
}

// rateSink is the far end: it lives until the near end has closed stdin.
func rateSink(ctx context.Context, kind string) error {
	stdin := bufio.NewReader(os.Stdin)
	line, err := stdin.ReadString('\n')
	if err != nil {
		return err
	}
	near, err := wire.ParseID(strings.TrimSpace(line))
	if err != nil {
		return err
	}
	key, err := wire.NewKey()
	if err != nil {
		return err
	}
	l, pc, err := rateListen(kind, key, near)
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Println(l.Addr(), key.ID())
	link, err := l.Accept(ctx)
	if err != nil {
		return err
	}
	cpu, lost := cpuTime(), link.Stats().Lost
	var order [9]byte
	if _, err := io.ReadFull(link.Control(), order[:]); err != nil {
		return err
	}
	if err := rateMove(ctx, link, order[0] == 'd', int(binary.BigEndian.Uint64(order[1:]))); err != nil {
		return err
	}
	answer := binary.BigEndian.AppendUint64(nil, uint64(cpuTime()-cpu))
	answer = binary.BigEndian.AppendUint64(answer, link.Stats().Lost-lost)
	if _, err := link.Control().Write(answer); err != nil {
		return err
	}
	<-link.Done()
	if pc != nil && os.Getenv("HAULBACK_RATE_VERBOSE") != "" {
		fmt.Fprintf(os.Stderr, "far %+v\n", pc.Stats())
	}
	_, err = io.Copy(io.Discard, stdin)
	return err
}

func rateListen(kind string, key *wire.Key, near wire.ID) (wire.Listener, *wire.PacketConn, error) {
	peers := wiretest.NewPeers(near)
	if kind == "tls" {
		tcp, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, nil, err
		}
		l, err := wire.ListenTLS(tcp, key, peers, wire.ListenConfig{})
		return l, nil, err
	}
	pc, _, err := packetOptions[kind].Listen("127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	l, err := wire.ListenQUIC(pc, key, peers, wire.ListenConfig{})
	return l, pc, err
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
