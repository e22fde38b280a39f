package wan

import (
	"io"
	"net"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkTCP sends payload over a link of 1 Gbit/s and 50 ms. Mbit/s is to be
// read with -benchtime=5s or more: the first second is slow start. cpu-ms/s is of
// both ends' copying, their kernels and the link.
func BenchmarkTCP(b *testing.B) {
	for _, control := range []string{"cubic", "bbr"} {
		for _, loss := range []float64{0, 0.001} {
			b.Run("control="+control+"/loss="+strconv.FormatFloat(loss*100, 'g', -1, 64)+"%", func(b *testing.B) {
				benchTCP(b, control, loss)
			})
		}
	}
}

func benchTCP(b *testing.B, control string, loss float64) {
	l, err := New(Symmetric(1000*mbit, 50*time.Millisecond, 50*time.Millisecond, loss, 1))
	if err != nil {
		b.Skip(err)
	}
	defer l.Close()
	var listener net.Listener
	if err := l.B.Do(func() (err error) {
		listener, err = new(net.ListenConfig).Listen(b.Context(), "tcp", l.B.Addr.String()+":0")
		return err
	}); err != nil {
		b.Fatal(err)
	}
	defer listener.Close()
	var c net.Conn
	if err := l.A.Do(func() (err error) {
		c, err = new(net.Dialer).DialContext(b.Context(), "tcp", listener.Addr().String())
		return err
	}); err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	s, err := listener.Accept()
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		b.Fatal(err)
	}
	var set error
	_ = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, control)
		_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUFFORCE, 16<<20)
	})
	if set != nil {
		b.Skip(control, ": ", set)
	}
	const size = 1 << 20
	done := make(chan error, 1)
	b.SetBytes(size)
	var before, after unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &before)
	b.ResetTimer()
	go func() {
		_, err := io.CopyN(struct{ io.Writer }{io.Discard}, s, int64(b.N)*size)
		done <- err
	}()
	block := make([]byte, 256<<10)
	for range b.N * (size / len(block)) {
		if _, err := c.Write(block); err != nil {
			b.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	_ = unix.Getrusage(unix.RUSAGE_SELF, &after)
	cpu := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
	b.ReportMetric(float64(b.N)*size*8/1e6/b.Elapsed().Seconds(), "Mbit/s")
	b.ReportMetric(float64(cpu)/1e6/b.Elapsed().Seconds(), "cpu-ms/s")
	n := l.Stats()
	b.ReportMetric(float64(n.Out.Packets)/float64(n.Out.Reads), "packets/read")
	b.ReportMetric(float64(n.Out.Full), "full")
	b.ReportMetric(float64(n.Out.Lost), "lost")
}
