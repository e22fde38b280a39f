package simvs

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// link is one virtual disk of a chain: a descriptor and the flat file with all
// of its bytes. Other than on a true host no link depends on another one.
type link struct {
	ds   *datastore
	dir  string // in the datastore
	base string // "web-000001"
}

// name is the datastore path of the descriptor.
func (l link) name() string { return fmt.Sprintf("[%s] %s", l.ds.Name, l.rel()) }

func (l link) rel() string { return filepath.Join(l.dir, l.base+".vmdk") }

func (l link) path() string { return filepath.Join(l.ds.Path, l.rel()) }

func (l link) flat() string { return filepath.Join(l.ds.Path, l.dir, l.base+"-flat.vmdk") }

// next is a link beside l, for a new leaf, whose files do not exist.
func (l link) next() (link, error) {
	root := l.base
	if i := strings.LastIndexByte(root, '-'); i > 0 && len(root)-i == 7 && strings.Trim(root[i+1:], "0123456789") == "" {
		root = root[:i]
	}
	for n := 1; n < 1_000_000; n++ {
		one := link{l.ds, l.dir, fmt.Sprintf("%s-%06d", root, n)}
		if !exists(one.path()) && !exists(one.flat()) {
			return one, nil
		}
	}
	return link{}, fmt.Errorf("%s: all names of snapshots are taken", l.name())
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

func (l link) remove() error {
	err := os.Remove(l.path())
	if flat := os.Remove(l.flat()); err == nil {
		err = flat
	}
	return err
}

// descriptor is the text file of a link.
const descriptor = `# Disk DescriptorFile
version=1
encoding="UTF-8"
CID=%s
parentCID=ffffffff
createType="vmfs"

# Extent description
RW %d VMFS "%s-flat.vmdk"

# The Disk Data Base
#DDB

ddb.adapterType = "lsilogic"
ddb.geometry.cylinders = "%d"
ddb.geometry.heads = "255"
ddb.geometry.sectors = "63"
ddb.longContentID = "%s"
ddb.thinProvisioned = "%d"
ddb.uuid = "%s"
ddb.virtualHWVersion = "21"
`

// describe writes the descriptor anew, with a fresh content ID.
func (l link) describe(size int64, uuid string, thin bool) error {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	id[12] = 1              // neither "none" nor zero
	long := hex.EncodeToString(id[:])
	flag := 0
	if thin {
		flag = 1
	}
	text := fmt.Sprintf(descriptor, long[24:], size/512, l.base, size/512/(255*63), long, flag, diskUUID(uuid))
	next := l.path() + "~"
	if err := os.WriteFile(next, []byte(text), 0o600); err != nil {
		return err
	}
	return os.Rename(next, l.path())
}

// diskUUID writes "6000C29f-..." as descriptors do: "60 00 C2 9f ...-...".
func diskUUID(uuid string) string {
	digits := strings.ReplaceAll(uuid, "-", "")
	var b strings.Builder
	for i := 0; i+1 < len(digits); i += 2 {
		switch {
		case i == 16:
			b.WriteByte('-')
		case i > 0:
			b.WriteByte(' ')
		}
		b.WriteString(digits[i : i+2])
	}
	return b.String()
}

// readDescriptor takes from a descriptor what the simulator needs.
func readDescriptor(path string) (size int64, uuid string, thin bool, err error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, "", false, err
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		var sectors int64
		if n, _ := fmt.Sscanf(line, "RW %d", &sectors); n == 1 {
			size += sectors * 512
		}
		key, value, _ := strings.Cut(line, "=")
		value = strings.Trim(strings.TrimSpace(value), `"`)
		switch strings.TrimSpace(key) {
		case "ddb.uuid":
			uuid = dashes(value)
		case "ddb.thinProvisioned":
			thin = value == "1"
		}
	}
	if size == 0 {
		return 0, "", false, fmt.Errorf("%s: no extent that can be written", filepath.Base(path))
	}
	return size, uuid, thin, nil
}

// dashes makes a UUID of hexadecimal digits with anything between.
func dashes(s string) string {
	var digits strings.Builder
	for _, r := range s {
		if strings.ContainsRune("0123456789abcdefABCDEF", r) {
			digits.WriteRune(r)
		}
	}
	d := digits.String()
	if len(d) != 32 {
		return ""
	}
	return d[:8] + "-" + d[8:12] + "-" + d[12:16] + "-" + d[16:20] + "-" + d[20:]
}

// makeFlat makes an empty flat file.
func makeFlat(path string, size int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

// copyFlat makes a copy of a file, of size bytes, that shares its blocks where the file
// system can, and has its holes where not.
func copyFlat(from, to string, size int64) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if closed := dst.Close(); err == nil {
			err = closed
		}
		if err != nil {
			os.Remove(to)
		}
	}()
	if unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) != nil {
		if err := copyData(src, dst); err != nil {
			return err
		}
	}
	return dst.Truncate(size)
}

func copyData(src, dst *os.File) error {
	return data(src, func(off, end int64) error {
		for off < end {
			in, out := off, off
			n, err := unix.CopyFileRange(int(src.Fd()), &in, int(dst.Fd()), &out, int(min(end-off, 1<<30)), 0)
			if err != nil || n == 0 {
				return copySlow(src, dst, off, end)
			}
			off += int64(n)
		}
		return nil
	})
}

func copySlow(src, dst *os.File, off, end int64) error {
	_, err := io.Copy(io.NewOffsetWriter(dst, off), io.NewSectionReader(src, off, end-off))
	return err
}

// data calls do for each part of a file that is no hole, in order.
func data(f *os.File, do func(off, end int64) error) error {
	fd := int(f.Fd())
	for off := int64(0); ; {
		begin, err := unix.Seek(fd, off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return err
		}
		end, err := unix.Seek(fd, begin, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if err := do(begin, end); err != nil {
			return err
		}
		off = end
	}
}
