package measure

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ownLine is the command line of this process, as /proc has it.
var ownLine = sync.OnceValue(func() string {
	text, _ := os.ReadFile("/proc/self/cmdline")
	return string(text)
})

// parseDev is the receive counter of an interface in /proc/net/dev.
func parseDev(text, name string) (int64, error) {
	for line := range strings.Lines(text) {
		if dev, rest, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(dev) == name {
			if f := strings.Fields(rest); len(f) >= 16 {
				return strconv.ParseInt(f[0], 10, 64)
			}
		}
	}
	return 0, fmt.Errorf("no interface %s in %d bytes of /proc/net/dev", name, len(text))
}

// parseCPUStat is usage_usec of a cgroup's cpu.stat.
func parseCPUStat(text string) (time.Duration, error) {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == "usage_usec" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			return time.Duration(n) * time.Microsecond, err
		}
	}
	return 0, fmt.Errorf("no usage_usec in cpu.stat: %q", text)
}

// ticks are the clock ticks of /proc/PID/stat: USER_HZ is 100 on every Linux.
const ticks = 100

// parseStat is user and system time of a process, with the children that it
// waited for, in /proc/PID/stat. The name may hold anything, brackets too.
func parseStat(text string) (time.Duration, error) {
	_, rest, ok := cutLast(text, ")")
	f := strings.Fields(rest)
	if !ok || len(f) < 15 {
		return 0, fmt.Errorf("stat of a process: %q", text)
	}
	var sum int64
	for _, s := range f[11:15] { // utime stime cutime cstime
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("stat of a process: %w", err)
		}
		sum += n
	}
	return time.Duration(sum) * time.Second / ticks, nil
}

func cutLast(s, sep string) (before, after string, ok bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

func readUsed(pid int) (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseStat(string(text))
}

// parseHWM is VmHWM of /proc/PID/status in bytes. A process that has ended has none.
func parseHWM(text string) (int64, error) {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmHWM:" && f[2] == "kB" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			return n << 10, err
		}
	}
	return 0, fmt.Errorf("no VmHWM in %d bytes of status", len(text))
}

// errNotYet is returned of a process that has not become its program.
var errNotYet = errors.New("not started yet")

// readHWM is VmHWM of a process. Until it has become its program a child has
// the memory of this process, and its command line.
func readHWM(pid int) (int64, error) {
	its, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return 0, err
	}
	if string(its) == ownLine() {
		return 0, errNotYet
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	return parseHWM(string(text))
}

// listens tells whether a port is listened at, by /proc/net/tcp or udp.
func listens(text, network string, port int) bool {
	state := "0A" // TCP_LISTEN
	if network == "udp" {
		state = "07" // a UDP socket without a peer is "closed"
	}
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 4 || f[3] != state {
			continue
		}
		_, hex, ok := cutLast(f[1], ":")
		if n, err := strconv.ParseUint(hex, 16, 16); ok && err == nil && int(n) == port {
			return true
		}
	}
	return false
}
