package selfcheck

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/user"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/cmd/internal/build"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/cmd/internal/size"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

// user warns whoever is not the one that the state directory belongs to: what
// root may open says nothing of what the daemon may.
func (c *checks) user(euid int) {
	var st unix.Stat_t
	if unix.Stat(c.site.Dir(), &st) != nil || int(st.Uid) == euid {
		return
	}
	name := site.UserName(int(st.Uid))
	as := "runuser -u " + name
	if _, err := user.LookupGroup("disk"); err == nil {
		as += " -G disk" // which the unit adds
	}
	again := as + " -- haulback selfcheck"
	if c.cfg != nil {
		again += " --config " + c.cfg.File
	}
	c.not(Warn, "user", again,
		"%s belongs to %s, and this is another user: what this one may read and write, the daemon may not be allowed to", c.site.Dir(), name)
}

// lacks tells in r what cannot be looked at here because file is the name of a
// credential: the daemon has it from systemd, and who asks beside it has not.
func (c *checks) lacks(r *Result, file string) bool {
	if file == "" || filepath.IsAbs(file) {
		return false
	}
	unit := filepath.Base(c.site.Dir()) // as the units are named
	if unit != "haulback-controller" {
		unit = "haulbackd"
	}
	r.Level, r.Text = Warn, "not looked at: "+file+" is a credential of the daemon's unit, and this is no part of it"
	r.Remedy = "while it runs, as its user: env " + site.CredentialsEnv + "=/run/credentials/" + unit + ".service haulback selfcheck --config " + c.cfg.File
	return true
}

// clock looks whether this machine's clock is kept right: invitations, tickets and
// certificates of hosts are for a time.
func (c *checks) clock() {
	const remedy = "timedatectl set-ntp true, or start chrony; then timedatectl shows it"
	now, built := time.Now(), build.Committed()
	if now.Before(built) {
		c.not(Fail, "clock", remedy, "it stands at %s, which is before this program was made (%s)", now.UTC().Format(time.RFC3339), built.UTC().Format(time.RFC3339))
		return
	}
	var tx unix.Timex // asks, sets nothing
	if _, err := unix.Adjtimex(&tx); err != nil {
		c.not(Warn, "clock", "timedatectl shows it", "whether it is kept right cannot be told: %v", err)
		return
	}
	c.kept(tx.Status&unix.STA_UNSYNC == 0)
}

func (c *checks) kept(right bool) {
	if !right {
		c.not(Warn, "clock", "timedatectl set-ntp true, or start chrony; a guest whose hypervisor keeps its clock needs neither",
			"nothing keeps it right that the kernel knows of; tickets and invitations fail when the clocks of two sites are more than %v apart", wire.TicketSkew)
		return
	}
	c.ok("clock", "kept right by the network")
}

// sockets looks at what the kernel gives to UDP.
func (c *checks) sockets() {
	pc, hint, err := wire.ListenPacket("127.0.0.1:0")
	if err != nil {
		c.not(Fail, "socket buffers", "", "%v", err)
		return
	}
	merged := pc.Stats().GRO
	pc.Close()
	c.buffers(hint)
	c.merging(merged)
}

// buffers tells of h. The daemon's own are larger when systemd has opened its
// socket, which cannot be seen from here.
func (c *checks) buffers(h wire.BufferHint) {
	if h.String() == "" {
		c.ok("socket buffers", "%s to receive, %s to send", size.Text(int64(h.Recv)), size.Text(int64(h.Send)))
		return
	}
	c.not(Warn, "socket buffers",
		fmt.Sprintf(`printf 'net.core.rmem_max = %d\nnet.core.wmem_max = %d\n' >/etc/sysctl.d/30-haulback.conf; sysctl --system; a daemon with haulbackd.socket needs neither`, 2*h.Want, 2*h.Want),
		"UDP gets %s to receive and %s to send, not %s: fast links lose packets", size.Text(int64(h.Recv)), size.Text(int64(h.Send)), size.Text(int64(h.Want)))
}

// merging tells whether the kernel merges UDP packets: gro is "on", or why not.
func (c *checks) merging(gro string) {
	switch {
	case c.cfg != nil && !c.cfg.GRO:
		c.ok("kernel", "UDP packets are not merged: gro = false")
	case gro != "on":
		c.not(Warn, "kernel", "run Linux 5.0 or later", "UDP packets are not merged, which costs a third of the speed of QUIC: %s", gro)
	default:
		c.ok("kernel", "%s merges UDP packets", release())
	}
}

