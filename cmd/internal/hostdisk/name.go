package hostdisk

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Name is a disk of a VM of a host.
type Name struct {
	VM        string
	Snapshot  string // empty: the disk as it is now
	Datastore string
	Path      string // beneath the datastore, with slashes

	// Volume and At are an OpenStorage volume and the snapshot of it, by their ids,
	// in the place of Datastore and Path.
	Volume, At string
}

// ErrName means that a text names no disk of a host.
var ErrName = errors.New("not of the form VM/SNAPSHOT/[datastore] folder/disk.vmdk, VM/--/osd:VOLUME or VM/SNAPSHOT/osd:VOLUME@SNAPSHOT, with -- where there is no snapshot")

// maxName is what a ticket and a Hello have room for, with the export's name.
const maxName = 192

// none stands for no snapshot.
const none = "--"

var handle = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}$`)

// Parse reads what follows the name of the export. There is one text for each
// disk; every other is refused.
func Parse(text string) (n Name, err error) {
	if len(text) > maxName || !utf8.ValidString(text) || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return n, ErrName
	}
	vm, rest, ok1 := strings.Cut(text, "/")
	snapshot, file, ok2 := strings.Cut(rest, "/")
	if !ok1 || !ok2 || !handle.MatchString(vm) || snapshot != none && !handle.MatchString(snapshot) {
		return n, ErrName
	}
	if n, err = ParseFile(file); err != nil {
		return n, err
	}
	if n.VM = vm; snapshot != none {
		n.Snapshot = snapshot
	}
	if n.Volume != "" && n.Snapshot != "" && n.At == "" {
		return n, fmt.Errorf("%w: of the snapshot %s the volume as it is now", ErrName, n.Snapshot)
	}
	return n, nil
}

// ParseFile reads the part that the host writes: "[datastore] folder/disk.vmdk",
// "osd:VOLUME" or "osd:VOLUME@SNAPSHOT".
func ParseFile(file string) (n Name, err error) {
	if ref, ok := strings.CutPrefix(file, volumePrefix); ok {
		return parseVolume(ref)
	}
	store, path, ok := strings.Cut(strings.TrimPrefix(file, "["), "] ")
	if !ok || !strings.HasPrefix(file, "[") || CheckDatastore(store) != nil {
		return n, ErrName
	}
	for part := range strings.SplitSeq(path, "/") {
		if part == "" || part == "." || part == ".." || strings.Trim(part, " ") != part || strings.ContainsFunc(part, func(r rune) bool { return r == '\\' || !unicode.IsPrint(r) }) {
			return n, fmt.Errorf("%w: the path %q", ErrName, path)
		}
	}
	if !strings.HasSuffix(path, ".vmdk") || strings.HasSuffix(path, "/.vmdk") || path == ".vmdk" {
		return n, fmt.Errorf("%w: %q is no .vmdk", ErrName, path)
	}
	return Name{Datastore: store, Path: path}, nil
}

// volumePrefix begins the file of a disk that is a volume.
const volumePrefix = "osd:"

var volumeID = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,64}$`)

// parseVolume reads ids, not names: what an id means does not change.
func parseVolume(ref string) (n Name, err error) {
	volume, at, ok := strings.Cut(ref, "@")
	for i, id := range []string{volume, at} {
		if i == 1 && !ok {
			break
		}
		if !volumeID.MatchString(id) || strings.Trim(id, ".") == "" {
			return n, fmt.Errorf("%w: the volume %q", ErrName, ref)
		}
	}
	return Name{Volume: volume, At: at}, nil
}

// CheckDatastore says what is wrong with the name of a datastore.
func CheckDatastore(name string) error {
	if name == "" || len(name) > 64 || !utf8.ValidString(name) || strings.Trim(name, " ") != name ||
		strings.ContainsFunc(name, func(r rune) bool { return strings.ContainsRune(`[]/\`, r) || !unicode.IsPrint(r) }) {
		return fmt.Errorf("datastore %q: 1 to 64 bytes, no brackets and slashes, no space at its ends", name)
	}
	return nil
}

// String is the text that Parse reads.
func (n Name) String() string {
	snapshot := n.Snapshot
	if snapshot == "" {
		snapshot = none
	}
	return n.VM + "/" + snapshot + "/" + n.File()
}

// File is the disk's file as the host writes it.
func (n Name) File() string {
	switch {
	case n.Volume == "":
		return "[" + n.Datastore + "] " + n.Path
	case n.At == "":
		return volumePrefix + n.Volume
	}
	return volumePrefix + n.Volume + "@" + n.At
}
