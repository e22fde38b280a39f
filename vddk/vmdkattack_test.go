package vddk_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/haulback/haulback/vddk"
)

const flatHeader = "# Disk DescriptorFile\nversion=1\nCID=00000001\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n"

// refused opens the descriptor text both ways, beside files that could be
// taken for extents, and wants it refused with these words.
func refused(t *testing.T, text string, want ...string) {
	t.Helper()
	dir := t.TempDir()
	inner := filepath.Join(dir, "vm")
	if err := os.Mkdir(inner, 0o700); err != nil {
		t.Fatal(err)
	}
	put(t, dir, "outside", noise(4096))
	put(t, inner, "a", noise(4096))
	put(t, inner, "b", noise(4096))
	put(t, inner, "vm.vmdk", []byte(text))
	for name, target := range map[string]string{"link": "../outside", "near": "a"} {
		if err := os.Symlink(target, filepath.Join(inner, name)); err != nil {
			t.Fatal(err)
		}
	}
	err1 := os.Link(filepath.Join(inner, "a"), filepath.Join(inner, "twin"))
	err2 := os.Mkdir(filepath.Join(inner, "dir"), 0o700)
	err3 := syscall.Mkfifo(filepath.Join(inner, "fifo"), 0o600)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []vddk.Mode{vddk.ReadWrite, vddk.ReadOnly} {
		d, err := vddk.Open(t.Context(), "vmdk://"+filepath.Join(inner, "vm.vmdk"), vddk.Options{Mode: mode})
		if err == nil {
			d.Close()
			t.Fatalf("opened (mode %d): %q", mode, text)
		}
		if _, locked := errors.AsType[*vddk.LockedError](err); locked {
			t.Errorf("it locks itself out: %v", err)
		}
		for _, w := range append(want, "vm.vmdk") {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%v: no %q in it", err, w)
			}
		}
	}
}

// TestVMDKAttacks: descriptors of a site that means no good.
func TestVMDKAttacks(t *testing.T) {
	many := strings.Repeat("RW 1 ZERO\n", 5000)
	for name, c := range map[string]struct {
		extents string
		want    []string
	}{
		"parent directory":      {`RW 8 FLAT "../outside" 0`, []string{"only files in the directory"}},
		"absolute path":         {`RW 8 FLAT "/etc/passwd" 0`, []string{"/etc/passwd", "only files in the directory"}},
		"below":                 {`RW 8 FLAT "dir/a" 0`, []string{"only files in the directory"}},
		"two dots":              {`RW 8 FLAT ".." 0`, []string{"only files in the directory"}},
		"symlink out":           {`RW 8 FLAT "link" 0`, []string{"symbolic link"}},
		"symlink":               {`RW 8 FLAT "near" 0`, []string{"symbolic link"}},
		"directory":             {`RW 8 FLAT "dir" 0`, []string{"directory"}},
		"pipe":                  {`RW 8 FLAT "fifo" 0`, []string{"pipe"}},
		"the descriptor itself": {`RW 1 FLAT "vm.vmdk" 0`, []string{"same file"}},
		"no file":               {`RW 8 FLAT "gone-flat.vmdk" 0`, []string{"gone-flat.vmdk", "no such file"}},
		"empty name":            {`RW 8 FLAT "" 0`, []string{"empty file name"}},
		"no name":               {`RW 8 FLAT`, []string{"file name"}},
		"open quote":            {`RW 8 FLAT "a 0`, []string{"quote"}},
		"control character":     {"RW 8 FLAT \"a\x01b\" 0", []string{"control character"}},
		"one file twice":        {"RW 4 FLAT \"a\" 0\nRW 4 FLAT \"a\" 4", []string{`"a" is in use`}},
		"one inode twice":       {"RW 4 FLAT \"a\" 0\nRW 4 FLAT \"twin\" 4", []string{`the same file as "a"`}},
		"short file":            {`RW 9 FLAT "a" 0`, []string{"4096 bytes", "4608"}},
		"short behind offset":   {`RW 8 FLAT "a" 1`, []string{"4096 bytes", "4608"}},
		"negative size":         {`RW -8 FLAT "a" 0`, []string{`"-8" sectors`}},
		"no size":               {`RW 0 FLAT "a" 0`, []string{`"0" sectors`}},
		"negative offset":       {`RW 8 FLAT "a" -1`, []string{`"-1" sectors`}},
		"no offset":             {`RW 8 FLAT "a"`, []string{"offset"}},
		"size overflows":        {`RW 18014398509481984 FLAT "a" 0`, []string{"sectors"}},
		"size overflows 64 bit": {`RW 36893488147419103232 FLAT "a" 0`, []string{"sectors"}},
		"offset overflows":      {`RW 8 FLAT "a" 18014398509481980`, []string{"8 EiB"}},
		"sum overflows":         {"RW 18014398509481983 ZERO\nRW 18014398509481983 ZERO", []string{"8 EiB"}},
		"too many":              {many, []string{"more than 1024 extents"}},
		"a million":             {strings.Repeat("RW 1 ZERO\n", 1e6), []string{"64 KiB"}},
		"more behind":           {`RW 8 FLAT "a" 0 partition`, []string{"partition"}},
		"sparse":                {`RW 8 SPARSE "a"`, []string{"SPARSE", "qemu-img convert"}},
		"delta":                 {`RW 8 VMFSSPARSE "a"`, []string{"VMFSSPARSE", "consolidate"}},
		"se sparse":             {`RW 8 SESPARSE "a"`, []string{"SESPARSE", "consolidate"}},
		"raw device":            {`RW 8 VMFSRDM "a"`, []string{"VMFSRDM", "block:"}},
		"unknown kind":          {`RW 8 MAGIC "a" 0`, []string{"MAGIC"}},
		"no access":             {`NOACCESS 8 FLAT "a" 0`, []string{"NOACCESS"}},
		"no extents":            {"", []string{"no extents"}},
		"unknown key":           {"RW 8 FLAT \"a\" 0\nfancyFeature=1", []string{"line 7", "fancyfeature"}},
		"no key":                {"RW 8 FLAT \"a\" 0\nhello", []string{"hello"}},
		"key twice":             {"RW 8 FLAT \"a\" 0\nCID=00000002", []string{`"cid"`, "twice"}},
		"behind a zero byte":    {"\x00RW 8 FLAT \"a\" 0", []string{"no extents"}},
		"encrypted":             {"RW 8 FLAT \"a\" 0\nencryptionKeys=\"vmware:key\"", []string{"encrypted", "vddk://"}},
		"encrypted by a filter": {"RW 8 FLAT \"a\" 0\nddb.iofilters = \"vmwarevmcrypt\"", []string{"encrypted"}},
		"hint of a parent":      {"RW 8 FLAT \"a\" 0\nparentFileNameHint=\"base.vmdk\"", []string{"base.vmdk", "consolidate"}},
		"other encoding":        {"RW 8 FLAT \"\xe4\" 0\nencoding=\"windows-1252\"", []string{"windows-1252"}},
	} {
		t.Run(name, func(t *testing.T) { refused(t, flatHeader+c.extents+"\n", c.want...) })
	}
}

