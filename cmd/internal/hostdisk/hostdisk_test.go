package hostdisk

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/haulback/haulback/hostctl/osd"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/vddk"
)

func TestParse(t *testing.T) {
	for _, good := range []string{
		"vm-42/--/[ds] web/web.vmdk",
		"vm-42/snapshot-7/[LocalDS_0] web.vmdk",
		"42/42-snapshot-7/[Datastore 1 (fast)] a b/c.d/über-000001.vmdk",
		"vm-1/--/[ds] a/..b.vmdk",
		"web/--/osd:vol-1",
		"web/--/osd:1005213432@7.a_B",
		"web/haulback-1-protect/osd:vol-1@snap-1",
		"web/--/osd:" + strings.Repeat("a", 64) + "@" + strings.Repeat("b", 64),
	} {
		n, err := Parse(good)
		if err != nil || n.String() != good {
			t.Errorf("%q: %+v %q, %v", good, n, n, err)
		}
	}
	for _, bad := range []string{
		"", "/", "//", "vm-1", "vm-1/--", "vm-1/--/", "vm-1/--/web.vmdk", "vm-1/[ds] web.vmdk",
		"vm-1//[ds] web.vmdk", "/--/[ds] web.vmdk", "../--/[ds] web.vmdk", "vm-1/../[ds] web.vmdk", "-/--/[ds] web.vmdk", "vm-1/---/[ds] w.vmdk",
		"vm-1/--/[ds]web.vmdk", "vm-1/--/[] web.vmdk", "vm-1/--/[d/s] web.vmdk", "vm-1/--/[d[s] web.vmdk", "vm-1/--/[ds ] web.vmdk",
		"vm-1/--/[ds] ../web.vmdk", "vm-1/--/[ds] a/../../web.vmdk", "vm-1/--/[ds] a/./web.vmdk", "vm-1/--/[ds] a//web.vmdk",
		"vm-1/--/[ds] /etc/web.vmdk", "vm-1/--/[ds]  web.vmdk", `vm-1/--/[ds] a\b.vmdk`, "vm-1/--/[ds] a/web.vmdk/", "vm-1/--/[ds] a/",
		"vm-1/--/[ds] /", "vm-1/--/[ds] .", "vm-1/--/[ds] ..", "vm-1/--/[ds] .vmdk", "vm-1/--/[ds] a/.vmdk", "vm-1/--/[ds] web.vmx", "vm-1/--/[ds] web.VMDK",
		"vm-1/--/[ds] a\x00.vmdk", "vm-1/--/[ds] a\n.vmdk", "vm-1/--/[ds] a\u202e.vmdk", "vm-1/--/[ds] a\xff.vmdk", "vm-1/--/[ds] " + strings.Repeat("a", 200) + ".vmdk",
		"web/snap/osd:vol-1", "web/--/osd:", "web/--/osd:a@", "web/--/osd:@a", "web/--/osd:a@b@c", "web/--/osd:a/b", "web/--/osd:a b", "web/--/osd:..", "web/--/osd:a@.", "web/--/osd:a?snapshot=b",
		"web/--/osd:a%2fb", "web/--/osd:" + strings.Repeat("a", 65), "web/--/OSD:a", "web/--/osd: a", "web/--/osd://p/a", "web/--/osd:a\n", "web//osd:a",
		"vm-1?x/--/[ds] web.vmdk", "vm-1/snapshot-7&user=root/[ds] web.vmdk",
	} {
		if n, err := Parse(bad); !errors.Is(err, ErrName) {
			t.Errorf("%q: %+v, %v", bad, n, err)
		}
	}
}

// FuzzParse: what parses has one text, is within bounds, and leads downwards.
func FuzzParse(f *testing.F) {
	f.Add("vm-42/--/[ds] web/web.vmdk")
	f.Add("vm-42/snapshot-7/[ds] ../web.vmdk")
	f.Add("vm-42/--/[a] [b] c.vmdk")
	f.Add("web/--/osd:vol-1")
	f.Add("web/snap-1/osd:vol-1@snap-2")
	f.Fuzz(func(t *testing.T, in string) {
		n, err := Parse(in)
		if err != nil {
			return
		}
		if n.String() != in {
			t.Fatalf("%q parses to %+v, which is %q", in, n, n)
		}
		if n.Volume != "" {
			table := Table{OpenStorage: "px"}
			leaf, err := table.Disk(n)
			u, uerr := osd.ParseURI(osd.URI{Profile: "px", Volume: n.Volume, Snapshot: n.At}.String())
			if err != nil || leaf.Frozen != (n.At != "") || uerr != nil || u.Volume != n.Volume || u.Snapshot != n.At {
				t.Fatalf("%q: %+v %v, %+v %v", in, leaf, err, u, uerr)
			}
			return
		}
		if !filepath.IsLocal(n.Path) || filepath.Clean(n.Path) != n.Path {
			t.Fatalf("%q leads to %q", in, n.Path)
		}
		table := Table{VDDK: "vddk://esx.example?user=u&password-file=/p&thumbprint=" + strings.Repeat("00", 20)}
		if leaf, err := table.Disk(n); err == nil {
			if _, err := vddk.ParseURI(table.uri(n)); err != nil || leaf.Frozen != (n.Snapshot != "") {
				t.Fatalf("%q: %v %+v", in, err, leaf)
			}
		}
	})
}

