package vddk

import (
	"strings"
	"testing"
)

// TestParseVMDK: what is really written by the tools of this field.
func TestParseVMDK(t *testing.T) {
	for name, c := range map[string]struct {
		text   string
		extent vmdkExtent
	}{
		"vSphere 6": {
			"# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID=75748046\nparentCID=ffffffff\nisNativeSnapshot=\"no\"\ncreateType=\"vmfs\"\n\n" +
				"# Extent description\nRW 83886080 VMFS \"vm 01-flat.vmdk\"\n\n# The Disk Data Base \n#DDB\n\nddb.adapterType = \"lsilogic\"\n" +
				"ddb.geometry.cylinders = \"5221\"\nddb.longContentID = \"fcf1eb0bcf4258028daa64eb75748046\"\nddb.thinProvisioned = \"1\"\nddb.uuid = \"60 00 C2 94\"\n",
			vmdkExtent{"RW", "VMFS", "vm 01-flat.vmdk", 83886080 * 512, 0},
		},
		"vSphere 8, change tracking": {
			"# Disk DescriptorFile\nversion=3\nencoding=\"UTF-8\"\nCID=fd71677b\nparentCID=ffffffff\ncreateType=\"vmfs\"\n\n# Extent description\n" +
				"RW 4192256 VMFS \"x-flat.vmdk\"\n\n# Change Tracking File\nchangeTrackPath=\"x-ctk.vmdk\"\n\n# The Disk Data Base\n#DDB\nddb.adapterType = \"lsilogic\"\n",
			vmdkExtent{"RW", "VMFS", "x-flat.vmdk", 4192256 * 512, 0},
		},
		"Workstation, CRLF": {
			"# Disk DescriptorFile\r\nversion=1\r\nCID=fffffffe\r\nparentCID=ffffffff\r\ncreateType=\"monolithicFlat\"\r\n\r\n# Extent description\r\n" +
				"RW 27648000 FLAT \"test-flat.vmdk\" 0\r\n\r\n# The Disk Data Base\r\n#DDB\r\nddb.adapterType = \"lsilogic\"\r\n",
			vmdkExtent{"RW", "FLAT", "test-flat.vmdk", 27648000 * 512, 0},
		},
		"simulator": {
			"# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID=00000000\nparentCID=ffffffff\ncreateType=\"vmfs\"\n\n# Extent description\n" +
				"RW 20971520 VMFS \"disk1-flat.vmdk\"\n\n# The Disk Data Base\n#DDB\nddb.adapterType = \"lsilogic\"\n",
			vmdkExtent{"RW", "VMFS", "disk1-flat.vmdk", 20971520 * 512, 0},
		},
		"qemu after a write": {
			"# Disk DescriptorFile\nversion=1\nCID=6e03d4a\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\n\n# Extent description\n" +
				"RW 8 FLAT \"a-flat.vmdk\" 3\nddb.adapterType = \"lsilogic\"\n" + strings.Repeat("\x00", 10_000),
			vmdkExtent{"RW", "FLAT", "a-flat.vmdk", 8 * 512, 3 * 512},
		},
		"qemu after a write, much shorter": {
			"# Disk DescriptorFile\nversion=1\nCID=6e03d\nparentCID=ffffffff\ncreateType=\"monolithicFlat\"\nddb.adapterType = \"lsilogic\"\n" +
				"RW 8 FLAT \"a-flat.vmdk\" 3\n\x007\"\n\x00\x00",
			vmdkExtent{"RW", "FLAT", "a-flat.vmdk", 8 * 512, 3 * 512},
		},
		"loose": {
			"\n# disk descriptorfile\n VERSION = 1\nCID = 00000001\t\ncreatetype=twogbmaxextentflat\n\t rw  8\tflat  \"a b\"   2  \nDDB.adapterType=\"lsilogic\"",
			vmdkExtent{"RW", "FLAT", "a b", 8 * 512, 2 * 512},
		},
	} {
		d, err := parseVMDK([]byte(c.text))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(d.extents) != 1 || d.extents[0] != c.extent || d.adapter != "lsilogic" {
			t.Errorf("%s: got %+v, adapter %q, want %+v", name, d.extents, d.adapter, c.extent)
		}
		if got := c.text[d.cidAt : d.cidAt+d.cidLen]; got != d.keys["cid"] {
			t.Errorf("%s: the place of the CID %q is %q", name, d.keys["cid"], got)
		}
	}
}

// FuzzVMDK: no panic, and what is accepted keeps its promises.
func FuzzVMDK(f *testing.F) {
	f.Add([]byte("# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType=\"vmfs\"\nRW 8 VMFS \"a\"\nRW 1 ZERO\nRW 2 FLAT \"b\" 7\n"))
	f.Add([]byte("# Disk DescriptorFile\r\nversion=1\r\nCID=fd71677b\r\ncreateType=monolithicFlat\r\nRW 9 FLAT \"a\" 0\r\nddb.longContentID = \"6ed2c87e7a10ae14dc6bc1d4fd71677b\"\x00\x00"))
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := parseVMDK(text)
		if err != nil {
			if len(err.Error()) > 1000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		var total int64
		for _, e := range d.extents {
			total += e.size
			if e.size <= 0 || e.at < 0 || e.at+e.size <= 0 || total <= 0 {
				t.Errorf("extent %+v, %d bytes so far", e, total)
			}
			if (e.kind != "ZERO") != (e.name != "") || strings.ContainsAny(e.name, "/\x00\n") || e.name == ".." {
				t.Errorf("extent %+v", e)
			}
		}
		if id := string(text[d.cidAt : d.cidAt+d.cidLen]); !isHex(id) || id != d.keys["cid"] {
			t.Errorf("the place of the CID %q is %q", d.keys["cid"], id)
		}
		if d.longAt >= 0 && !isHex(string(text[d.longAt:d.longAt+32])) {
			t.Errorf("the place of the long ID is %q", text[d.longAt:d.longAt+32])
		}
	})
}
