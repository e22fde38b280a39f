package vddk

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// The ways out of a type that is not opened here.
const (
	vmdkConvert     = "convert it with `qemu-img convert -O vmdk -o subformat=monolithicFlat`, or open it with vddk://"
	vmdkConsolidate = "consolidate (delete) the snapshots of the VM, or open the disk with vddk://"
	vmdkDevice      = "name the device behind it: block:///dev/..."
)

// vmdkFlat are the types whose bytes lie flat in files. vSphere writes "vmfs"
// for thin and thick disks alike; the longer names come from VMware's library.
var vmdkFlat = []string{
	"monolithicflat", "twogbmaxextentflat", "2gbmaxextentflat",
	"vmfs", "vmfsthin", "vmfsthick", "vmfspreallocated", "vmfseagerzeroedthick",
}

// vmdkRefused says for each other type that is known what helps.
var vmdkRefused = map[string]string{
	"monolithicsparse":            vmdkConvert,
	"twogbmaxextentsparse":        vmdkConvert,
	"2gbmaxextentsparse":          vmdkConvert,
	"streamoptimized":             vmdkConvert,
	"custom":                      vmdkConvert,
	"vmfssparse":                  "a snapshot; " + vmdkConsolidate,
	"sesparse":                    "a snapshot; " + vmdkConsolidate,
	"vmfssesparse":                "a snapshot; " + vmdkConsolidate,
	"vmfsrawdevicemap":            vmdkDevice,
	"vmfspassthroughrawdevicemap": vmdkDevice,
	"vmfsrdm":                     vmdkDevice,
	"vmfsrdmp":                    vmdkDevice,
	"vmfsraw":                     vmdkDevice,
	"fulldevice":                  vmdkDevice,
	"partitioneddevice":           vmdkDevice,
	"vsansparse":                  "a snapshot; " + vmdkConsolidate,
}

// check judges the descriptor as a whole.
func (d *vmdkText) check() error {
	d.createType, d.adapter = d.keys["createtype"], d.keys["ddb.adaptertype"]
	d.changeTrack, d.thin = d.keys["changetrackpath"], d.keys["ddb.thinprovisioned"] == "1"
	for _, part := range []func() error{d.checkVersion, d.checkType, d.checkChain, d.checkIDs, d.checkExtents} {
		if err := part(); err != nil {
			return err
		}
	}
	return nil
}

// checkVersion knows 1 and 2 of Workstation, 3 of vSphere with change tracking
// and 4 of later ones.
func (d *vmdkText) checkVersion() error {
	if v, err := strconv.Atoi(d.keys["version"]); err != nil || v < 1 || v > 4 {
		return fmt.Errorf("version %q; 1 to 4 are known", clip(d.keys["version"]))
	}
	if strings.Contains(strings.ToLower(d.keys["ddb.iofilters"]), "crypt") {
		return errors.New("the disk is encrypted: its file holds no plain bytes; open it with vddk://")
	}
	return nil
}

func (d *vmdkText) checkType() error {
	name := strings.ToLower(d.createType)
	if contains(vmdkFlat, name) {
		return nil
	}
	if remedy, ok := vmdkRefused[name]; ok {
		return fmt.Errorf("type %s: %s", d.createType, remedy)
	}
	return fmt.Errorf("type %q is not known; monolithicFlat, twoGbMaxExtentFlat and vmfs can be opened", clip(d.createType))
}

// checkChain refuses a snapshot: its file has only what changed since.
func (d *vmdkText) checkChain() error {
	parent, known := d.keys["parentfilenamehint"]
	id, set := d.keys["parentcid"]
	if set {
		n, err := strconv.ParseUint(id, 16, 32)
		if err != nil {
			return fmt.Errorf("parentCID %q", clip(id))
		}
		set = n != noParent
	}
	if known || set {
		return fmt.Errorf("a snapshot of %q (parentCID %s): %s", clip(parent), or(id, "missing"), vmdkConsolidate)
	}
	return nil
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func (d *vmdkText) checkIDs() error {
	id, ok := d.keys["cid"]
	if !ok {
		return errors.New("CID is missing")
	}
	if !isHex(id) || len(id) > 8 {
		return fmt.Errorf("CID %q: not up to 8 hexadecimal digits", clip(id))
	}
	return nil
}

func (d *vmdkText) checkExtents() error {
	if len(d.extents) == 0 {
		return errors.New("no extents")
	}
	names := map[string]bool{}
	var total int64
	for i := range d.extents {
		e := &d.extents[i]
		if err := e.check(); err != nil {
			return fmt.Errorf("extent %d: %w", i+1, err)
		}
		if e.name != "" && names[e.name] {
			return fmt.Errorf("extent %d: the file %q is in use by an extent before it", i+1, clip(e.name))
		}
		names[e.name] = true
		if total > math.MaxInt64-e.size {
			return fmt.Errorf("extent %d: the disk ends beyond 8 EiB", i+1)
		}
		total += e.size
	}
	return d.checkEncoding()
}

func (e *vmdkExtent) check() error {
	switch e.kind {
	case "FLAT", "VMFS":
		if err := checkExtentName(e.name); err != nil {
			return err
		}
	case "ZERO":
	case "SPARSE":
		return fmt.Errorf("type SPARSE: %s", vmdkConvert)
	case "VMFSSPARSE", "SESPARSE", "VSANSPARSE":
		return fmt.Errorf("type %s, a snapshot: %s", e.kind, vmdkConsolidate)
	case "VMFSRDM", "VMFSRAW":
		return fmt.Errorf("type %s: %s", e.kind, vmdkDevice)
	default:
		return fmt.Errorf("type %q is not known; FLAT, VMFS and ZERO are", clip(e.kind))
	}
	if e.access == "NOACCESS" {
		return errors.New("NOACCESS: it can be neither read nor written")
	}
	return nil
}

// checkExtentName allows names of files beside the descriptor only. A
// descriptor comes with its disk, perhaps from a site that is not trusted: it
// must not lead to other files of this machine.
func checkExtentName(name string) error {
	switch {
	case name == "":
		return errors.New("empty file name")
	case name == "." || name == ".." || strings.ContainsRune(name, '/'):
		return fmt.Errorf("file %q: only files in the directory of the descriptor are opened", clip(name))
	}
	for _, c := range []byte(name) {
		if c < ' ' || c == 0x7f {
			return fmt.Errorf("file %q: control character in its name", clip(name))
		}
	}
	return nil
}

// checkEncoding: the bytes of a name are the name of the file only in UTF-8.
func (d *vmdkText) checkEncoding() error {
	encoding, ok := d.keys["encoding"]
	if !ok || strings.EqualFold(encoding, "UTF-8") {
		return nil
	}
	for i := range d.extents {
		for _, c := range []byte(d.extents[i].name) {
			if c >= 0x80 {
				return fmt.Errorf("file %q: a name in the encoding %q; rename it, and write the new name into the descriptor", clip(d.extents[i].name), clip(encoding))
			}
		}
	}
	return nil
}