// store is a datastore with a disk, and traps around it.
func store(t *testing.T) (dir string, table *Table) {
	t.Helper()
	dir = t.TempDir()
	for _, sub := range []string{"ds/web", "elsewhere"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"ds/web/web.vmdk", "elsewhere/secret.vmdk"} {
		d, err := vddk.Open(t.Context(), "vmdk://"+filepath.Join(dir, name), vddk.Options{Mode: vddk.ReadWrite, Create: true, CreateSize: 1 << 20})
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for from, to := range map[string]string{
		"ds/out": "../elsewhere", "ds/abs": filepath.Join(dir, "elsewhere"), "ds/web/link.vmdk": "../../elsewhere/secret.vmdk", "ds/in": "web",
	} {
		if err := os.Symlink(to, filepath.Join(dir, from)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "ds/dir.vmdk"), 0o755); err != nil {
		t.Fatal(err)
	}
	return dir, &Table{Datastores: map[string]string{"ds": filepath.Join(dir, "ds")}}
}

func TestNothingLeadsOut(t *testing.T) {
	_, table := store(t)
	for name, opens := range map[string]bool{
		"vm-1/--/[ds] web/web.vmdk":         true,
		"vm-1/snapshot-1/[ds] web/web.vmdk": true,
		"vm-1/--/[ds] out/secret.vmdk":      false,
		"vm-1/--/[ds] abs/secret.vmdk":      false,
		"vm-1/--/[ds] web/link.vmdk":        false,
		"vm-1/--/[ds] in/web.vmdk":          false, // a link within is one all the same
		"vm-1/--/[ds] dir.vmdk":             false,
		"vm-1/--/[ds] web/web-flat.vmdk":    false, // no descriptor
		"vm-1/--/[ds] web/none.vmdk":        false,
		"vm-1/--/[other] web/web.vmdk":      false,
	} {
		leaf, err := table.Find(name)
		if err == nil {
			var d mover.Disk
			if d, err = leaf.Open(t.Context(), mover.ReadOnly); err == nil {
				d.Close()
			}
		}
		if (err == nil) != opens {
			t.Errorf("%s: %v", name, err)
		}
	}
	if a, b := mustFind(t, table, "vm-1/--/[ds] web/web.vmdk"), mustFind(t, table, "vm-2/snapshot-9/[ds] web/web.vmdk"); a.Unit != b.Unit || a.Frozen || !b.Frozen {
		t.Errorf("one disk has two names: %+v %+v", a, b)
	}
}

func mustFind(t *testing.T, table *Table, name string) mover.Leaf {
	t.Helper()
	leaf, err := table.Find(name)
	if err != nil {
		t.Fatal(err)
	}
	return leaf
}

func TestTableCheck(t *testing.T) {
	const thumb = "&thumbprint=0000000000000000000000000000000000000000"
	for name, tt := range map[string]struct {
		table Table
		want  string
	}{
		"good":          {Table{Datastores: map[string]string{"ds": "/srv/ds"}}, ""},
		"good vddk":     {Table{VDDK: "vddk://esx?user=u&password-file=/p" + thumb}, ""},
		"nothing":       {Table{}, "datastores = {"},
		"both":          {Table{Datastores: map[string]string{"ds": "/srv/ds"}, VDDK: "vddk://esx"}, "not both"},
		"relative":      {Table{Datastores: map[string]string{"ds": "srv/ds"}}, "absolute"},
		"bad name":      {Table{Datastores: map[string]string{"d]s": "/srv/ds"}}, "brackets"},
		"vddk disk":     {Table{VDDK: "vddk://esx?disk=[ds] a.vmdk&user=u&password-file=/p" + thumb}, "leave them out"},
		"vddk password": {Table{VDDK: "vddk://u:p@esx?password-file=/p" + thumb}, "a password stands in it"},
		"good volumes":  {Table{OpenStorage: "px"}, ""},
		"two of three":  {Table{OpenStorage: "px", Datastores: map[string]string{"ds": "/srv/ds"}}, "not both"},
		"all three":     {Table{OpenStorage: "px", VDDK: "vddk://esx", Datastores: map[string]string{"ds": "/srv/ds"}}, "not both"},
		"another":       {Table{VDDK: "nbd://h/x"}, ""},
	} {
		err := tt.table.Check()
		if name == "another" {
			if err == nil {
				t.Errorf("%s: no error", name)
			}
			continue
		}
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOtherKind: a disk of one kind of host is none of another.
func TestOtherKind(t *testing.T) {
	files, volumes := Table{Datastores: map[string]string{"ds": "/"}}, Table{OpenStorage: "px"}
	if _, err := files.Find("web/--/osd:vol-1"); err == nil || !strings.Contains(err.Error(), "openstorage = ") {
		t.Errorf("a volume of datastores: %v", err)
	}
	if _, err := volumes.Find("vm-1/--/[ds] web/web.vmdk"); err == nil || !strings.Contains(err.Error(), `profile "px"`) {
		t.Errorf("a VMDK of volumes: %v", err)
	}
	live, snap := mustFind(t, &volumes, "web/--/osd:vol-1"), mustFind(t, &volumes, "web/s-1/osd:vol-1@snap-1")
	if live.Frozen || !snap.Frozen || live.Unit == snap.Unit || live.Kind != "osd" {
		t.Errorf("%+v %+v", live, snap)
	}
	if other := mustFind(t, &volumes, "shop/--/osd:vol-1"); other.Unit != live.Unit {
		t.Errorf("one volume has two units: %q and %q", live.Unit, other.Unit)
	}
}
