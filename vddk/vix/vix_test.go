//go:build linux && amd64 && cgo

package vix_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/vddk/vix"
	"github.com/haulback/haulback/vddk/vix/vixtest"
)

// build is a library with one disk of size bytes, all hole.
func build(t *testing.T, version int, size int64) (lib *vixtest.Library, file string) {
	t.Helper()
	lib = kit.Library(t, version)
	file = image(t, size)
	lib.Disk(diskName, file)
	return lib, file
}

// TestEveryVersion copies a disk with every release's set of functions, fast and
// slow, and compares the file behind it.
func TestEveryVersion(t *testing.T) {
	const size = 40<<20 + 3*512
	for _, c := range []struct {
		version  int
		settings string
	}{
		{65, ""},
		{67, ""},
		{70, "transport=hotadd"},
		{80, "transport=null"},
		{80, "latency_us=3000"},
		{80, "inline=1"},
	} {
		t.Run(fmt.Sprintf("%d %s", c.version, c.settings), func(t *testing.T) {
			t.Parallel()
			lib, file := build(t, c.version, size)
			lib.Set(c.settings)
			lib.Record()
			out := mustRun(t, lib, "copy")
			got, err := os.ReadFile(file)
			if err != nil || !bytes.Equal(got, noise(size)) {
				t.Errorf("the file differs (%v)\n%s", err, out)
			}
			wantOrder(t, lib.Calls())
		})
	}
}

// wantOrder: Wait before each Flush and before Close, one of each open call.
func wantOrder(t *testing.T, calls []vixtest.Call) {
	t.Helper()
	count, last := map[string]int{}, ""
	for _, c := range calls {
		count[c.Function]++
		if (c.Function == "Flush" || c.Function == "Close") && last != "Wait" {
			t.Errorf("%s comes after %s, not after Wait", c.Function, last)
		}
		last = c.Function
	}
	for _, name := range []string{"InitEx", "ConnectEx", "Open", "GetInfo", "Flush", "Close", "Disconnect", "Exit"} {
		if count[name] != 1 {
			t.Errorf("%s was called %d times, want once", name, count[name])
		}
	}
	if count["ReadAsync"] < 200 || count["WriteAsync"] < 1000 || count["Read"]+count["Write"] > 0 {
		t.Errorf("calls: %v", count)
	}
}

func TestLog(t *testing.T) {
	lib, _ := build(t, 67, 1<<20)
	out := mustRun(t, lib, "open")
	for _, want := range []string{
		"log 0 vixtest: version 6.7, file backed, 0.125 s\n",
		"log 1 vixtest: a warning with 2 lines\nof text\n",
		"log 0 " + strings.Repeat("0", 2047) + "\n", // cut, not overrun
	} {
		if !strings.Contains(out, want) {
			t.Errorf("log: no %q in\n%s", want, out)
		}
	}
}

func TestMap(t *testing.T) {
	const size = 10<<20 + 5*512 // a tail that is no chunk
	for _, c := range []struct {
		name    string
		version int
		fault   string
		want    string
	}{
		{"told", 80, "", "data 1048576 65536\ndata 2097152 131072\ndata 10485760 2560\nend EOF\n"},
		{"no such function", 65, "", "data 0 10488320\nend EOF\n"},
		{"failed", 80, "QueryAllocatedBlocks * 6", "data 0 10488320\nend EOF\n"},
		{"no list", 80, "QueryAllocatedBlocks * null", "data 0 10488320\nend EOF\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			lib, file := build(t, c.version, size)
			f, err := os.OpenFile(file, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, err1 := f.WriteAt([]byte{1}, 1<<20+100)
			_, err2 := f.WriteAt([]byte{1, 2}, 2<<20+65535)
			if err := errors.Join(err1, err2, f.Close()); err != nil {
				t.Fatal(err)
			}
			if c.fault != "" {
				lib.Fault(c.fault)
			}
			if out := mustRun(t, lib, "map"); !strings.Contains(out, c.want) {
				t.Errorf("got %s, want %s", out, c.want)
			}
		})
	}
}

