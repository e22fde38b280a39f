package hostdisk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/haulback/haulback/hostctl/osd"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/vddk"
)

// Table is what an export of role "host" has: one of the three.
type Table struct {
	Datastores  map[string]string // name to absolute directory
	VDDK        string            // "vddk://HOST?user=...", to be completed
	OpenStorage string            // profile of the cluster that has the volumes; its driver has to be registered
	Log         *slog.Logger      // gets what a driver's processes say; nil drops it
}

// Check says what is wrong with t itself.
func (t *Table) Check() error {
	ways := 0
	for _, is := range []bool{len(t.Datastores) > 0, t.VDDK != "", t.OpenStorage != ""} {
		if is {
			ways++
		}
	}
	if ways != 1 {
		return errors.New(`name the host's datastores, as in datastores = { LocalDS_0 = "/srv/ds/LocalDS_0" }, or vddk = "vddk://HOST?...", or openstorage = "PROFILE", and not both`)
	}
	for _, name := range slices.Sorted(maps.Keys(t.Datastores)) {
		if err := CheckDatastore(name); err != nil {
			return err
		}
		if dir := t.Datastores[name]; !filepath.IsAbs(dir) {
			return fmt.Errorf("datastore %q: %q: not an absolute path", name, dir)
		}
	}
	if t.VDDK == "" {
		return nil
	}
	if _, query, _ := strings.Cut(t.VDDK, "?"); strings.Contains("&"+query, "&disk=") || strings.Contains("&"+query, "&snapshot=") {
		return errors.New("vddk: disk and snapshot come from the names of disks; leave them out")
	}
	if !strings.HasPrefix(t.VDDK, "vddk://") {
		return errors.New(`vddk: the URI of VMware's library, as in vddk = "vddk://HOST?user=NAME&password-file=PATH&thumbprint=SHA1"`)
	}
	_, err := vddk.ParseURI(t.uri(Name{VM: "vm-1", Datastore: "ds", Path: "vm/vm.vmdk"}))
	return err
}

// uri completes the URI of VMware's library.
func (t *Table) uri(n Name) string {
	head, query, _ := strings.Cut(t.VDDK, "?")
	disk := "disk=" + url.QueryEscape(n.File())
	if n.Snapshot != "" {
		disk += "&snapshot=" + url.QueryEscape(n.Snapshot)
	}
	if query != "" {
		disk += "&" + query
	}
	return strings.TrimSuffix(head, "/") + "/" + n.VM + "?" + disk
}

// Find is the mover.Beneath of the export.
func (t *Table) Find(text string) (mover.Leaf, error) {
	n, err := Parse(text)
	if err != nil {
		return mover.Leaf{}, err
	}
	return t.Disk(n)
}

// Disk is the disk called n.
func (t *Table) Disk(n Name) (mover.Leaf, error) {
	if (n.Volume != "") != (t.OpenStorage != "") {
		return mover.Leaf{Unit: n.File()}, t.otherKind(n)
	}
	if n.Volume != "" {
		return t.volume(n), nil
	}
	leaf := mover.Leaf{Unit: n.File(), Kind: "vmdk", Frozen: n.Snapshot != ""}
	if t.VDDK != "" {
		uri := t.uri(n)
		if _, err := vddk.ParseURI(uri); err != nil {
			return leaf, err
		}
		leaf.Kind, leaf.Open = "vddk", t.opener(func(ctx context.Context, opts vddk.Options) (vddk.Disk, error) { return vddk.Open(ctx, uri, opts) })
		return leaf, nil
	}
	dir, ok := t.Datastores[n.Datastore]
	if !ok {
		return leaf, fmt.Errorf("datastore %q is not in the export's table; it has %s", n.Datastore, strings.Join(slices.Sorted(maps.Keys(t.Datastores)), ", "))
	}
	leaf.Open = t.opener(func(ctx context.Context, opts vddk.Options) (vddk.Disk, error) {
		return openBeneath(ctx, dir, n.Path, opts)
	})
	return leaf, nil
}

// otherKind refuses a disk of another kind of host.
func (t *Table) otherKind(n Name) error {
	if n.Volume != "" {
		return fmt.Errorf("%s is an OpenStorage volume, and the export has none; write openstorage = \"PROFILE\" in the place of datastores or vddk", n.File())
	}
	return fmt.Errorf("%s is a disk of a vSphere host, and the export has the volumes of OpenStorage profile %q", n.File(), t.OpenStorage)
}

// volume is a volume of the profile, or a snapshot of one. The snapshot is another
// disk than its volume.
func (t *Table) volume(n Name) mover.Leaf {
	uri := osd.URI{Profile: t.OpenStorage, Volume: n.Volume, Snapshot: n.At}.String()
	return mover.Leaf{Unit: n.File(), Kind: osd.Scheme, Frozen: n.At != "", Open: t.opener(func(ctx context.Context, opts vddk.Options) (vddk.Disk, error) {
		return vddk.Open(ctx, uri, opts)
	})}
}

func (t *Table) opener(open func(context.Context, vddk.Options) (vddk.Disk, error)) mover.OpenDisk {
	return func(ctx context.Context, access mover.Access) (mover.Disk, error) {
		opts := vddk.Options{Mode: vddk.ReadOnly, Log: t.Log}
		if access == mover.ReadWrite {
			opts.Mode = vddk.ReadWrite
		}
		disk, err := open(ctx, opts)
		if err != nil {
			return nil, err
		}
		return disk, nil
	}
}

// openBeneath opens the descriptor at file of dir. What is there before has to be
// there after.
func openBeneath(ctx context.Context, dir, file string, opts vddk.Options) (vddk.Disk, error) {
	before, err := look(dir, file)
	if err != nil {
		return nil, err
	}
	u := url.URL{Scheme: "vmdk", Path: filepath.Join(dir, filepath.FromSlash(file))}
	disk, err := vddk.Open(ctx, u.String(), opts)
	if err != nil {
		return nil, err
	}
	after, err := look(dir, file)
	if err == nil && !os.SameFile(before, after) {
		err = fmt.Errorf("%s: it was replaced while it was opened", file)
	}
	if err != nil {
		return nil, errors.Join(err, disk.Close())
	}
	return disk, nil
}

// look finds the regular file at the path beneath dir, through directories only.
// That dir itself is a link is the site's business.
func look(dir, file string) (fs.FileInfo, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("datastore: %w", err)
	}
	defer root.Close() // only read
	for at := path.Dir(file); at != "."; at = path.Dir(at) {
		st, err := root.Lstat(at)
		if err != nil {
			return nil, fmt.Errorf("datastore: %w", err)
		}
		if !st.IsDir() {
			return nil, fmt.Errorf("datastore: %s is no directory", at)
		}
	}
	st, err := root.Lstat(file)
	switch {
	case err != nil:
		return nil, fmt.Errorf("datastore: %w", err)
	case !st.Mode().IsRegular():
		return nil, fmt.Errorf("datastore: %s is no file", file)
	}
	return st, nil
}
