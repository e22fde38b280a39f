package vddk

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// TestVMDKFlushAll: each file is flushed, and when one of them fails nothing is
// believed of any.
func TestVMDKFlushAll(t *testing.T) {
	for bad := range 3 {
		dir := t.TempDir()
		text := "# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID=ffffffff\ncreateType=\"twoGbMaxExtentFlat\"\n"
		for i := range 3 {
			name := fmt.Sprintf("f%d", i)
			if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 512), 0o600); err != nil {
				t.Fatal(err)
			}
			text += fmt.Sprintf("RW 1 FLAT %q 0\n", name)
		}
		path := filepath.Join(dir, "vm.vmdk")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := Open(t.Context(), "vmdk://"+path, Options{Mode: ReadWrite})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Flush(); err != nil {
			t.Fatal(err)
		}
		d.(*VMDK).parts[bad].file.Close()
		first := d.Flush()
		if !errors.Is(first, fs.ErrClosed) {
			t.Errorf("file %d fails: %v", bad, first)
		}
		if _, err := d.WriteAt([]byte("x"), int64(512*((bad+1)%3))); err == nil || first == nil || err.Error() != first.Error() {
			t.Errorf("file %d failed, a write to another: %v, want %v", bad, err, first)
		}
		d.Close()
	}
}