// TestFaults lets each function fail and looks at the error's text and class.
func TestFaults(t *testing.T) {
	for _, c := range []struct {
		name, scenario, settings, fault string
		want                            []string
	}{
		{"no fault", "open", "", "", []string{"retryable=false <nil>"}},
		{"password", "open", "password=other", "", []string{"retryable=false VixDiskLib_ConnectEx vm-42 of host: error 3014 (0x20000030bc6)", "the login was refused"}},
		{"thumbprint", "open", "thumbprint=other", "", []string{"retryable=false VixDiskLib_Open [ds 1] vm/vm.vmdk: error 1 (0x1), test text of code 1; this is almost always the thumbprint"}},
		{"cookie", "cookie", "cookie=a-session", "", []string{"retryable=false <nil>"}},
		{"wrong cookie", "cookie", "cookie=other", "", []string{"VixDiskLib_ConnectEx vm-42 of host: error 3014"}},
		{"snapshot", "open", "snapshot=snapshot-7", "", []string{"retryable=true VixDiskLib_Open", "error 13 ", "no snapshot", "NFC port 902"}},
		{"connect refused", "open", "", "ConnectEx 1 18000", []string{"retryable=true VixDiskLib_ConnectEx vm-42 of host: error 18000", "ports 443 and 902"}},
		{"no such disk", "open", "", "Open 1 4", []string{"retryable=false VixDiskLib_Open", "no such disk: look at its path"}},
		{"locked", "open", "", "Open 1 15", []string{"retryable=true VixDiskLib_Open", "holds the disk"}},
		{"partial chain", "open", "", "Open 1 16003", []string{"retryable=false", "name the file as the snapshot does"}},
		{"info", "open", "", "GetInfo 1 36", []string{"retryable=true VixDiskLib_GetInfo"}},
		{"close", "open", "", "Close 1 7", []string{"retryable=false VixDiskLib_Close [ds 1] vm/vm.vmdk: error 7"}},
		{"disconnect", "open", "", "Disconnect 1 7", []string{"VixDiskLib_Disconnect"}},
		{"no text", "open", "", "GetErrorText * null\nOpen 1 0x7000f0001", []string{"error 1 (0x7000f0001), no text"}},
		{"unknown code", "open", "", "Open 1 64999", []string{"retryable=false VixDiskLib_Open [ds 1] vm/vm.vmdk: error 64999"}},
		{"read", "read", "", "ReadAsync 2 14011", []string{
			"retryable=false <nil>\nretryable=true read 1048576 bytes at 0: VixDiskLib_ReadAsync [ds 1] vm/vm.vmdk: error 14011", "\nretryable=false <nil>\n",
		}},
		{"read later", "read", "", "ReadAsync.done 1 7", []string{"retryable=false read 1048576 bytes at 0", "error 7 "}},
		{"contradiction", "read", "", "ReadAsync 1 null", []string{"it returned 0 where it has to say", "the library contradicted itself before"}},
		{"flush", "flush", "", "Flush 1 36", []string{
			// Two flushes and a write: the first failure is that of all that follow.
			strings.Repeat("retryable=true flush 1048576 bytes at 0: VixDiskLib_Flush [ds 1] vm/vm.vmdk: error 36 (0x24), test text of code 36\n", 3),
		}},
		{"wait", "flush", "", "Wait 1 7", []string{"retryable=false flush 1048576 bytes"}},
		{"access", "access", "", "", []string{"retryable=false <nil>\nretryable=false <nil>\nretryable=false VixDiskLib_EndAccess vm-42: error 4"}},
		{"access of an ESXi", "access", "esxi=1", "", []string{"VixDiskLib_PrepareForAccess vm-42: error 6"}},
		{"init", "open", "", "InitEx 1 6", []string{"FAILED: VixDiskLib_InitEx", "error 6"}},
		{"hang in open", "stuck in Open", "", "Open 1 hang", []string{"VixDiskLib_Open [ds 1] vm/vm.vmdk has not returned for 50ms"}},
		{"hang in a request", "stuck in ReadAsync", "", "ReadAsync 1 hang", []string{"VixDiskLib_ReadAsync [ds 1] vm/vm.vmdk has not returned for 50ms"}},
		{"hang in a completion", "stuck in ReadAsync", "", "ReadAsync.done 1 hang", []string{"VixDiskLib_ReadAsync [ds 1] vm/vm.vmdk has not returned"}},
		{"hang in connect", "stuck in ConnectEx", "", "ConnectEx 1 hang", []string{"VixDiskLib_ConnectEx vm-42 of host has not"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			lib, _ := build(t, 80, 1<<20)
			lib.Set(c.settings)
			if c.fault != "" {
				lib.Fault(c.fault)
			}
			out, _ := run(t, lib, c.scenario) // a failed InitEx is exit code 1
			for _, want := range c.want {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
		})
	}
}

// TestBusy: transfers, flushes, and questions for 32 windows of the map at once.
func TestBusy(t *testing.T) {
	lib, _ := build(t, 80, 1<<40)
	lib.Set("latency_us=2000")
	lib.Record()
	out := mustRun(t, lib, "busy")
	count := map[string]int{}
	for _, c := range lib.Calls() {
		count[c.Function]++
	}
	if count["QueryAllocatedBlocks"] != 32 || count["Flush"] < 10 || count["ReadAsync"] < 20 {
		t.Errorf("calls: %v\n%s", count, out)
	}
}

func TestScenarios(t *testing.T) {
	scenarios := []string{"refuse", "closed", "read only", "cancel", "zero"}
	if !raceEnabled { // the detector allocates
		scenarios = append(scenarios, "allocate")
	}
	for _, name := range scenarios {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lib, _ := build(t, 80, 9<<20)
			lib.Set("latency_us=500")
			mustRun(t, lib, name)
		})
	}
}

