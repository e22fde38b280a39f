package main

import (
	"syscall"
	"testing"

	"github.com/haulback/haulback/cmd/internal/cmdtest"
	"github.com/haulback/haulback/vddk"
)

// TestNBDServeReadsHoles: holes of a disk behind another server are read, those
// of a file are not.
func TestNBDServeReadsHoles(t *testing.T) {
	t.Parallel()
	site := cmdtest.NewSite(t, &programs, "a")
	path := site.Disk("a", mib, 1)
	first := serveNBD(t, site, path)
	s := &nbdServe{flags: &nbdFlags{}}
	for uri, want := range map[string]bool{site.Disk("b", mib, 2): false, first.uri: true} {
		disk, err := vddk.Open(t.Context(), uri, vddk.Options{})
		if err != nil {
			t.Fatal(err)
		}
		d := disk.Describe()
		if x := s.export(disk, &d); x.ReadHoles != want || x.Device != disk {
			t.Errorf("%s: ReadHoles %v, want %v", uri, x.ReadHoles, want)
		}
		disk.Close()
	}
	first.end(t, syscall.SIGTERM)
}
