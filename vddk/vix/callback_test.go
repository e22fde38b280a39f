//go:build linux && amd64 && cgo

package vix_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/haulback/haulback/vddk/vix"
)

// TestCallbacks: a callback answers the request that it belongs to, and no other.
func TestCallbacks(t *testing.T) {
	for _, c := range []struct {
		name, scenario, settings, fault string
		want                            []string
	}{
		{"twice", "many writes", "", "WriteAsync.done 1 twice", []string{"write 1 <nil>", "write 17 <nil>", "flush <nil>", "log 1 the library called back for a request that is not under way"}},
		// 16 slots: the 17th write (the 16th after the first) has the slot of the first,
		// whose callback comes once more
		// before the write fails.
		{"late", "many writes", "", "WriteAsync.done 1 late\nWriteAsync.done 16 7", []string{"write 16 <nil>", "write 17 write 4096 bytes at 65536", "error 7 ", "flush <nil>"}},
		{"foreign", "many writes", "", "WriteAsync.done 1 foreign\nWriteAsync.done 16 foreign", []string{"write 1 <nil>", "write 17 <nil>", "flush <nil>", "log 1 the library called back for a request that was never made"}},
		{"error, then the callback", "many writes", "latency_us=50000", "WriteAsync 1 both", []string{"write 1 write 4096 bytes at 0", "error 1 ", "flush flush", "after the flush: contradicted"}},
		{"the callback, then an error", "many writes", "inline=1", "WriteAsync 17 both", []string{"write 16 <nil>", "flush flush", "after the flush: contradicted"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			lib, _ := build(t, 80, 1<<20)
			lib.Set(c.settings)
			lib.Fault(c.fault)
			out := mustRun(t, lib, c.scenario)
			for _, want := range c.want {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
		})
	}
}

// manyWritesScenario uses each slot once and the first one twice.
func manyWritesScenario(lib *vix.Library) error {
	return with(lib, target(), func(d *vix.Disk) error {
		p := noise(4096)
		for i := range 17 {
			_, err := d.WriteAt(p, int64(i)*4096)
			fmt.Println("write", i+1, err)
		}
		err := d.Flush()
		fmt.Println("flush", err)
		if err == nil {
			return nil
		}
		if _, err = d.ReadAt(p, 0); err == nil || !strings.Contains(err.Error(), "contradicted itself") {
			return errors.New("a broken disk is read")
		}
		fmt.Println("after the flush: contradicted")
		return nil
	})
}