// release is the kernel's.
func release() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "it"
	}
	return "Linux " + unix.ByteSliceToString(u.Release[:])
}

// tcp looks at what long paths want of the kernel. It is asked after the peers:
// where all of them are near it does not matter.
func (c *checks) tcp() {
	bbr, hint := wire.HasBBR(), wire.TCPHint()
	c.paths(bbr, hint)
}

func (c *checks) paths(bbr bool, hint string) {
	level, where := OK, "no peer is far away, so it does not matter"
	if c.far >= wire.LongPath {
		level, where = Warn, fmt.Sprintf("the way to a peer takes %v, there it matters", c.far.Round(time.Millisecond/10))
	}
	r := Result{Name: "tcp", Level: level}
	switch {
	case !bbr:
		r.Text = "no congestion control BBR: TCP is slow on long paths that lose packets; " + where
		r.Remedy = "modprobe tcp_bbr && echo tcp_bbr >/etc/modules-load.d/haulback.conf; without CAP_NET_ADMIN also sysctl -w net.ipv4.tcp_allowed_congestion_control='reno cubic bbr'"
	case hint != "":
		r.Text = hint + "; " + where
		r.Remedy = `printf 'net.ipv4.tcp_wmem = 4096 16384 33554432\nnet.ipv4.tcp_rmem = 4096 131072 33554432\n' >/etc/sysctl.d/61-haulback.conf; sysctl --system`
	default:
		r.Level, r.Text = OK, "BBR, and buffers for long paths"
	}
	if r.Level == OK {
		r.Remedy = ""
	}
	c.tell(r)
}

// fewFiles is what 256 sessions may need: a socket, a disk and a journal each.
const fewFiles = 1024

func (c *checks) files() {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		c.not(Fail, "open files", "", "%v", err)
		return
	}
	if r.Max < fewFiles { // the runtime raises the soft limit to the hard one
		c.not(Warn, "open files", "ulimit -Hn 4096, or LimitNOFILE=4096 in the unit", "at most %d", r.Max)
		return
	}
	c.ok("open files", "at most %d", r.Max)
}

// memory compares the buffers that the daemon may use with what the machine has.
func (c *checks) memory() {
	var info unix.Sysinfo_t
	if c.cfg == nil || unix.Sysinfo(&info) != nil {
		return
	}
	c.buffered(c.cfg.Limits.Memory, int64(info.Totalram)*int64(info.Unit))
}

func (c *checks) buffered(limit, machine int64) {
	limit = mover.Config{Memory: limit}.Effective().Memory
	if limit > machine/2 {
		c.not(Warn, "memory", fmt.Sprintf("[limits] memory = \"%dMiB\"", max(64, machine/4>>20)),
			"buffers may take %s of this machine's %s; what is killed for want of memory resumes, but later", size.Text(limit), size.Text(machine))
		return
	}
	c.ok("memory", "buffers take at most %s of %s", size.Text(limit), size.Text(machine))
}

// ports tries whether a daemon that does not run could listen.
func (c *checks) ports(ctx context.Context) {
	if c.cfg == nil {
		return
	}
	var lc net.ListenConfig
	for _, p := range []struct {
		network, look string
		used          bool
	}{{"udp", "ss -lunp", c.cfg.QUIC}, {"tcp", "ss -ltnp", c.cfg.TLS}} {
		if !p.used {
			continue
		}
		var err error
		if p.network == "udp" {
			var pc net.PacketConn
			if pc, err = lc.ListenPacket(ctx, p.network, c.cfg.Listen); err == nil {
				pc.Close()
			}
		} else {
			var l net.Listener
			if l, err = lc.Listen(ctx, p.network, c.cfg.Listen); err == nil {
				l.Close()
			}
		}
		switch {
		case err == nil:
			c.ok("listen", "%s %s is free", p.network, c.cfg.Listen)
		case errors.Is(err, syscall.EADDRINUSE):
			c.not(Warn, "listen", p.look+" shows who; nothing, if it is systemd for haulbackd's socket units", "%s %s is taken", p.network, c.cfg.Listen)
		default:
			c.not(Fail, "listen", "write an address of this machine into listen: ip -brief address", "%v", err)
		}
	}
}
