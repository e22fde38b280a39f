package vddk_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/haulback/haulback/vddk"
)

// TestVMDKGuestWritesDescriptor: what a guest writes into its disk makes nobody
// take the flat file for a snapshot.
func TestVMDKGuestWritesDescriptor(t *testing.T) {
	for _, text := range []string{"\nparentFileNameHint=\"vm.vmdk\"\n", "# Disk DescriptorFile\nparentFileNameHint=\"vm.vmdk\"\n"} {
		dir := t.TempDir()
		for _, name := range []string{"vm.vmdk", "other.vmdk"} { // the first below the limit of a descriptor, the other above it
			size := map[string]int64{"vm.vmdk": 32 << 10, "other.vmdk": 1 << 20}[name]
			d, err := vddk.Open(t.Context(), "vmdk://"+filepath.Join(dir, name), vddk.Options{Mode: vddk.ReadWrite, Create: true, CreateSize: size})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := d.WriteAt([]byte(text), 0); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(d.Flush(), d.Close()); err != nil {
				t.Fatal(err)
			}
		}
		d, err := vddk.Open(t.Context(), "vmdk://"+filepath.Join(dir, "vm.vmdk"), vddk.Options{Mode: vddk.ReadWrite})
		if err != nil {
			t.Errorf("%q in the disks: %v", text, err)
			continue
		}
		d.Close()
	}
}

// TestVMDKCreateThroughLink: the flat file lands beside the descriptor that the
// link leads to, and nothing beside the link.
func TestVMDKCreateThroughLink(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	real, link := filepath.Join(b, "vm.vmdk"), filepath.Join(a, "link.vmdk")
	if err := errors.Join(os.WriteFile(real, nil, 0o600), os.Symlink(real, link)); err != nil {
		t.Fatal(err)
	}
	d, err := vddk.Open(t.Context(), "vmdk://"+link, vddk.Options{Mode: vddk.ReadWrite, Create: true, CreateSize: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(a); err != nil || len(left) != 1 {
		t.Errorf("beside the link: %v, %v", left, err)
	}
	flat, err := os.ReadFile(filepath.Join(b, "vm-flat.vmdk"))
	if err != nil || !bytes.Equal(flat, make([]byte, 1<<20)) {
		t.Errorf("the flat file: %d bytes, %v", len(flat), err)
	}
}