// TestOtherLibrary meets a library without anything that can be left out.
func TestOtherLibrary(t *testing.T) {
	for flush, want := range map[string]string{
		"-DNO_FLUSH":   "the library has no function VixDiskLib_Flush",
		"-DWITH_FLUSH": "retryable=false <nil>",
	} {
		dir := t.TempDir()
		link(t, kit.CC(t, "other"+flush, "other.c", "-shared", "-fPIC", "-fvisibility=hidden", flush), dir+"/libvixDiskLib.so.9")
		out, err := runIn(t, dir, "strange")
		if err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, want := range []string{
			"retryable=false VixDiskLib_Open strange: error 61234 (0x7000000ef32), no text\n",
			`mode "" modes "" size 1048576`,
			"retryable=false read 4096 bytes at 1024000",
			"data 512 1048064 <nil>",
			want,
		} {
			if !strings.Contains(out, want) {
				t.Errorf("%s: no %q in\n%s", flush, want, out)
			}
		}
	}
}

func TestNoLibrary(t *testing.T) {
	empty, useless, text := t.TempDir(), t.TempDir(), t.TempDir()
	link(t, kit.CC(t, "useless", "beside.c", "-shared", "-fPIC"), useless+"/libvixDiskLib.so.7")
	if err := os.WriteFile(text+"/libvixDiskLib.so.8", []byte("no library"), 0o600); err != nil {
		t.Fatal(err)
	}
	needs := kit.Library(t, 80)
	if err := os.Remove(needs.Dir + "/lib64/libvixtestbeside.so"); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{
		empty:     "neither lib64/libvixDiskLib.so.N nor libvixDiskLib.so.N is there",
		useless:   "it has no function VixDiskLib_InitEx",
		text:      "libvixDiskLib.so.8: file too short",
		needs.Dir: "libvixtestbeside.so: cannot open shared object file",
	} {
		_, err := vix.Load(vix.Config{LibDir: dir})
		if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), dir) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

// zeroDisk zeroes a hole, and data: the hole stays one, the data reads as zeros.
func zeroDisk(d *vix.Disk) error {
	const at = 3 << 20
	if _, err := d.WriteAt(noise(128<<10), at+64<<10); err != nil {
		return err
	}
	for _, how := range []cbt.Allocation{cbt.Deallocate, cbt.Keep} {
		e := cbt.Extent{Off: at + 512, Len: 1<<20 + 512}
		if err := d.Zero(e, how); err != nil {
			return err
		}
		p := make([]byte, e.Len)
		if _, err := d.ReadAt(p, e.Off); err != nil || !bytes.Equal(p, make([]byte, e.Len)) {
			return fmt.Errorf("after zero: %w or not zeros", err)
		}
		next, err := d.NextData(0)
		if want := map[cbt.Allocation]int64{cbt.Deallocate: at + 64<<10, cbt.Keep: at}[how]; err != nil || next.Off != want {
			return fmt.Errorf("after zero %v: data at %d (%w), want %d", how, next.Off, err, want)
		}
	}
	if d.Zero(cbt.Extent{Off: d.Size(), Len: 512}, cbt.Deallocate) == nil {
		return errors.New("zeros beyond the end were taken")
	}
	return nil
}

// TestZeroOfWrongHole: what the map calls a hole, and is none, reads as zeros
// after Zero; and what is one stays one.
func TestZeroOfWrongHole(t *testing.T) {
	lib, file := build(t, 80, 9<<20)
	t.Setenv(fileEnv, file)
	out := mustRun(t, lib, "wrong hole")
	got, err := os.ReadFile(file)
	if err != nil || !bytes.Equal(got[:8<<20], make([]byte, 8<<20)) {
		t.Errorf("not zeros (%v)\n%s", err, out)
	}
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil || st.Blocks*512 > 1<<20 {
		t.Errorf("%d bytes are allocated (%v)", st.Blocks*512, err)
	}
}

// wrongHoleScenario writes behind the library's back, once the map is known.
func wrongHoleScenario(lib *vix.Library) error {
	return with(lib, target(), func(d *vix.Disk) error {
		if _, err := d.NextData(0); err != io.EOF {
			return fmt.Errorf("an empty disk: %w", err)
		}
		f, err := os.OpenFile(os.Getenv(fileEnv), os.O_WRONLY, 0)
		if err != nil {
			return err
		}
		for _, at := range []int64{0, 1<<20 - 512, 3<<20 + 512, 8<<20 - 1} {
			_, err1 := f.WriteAt([]byte("x"), at)
			err = errors.Join(err, err1)
		}
		return errors.Join(err, f.Close(), d.Zero(cbt.Extent{Len: 8 << 20}, cbt.Deallocate))
	})
}

func link(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Link(from, to); err != nil {
		t.Fatal(err)
	}
}