// TestVMDKTypes: each type that is not opened is named, with a way out.
func TestVMDKTypes(t *testing.T) {
	for name, want := range map[string]string{
		"monolithicSparse": "qemu-img convert", "streamOptimized": "qemu-img convert", "twoGbMaxExtentSparse": "qemu-img convert", "custom": "qemu-img convert",
		"vmfsSparse": "consolidate", "seSparse": "consolidate",
		"vmfsRawDeviceMap": "block:", "vmfsPassthroughRawDeviceMap": "block:", "fullDevice": "block:", "partitionedDevice": "block:",
		"holographic": "monolithicFlat, twoGbMaxExtentFlat and vmfs",
	} {
		t.Run(name, func(t *testing.T) {
			refused(t, strings.Replace(flatHeader, "monolithicFlat", name, 1)+"RW 8 FLAT \"a\" 0\n", name, want)
		})
	}
	for name, c := range map[string]struct{ text, want string }{
		"sparse":        {"KDMV\x01\x00\x00\x00" + strings.Repeat("\x00", 70<<10), "monolithicSparse or streamOptimized"},
		"flat":          {strings.Repeat("\x00", 70<<10), "no -flat in its name"},
		"delta":         {"COWD\x01\x00\x00\x00", "consolidate"},
		"no descriptor": {"#!/bin/sh\n", "# Disk DescriptorFile"},
		"huge":          {flatHeader + strings.Repeat("#\n", 64<<10), "64 KiB"},
		"no version":    {strings.Replace(flatHeader, "version=1\n", "", 1) + "RW 8 FLAT \"a\" 0\n", "version"},
		"version 9":     {strings.Replace(flatHeader, "version=1", "version=9", 1) + "RW 8 FLAT \"a\" 0\n", `version "9"`},
		"snapshot":      {strings.Replace(flatHeader, "ffffffff", "12345678", 1) + "RW 8 FLAT \"a\" 0\nparentFileNameHint=\"vm.vmdk\"\n", "parentCID 12345678"},
		"no CID":        {strings.Replace(flatHeader, "CID=00000001\n", "", 1) + "RW 8 FLAT \"a\" 0\n", "CID is missing"},
		"bad CID":       {strings.Replace(flatHeader, "00000001", "wxyz", 1) + "RW 8 FLAT \"a\" 0\n", "wxyz"},
	} {
		t.Run(name, func(t *testing.T) { refused(t, c.text, c.want) })
	}
}

