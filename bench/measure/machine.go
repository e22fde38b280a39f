package measure

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/bench/result"
	"github.com/haulback/haulback/cbt/wide"
)

// Machine describes this machine, and the file system of a directory.
func Machine(dir string) result.Machine {
	m := result.Machine{Cores: runtime.NumCPU(), OS: "Linux", Hash: wide.Name()}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		m.CPU, m.Virtual = parseCPU(string(text))
	}
	if text, err := os.ReadFile("/proc/meminfo"); err == nil {
		m.Memory = parseMemory(string(text), "MemTotal:")
	}
	if text, err := os.ReadFile("/etc/os-release"); err == nil {
		m.OS = parseRelease(string(text))
	}
	if text, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load, _, _ = strings.Cut(string(text), " ")
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	var st unix.Stat_t
	if text, err := os.ReadFile("/proc/self/mountinfo"); err == nil && unix.Stat(dir, &st) == nil {
		m.Disk = parseMount(string(text), fmt.Sprintf("%d:%d", unix.Major(st.Dev), unix.Minor(st.Dev)))
	}
	return m
}

// parseCPU is the model of the first CPU, and whether it is a virtual one.
func parseCPU(text string) (model, virtual string) {
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(name) {
		case "model name":
			if model == "" {
				model = value
			}
		case "flags":
			for _, f := range strings.Fields(value) {
				if f == "hypervisor" {
					virtual = "virtual machine"
				}
			}
		}
	}
	return model, virtual
}

// Available is how much memory the kernel would hand out now without swapping.
func Available() (int64, error) {
	text, err := os.ReadFile("/proc/meminfo")
	return parseMemory(string(text), "MemAvailable:"), err
}

func parseMemory(text, name string) int64 {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == name {
			n, _ := strconv.ParseInt(f[1], 10, 64)
			return n << 10
		}
	}
	return 0
}

func parseRelease(text string) string {
	for line := range strings.Lines(text) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			return strings.Trim(v, `"`)
		}
	}
	return "Linux"
}

// parseMount is file system and device of what is mounted with a device number.
func parseMount(text, dev string) string {
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		for i, s := range f {
			if len(f) > 3 && f[2] == dev && s == "-" && i+2 < len(f) {
				return f[i+1] + " on " + f[i+2]
			}
		}
	}
	return ""
}

// number is a version as programs write it.
var number = regexp.MustCompile(`\d+(\.\d+)+\S*`)

// Versions asks each program for its version; one that is not there is left out.
func Versions(ctx context.Context, programs ...string) map[string]string {
	all := map[string]string{"go": runtime.Version()}
	for _, p := range programs {
		ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
		// Some print it where errors go, and end with an error.
		out, _ := exec.CommandContext(ctx, p, "--version").CombinedOutput()
		cancel()
		if v := number.FindString(string(out)); v != "" {
			all[p] = v
		}
	}
	return all
}
