package vddk

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/cbt"
)

// The types that are created: Workstation, VirtualBox and qemu take the first,
// ESXi powers on only the second; qemu reads both.
const (
	typeHosted = "monolithicFlat"
	typeVMFS   = "vmfs"
)

// vmdkTemplate is a descriptor in the form that VMware's tools write.
const vmdkTemplate = `# Disk DescriptorFile
version=1
encoding="UTF-8"
CID=%08x
parentCID=ffffffff
createType="%s"

# Extent description
%s

# The Disk Data Base
#DDB

ddb.adapterType = "lsilogic"
ddb.geometry.cylinders = "%d"
ddb.geometry.heads = "255"
ddb.geometry.sectors = "63"
ddb.longContentID = "%s"
ddb.virtualHWVersion = "4"
`

// create makes the flat file, and then the text of the descriptor, which is
// there and empty, and locked. When it is cut, the descriptor is still empty:
// the next creation goes on.
func (v *VMDK) create(size int64, createType string) ([]byte, error) {
	if size = wholeSectors(size); size <= 0 {
		return nil, fmt.Errorf("%s: create: %w: the size", v.path, cbt.ErrBounds)
	}
	name := strings.TrimSuffix(v.base, ".vmdk") + "-flat.vmdk"
	if err := checkExtentName(name); err != nil || strings.ContainsRune(name, '"') {
		return nil, fmt.Errorf("%s: create: %w: the name %q cannot stand in a descriptor", v.path, ErrFormat, clip(name))
	}
	if err := v.createFlat(name, size); err != nil {
		return nil, err
	}
	extent := fmt.Sprintf(`RW %d FLAT "%s" 0`, size/vmdkSector, name)
	if createType == typeVMFS {
		extent = fmt.Sprintf(`RW %d VMFS "%s"`, size/vmdkSector, name)
	} else {
		createType = typeHosted
	}
	long := newContentID()
	text := fmt.Appendf(nil, vmdkTemplate, binary.BigEndian.Uint32(long[12:]), createType, extent, size/vmdkSector/(255*63), hex.EncodeToString(long[:]))
	if err := v.desc.replace(text); err != nil {
		return nil, fmt.Errorf("%s: create: %w", v.path, err)
	}
	return text, nil
}

// createFlat makes the file with the bytes. One that is there may be left of a
// creation that was cut; when it has data it is not ours to take: it may be a
// disk that lost its descriptor.
func (v *VMDK) createFlat(name string, size int64) error {
	path := filepath.Join(filepath.Dir(v.path), name)
	made, err := createFileAt(v.dir, name, path, size) // v.path may be a link to elsewhere
	if err != nil {
		return err
	}
	if made {
		v.made = append(v.made, name)
	}
	f, err := v.openBeside(name, path, ReadWrite, nil)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.NextData(0); err != io.EOF {
		return fmt.Errorf("%s: create: %w and has data; remove it, or write a descriptor for it", path, unix.EEXIST)
	}
	if _, err := f.wantedSize(f.Size(), Options{Create: true, CreateSize: size}); err != nil {
		return err
	}
	return nil
}

// replace writes all of a small file anew, durably, and takes its new size.
func (f *File) replace(text []byte) error {
	if _, err := pwriteFull(f.fd, text, 0); err != nil {
		return err
	}
	f.size = int64(len(text))
	return errors.Join(unix.Ftruncate(f.fd, f.size), noIntr(f.fd, unix.Fsync))
}

// newContentID is 16 random bytes, of which the last four are the content ID.
// fffffffe is what VMware writes at creation, ffffffff and 0 mean "none".
func newContentID() (id [16]byte) {
	for {
		_, _ = rand.Read(id[:]) // never fails
		if n := binary.BigEndian.Uint32(id[12:]); n != 0 && n < 0xfffffffe {
			return id
		}
	}
}

// renew changes the content ID before the first byte of the disk changes, once
// for each time that the disk is opened ("updated the first time the content
// is modified after the disk is opened", Virtual Disk Format 1.1). The digits
// are written over the old ones and in one piece, so the file keeps its inode,
// its locks and its length, whatever else stands in it, and a power cut leaves
// the old ID or the new one.
func (v *VMDK) renew() error {
	if v.renewed.Load() {
		return nil
	}
	v.cidMu.Lock()
	defer v.cidMu.Unlock()
	if v.renewed.Load() {
		return nil
	}
	if err := v.writeContentID(); err != nil {
		return &ioError{"change content ID of", v.path, cbt.Extent{Len: v.desc.size}, err}
	}
	v.renewed.Store(true)
	return nil
}

func (v *VMDK) writeContentID() error {
	text, err := v.readText()
	if err != nil {
		return err
	}
	now, err := parseVMDK(text)
	if err != nil || now.cidAt != v.text.cidAt || now.cidLen != v.text.cidLen || now.longAt != v.text.longAt {
		return errors.Join(ErrChanged, err)
	}
	old := string(text[now.cidAt : now.cidAt+now.cidLen])
	var id string
	for id == "" || strings.EqualFold(old, id[32-now.cidLen:]) {
		fresh := newContentID()
		id = hex.EncodeToString(fresh[:])
	}
	copy(text[now.cidAt:], id[32-now.cidLen:]) // qemu leaves leading zeros out: then it has fewer digits
	if now.longAt >= 0 {
		copy(text[now.longAt:], id)
		copy(text[now.longAt+24:], strings.Repeat("0", 8-now.cidLen)+id[32-now.cidLen:])
	}
	if _, err := pwriteFull(v.desc.fd, text, 0); err != nil {
		return err
	}
	return noIntr(v.desc.fd, unix.Fdatasync)
}