// TestVMDKReadOnlyExtent is read and not written.
func TestVMDKReadOnlyExtent(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "a", noise(1024))
	uri := "vmdk://" + writeVMDK(t, dir, `RDONLY 2 FLAT "a" 0`)
	open(t, uri, vddk.ReadOnly).Close()
	if _, err := vddk.Open(t.Context(), uri, vddk.Options{Mode: vddk.ReadWrite}); !errors.Is(err, vddk.ErrReadOnly) {
		t.Errorf("got %v, want ErrReadOnly", err)
	}
}

// TestVMDKInUse: what VMware leaves beside a disk that is in use keeps writers
// out and warns readers.
func TestVMDKInUse(t *testing.T) {
	nfsLock := func(dir, of string) string {
		var st syscall.Stat_t
		if err := syscall.Stat(filepath.Join(dir, of), &st); err != nil {
			t.Fatal(err)
		}
		name := ".lck-"
		for i := range 8 {
			name += fmt.Sprintf("%02x", byte(st.Ino>>(8*i)))
		}
		return name
	}
	esx := append([]byte("\xd0\xd1\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00"), "esx7.example.com\x00\x00\x00\x00"...)
	for name, c := range map[string]struct {
		prepare func(dir string)
		want    string // in what it says; empty: nothing is in the way
	}{
		"running VM, file":        {func(dir string) { put(t, dir, "vm.vmx.lck", nil) }, "vm.vmx.lck"},
		"running VM, directory":   {func(dir string) { lockDir(t, dir, "vm.vmx.lck", "M12345.lck") }, "host winbox"},
		"directory left over":     {func(dir string) { lockDir(t, dir, "vm.vmx.lck", "") }, ""},
		"descriptor, Workstation": {func(dir string) { lockDir(t, dir, "vm.vmdk.lck", "M1.lck") }, "host winbox"},
		"flat, Workstation":       {func(dir string) { lockDir(t, dir, "vm-flat.vmdk.lck", "M1.lck") }, "host winbox"},
		"another disk":            {func(dir string) { lockDir(t, dir, "other.vmdk.lck", "M1.lck") }, ""},
		"flat, ESXi on NFS":       {func(dir string) { put(t, dir, nfsLock(dir, "vm-flat.vmdk"), esx) }, "host esx7.example.com"},
		"VM, ESXi on NFS": {func(dir string) {
			put(t, dir, "vm.vmx", nil)
			put(t, dir, nfsLock(dir, "vm.vmx"), esx)
		}, "esx7.example.com"},
		"another file, ESXi":   {func(dir string) { put(t, dir, ".lck-0000000000000000", esx) }, ""},
		"snapshot":             {func(dir string) { put(t, dir, "vm-000001.vmdk", []byte(snapshotOf("vm.vmdk"))) }, "vm-000001.vmdk is a snapshot on top"},
		"snapshot, full path":  {func(dir string) { put(t, dir, "s.vmdk", []byte(snapshotOf("/vmfs/volumes/ds/vm/vm.vmdk"))) }, "s.vmdk is a snapshot on top"},
		"snapshot of another":  {func(dir string) { put(t, dir, "s.vmdk", []byte(snapshotOf("other.vmdk"))) }, ""},
		"big file called vmdk": {func(dir string) { put(t, dir, "z.vmdk", noise(1<<20)) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			uri := "vmdk://" + vmfs(t, dir, noise(4096))
			c.prepare(dir)
			reader := open(t, uri, vddk.ReadOnly)
			warning := reader.Describe().Warning
			reader.Close()
			if c.want == "" && warning != "" || !strings.Contains(warning, c.want) {
				t.Errorf("reader: warning %q, want %q in it", warning, c.want)
			}
			d, err := vddk.Open(t.Context(), uri, vddk.Options{Mode: vddk.ReadWrite})
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				d.Close()
				return
			}
			if err == nil {
				d.Close()
			}
			if _, ok := errors.AsType[*vddk.LockedError](err); !ok || !errors.Is(err, syscall.EBUSY) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("writer: got %v, want a LockedError with %q", err, c.want)
			}
		})
	}
}

func lockDir(t *testing.T, dir, name, inside string) {
	t.Helper()
	if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
		t.Fatal(err)
	}
	if inside != "" {
		put(t, filepath.Join(dir, name), inside, []byte("xe 18 winbox 4242-131"))
	}
}

func snapshotOf(parent string) string {
	return "# Disk DescriptorFile\nversion=1\nCID=0000000a\nparentCID=fd71677b\ncreateType=\"vmfsSparse\"\nparentFileNameHint=\"" + parent + "\"\nRW 8 VMFSSPARSE \"x-delta.vmdk\"\n"
}

// TestVMDKTakenMeanwhile: a VM that is powered on during the pass, a descriptor
// that is written anew, and a file that is cut are noticed by Check.
func TestVMDKTakenMeanwhile(t *testing.T) {
	for name, change := range map[string]func(dir string) error{
		"powered on":            func(dir string) error { put(t, dir, "vm.vmx.lck", nil); return nil },
		"flat cut":              func(dir string) error { return os.Truncate(filepath.Join(dir, "vm-flat.vmdk"), 512) },
		"flat removed":          func(dir string) error { return os.Remove(filepath.Join(dir, "vm-flat.vmdk")) },
		"descriptor replaced":   func(dir string) error { return os.Remove(filepath.Join(dir, "vm.vmdk")) },
		"descriptor lengthened": func(dir string) error { put(t, dir, "vm.vmdk", make([]byte, 5000)); return nil },
	} {
		dir := t.TempDir()
		d := open(t, "vmdk://"+vmfs(t, dir, noise(4096)), vddk.ReadWrite)
		if err := d.Check(); err != nil {
			t.Fatal(err)
		}
		if err := change(dir); err != nil {
			t.Fatal(err)
		}
		if err := d.Check(); !errors.Is(err, vddk.ErrChanged) {
			t.Errorf("%s: got %v, want ErrChanged", name, err)
		}
	}
}

// TestVMDKHeld: every file of the disk is held, against file:// too.
func TestVMDKHeld(t *testing.T) {
	dir := t.TempDir()
	path := split(t, dir, noise(4<<20))
	d := open(t, "vmdk://"+path, vddk.ReadWrite)
	for _, name := range []string{"vm.vmdk", "f0.vmdk", "last.vmdk"} {
		if _, err := vddk.Open(t.Context(), "file://"+filepath.Join(dir, name), vddk.Options{}); !errors.Is(err, syscall.EBUSY) {
			t.Errorf("%s beside the VMDK: %v, want EBUSY", name, err)
		}
	}
	d.Close()
	f := open(t, "file://"+filepath.Join(dir, "f2.vmdk"), vddk.ReadWrite)
	if _, err := vddk.Open(t.Context(), "vmdk://"+path, vddk.Options{}); !errors.Is(err, syscall.EBUSY) {
		t.Errorf("a VMDK whose third extent is held: %v, want EBUSY", err)
	}
	f.Close()
	open(t, "vmdk://"+path, vddk.ReadWrite) // nothing was left locked
}

// TestVMDKIdentity: one flat file from its first byte to its last is the same
// disk under both names, so its journal is found; a part of a file is not.
func TestVMDKIdentity(t *testing.T) {
	dir := t.TempDir()
	path := vmfs(t, dir, noise(4096))
	flat := open(t, filepath.Join(dir, "vm-flat.vmdk"), vddk.ReadOnly).Identity()
	if got := open(t, "vmdk://"+path, vddk.ReadOnly).Identity(); got != flat {
		t.Errorf("identity %s, of its file %s", got, flat)
	}
	writeVMDK(t, dir, `RW 7 VMFS "vm-flat.vmdk" 1`)
	if got := open(t, "vmdk://"+path, vddk.ReadOnly).Identity(); got == flat || !strings.Contains(got, flat) {
		t.Errorf("identity of a part: %s, of its file %s", got, flat)
	}
}

// TestVMDKLink: a link to the descriptor leads to the extents beside the file
// that it names, and the change tracking that goes stale is told.
func TestVMDKLink(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	put(t, dir, "vm-flat.vmdk", noise(4096))
	writeVMDK(t, dir, "RW 8 VMFS \"vm-flat.vmdk\"\n\n# Change Tracking File\nchangeTrackPath=\"vm-ctk.vmdk\"")
	link := filepath.Join(elsewhere, "link.vmdk")
	if err := os.Symlink(filepath.Join(dir, "vm.vmdk"), link); err != nil {
		t.Fatal(err)
	}
	if got := open(t, "vmdk://"+link, vddk.ReadWrite).Describe().Warning; !strings.Contains(got, "vm-ctk.vmdk") {
		t.Errorf("warning: %q", got)
	}
}
