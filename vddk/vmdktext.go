package vddk

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Limits of a descriptor. vSphere's are below 1 KiB; a disk of 2 TiB in
// extents of 2 GiB needs 60 KiB of text.
const (
	vmdkMaxText    = 64 << 10
	vmdkMaxExtents = 1024 // each holds two descriptors of this process
	vmdkSector     = 512
	vmdkMaxSectors = math.MaxInt64 / vmdkSector
)

// noParent is the parentCID of a disk that is no snapshot of another.
const noParent = 0xffffffff

// ErrFormat means that a file is no VMDK, or one that cannot be read as flat
// extents. The message says of which type it is and what helps.
var ErrFormat = errors.New("not a VMDK that can be opened")

// vmdkText is a descriptor: the text file that says where the bytes of a VMDK
// are. Virtual Disk Format 1.1, section "The Descriptor File".
type vmdkText struct {
	createType  string
	adapter     string
	changeTrack string // the file of vSphere's own change tracking
	thin        bool
	extents     []vmdkExtent
	// cidAt is the place of the digits of the content ID, longAt that of the
	// long one, which has it as its last 8 digits; -1: there is none.
	cidAt, cidLen, longAt int

	keys map[string]string // by lower-case name: the header and what we need of ddb
}

// vmdkExtent is a line of the descriptor.
type vmdkExtent struct {
	access string // "RW" or "RDONLY"
	kind   string // "FLAT", "VMFS" or "ZERO"
	name   string // of the file
	size   int64  // bytes
	at     int64  // bytes into the file
}

// vmdkHeader are the keys of the header that are understood, or known to mean
// nothing to whoever reads and writes the bytes. What is not in here may mean
// anything (a new kind of encryption, a chain) and is refused.
var vmdkHeader = []string{
	"version", "encoding", "cid", "parentcid", "createtype", "parentfilenamehint", "changetrackpath", "isnativesnapshot",
}

// parseVMDK reads the text of a descriptor. It is strict about what it does not
// understand and tolerant about what vSphere, Workstation and qemu write: CRLF,
// comments, spaces and unknown ddb keys. The text ends at the first zero byte,
// as it does for them: when qemu changes the content ID it fills the file up to
// 10 KiB with zeros, among which the end of the longer text before may show.
// Nothing is opened.
func parseVMDK(text []byte) (*vmdkText, error) {
	d := &vmdkText{cidAt: -1, longAt: -1, keys: map[string]string{}}
	if err := d.parse(text); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if err := d.check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return d, nil
}

func (d *vmdkText) parse(text []byte) error {
	if err := notText(text); err != nil {
		return err
	}
	text, _, _ = bytes.Cut(text, []byte{0})
	first := true
	for number, at := 1, 0; at < len(text); number++ {
		line, _, _ := bytes.Cut(text[at:], []byte("\n"))
		s := string(bytes.Trim(line, " \t\r"))
		switch {
		case s == "":
		case first && !strings.EqualFold(s, "# Disk DescriptorFile"):
			return fmt.Errorf("line %d: %q; a descriptor begins with # Disk DescriptorFile", number, clip(s))
		case s[0] == '#':
			first = false
		default:
			if err := d.line(s, at+bytes.Index(line, []byte(s))); err != nil {
				return fmt.Errorf("line %d: %w", number, err)
			}
		}
		at += len(line) + 1
	}
	if first {
		return errors.New("the descriptor is empty; remove it if its creation was cut")
	}
	return nil
}

// notText names what else is called .vmdk.
func notText(text []byte) error {
	switch {
	case bytes.HasPrefix(text, []byte("KDMV")):
		return errors.New("a sparse extent with the descriptor inside (monolithicSparse or streamOptimized); " + vmdkConvert)
	case bytes.HasPrefix(text, []byte("COWD")):
		return errors.New("a sparse extent of a snapshot (vmfsSparse); name the descriptor, and " + vmdkConsolidate)
	case len(text) > vmdkMaxText:
		return fmt.Errorf("no descriptor: it has more than %s; name the small text file beside it, which has no -flat in its name", sizeText(vmdkMaxText))
	}
	return nil
}

// line takes one line that is not empty and no comment. at is its place.
func (d *vmdkText) line(s string, at int) error {
	word, rest := cutWord(s)
	switch strings.ToUpper(word) {
	case "RW", "RDONLY", "NOACCESS":
		return d.extentLine(strings.ToUpper(word), rest)
	}
	key, value, ok := strings.Cut(s, "=")
	if !ok {
		return fmt.Errorf("%q is neither an extent nor KEY=VALUE", clip(s))
	}
	at += len(key) + 1
	name := strings.ToLower(strings.TrimSpace(key))
	at += len(value) - len(strings.TrimLeft(value, " \t"))
	value = strings.TrimSpace(value)
	if n := len(value); n >= 2 && value[0] == '"' && value[n-1] == '"' {
		at, value = at+1, value[1:n-1]
	}
	return d.set(name, value, at)
}

// set keeps a key. at is the place of the value.
func (d *vmdkText) set(name, value string, at int) error {
	switch name {
	case "ddb.longcontentid", "ddb.adaptertype", "ddb.thinprovisioned", "ddb.iofilters", "cid":
	default:
		if strings.HasPrefix(name, "ddb.") {
			return nil
		}
		if name == "encryptionkeys" || name == "keyid" || strings.HasPrefix(name, "encryption") {
			return errors.New("the disk is encrypted: its file holds no plain bytes; open it with vddk://")
		}
		if !contains(vmdkHeader, name) {
			return fmt.Errorf("unknown key %q", clip(name))
		}
	}
	if _, twice := d.keys[name]; twice {
		return fmt.Errorf("%q stands there twice", name)
	}
	d.keys[name] = value
	switch name {
	case "cid":
		d.cidAt, d.cidLen = at, len(value)
	case "ddb.longcontentid":
		if len(value) == 32 && isHex(value) {
			d.longAt = at
		}
	}
	return nil
}

// extentLine takes what follows the access: SECTORS TYPE "NAME" OFFSET.
func (d *vmdkText) extentLine(access, s string) error {
	if len(d.extents) == vmdkMaxExtents {
		return fmt.Errorf("more than %d extents; %s", vmdkMaxExtents, vmdkConvert)
	}
	number, s := cutWord(s)
	sectors, err := strconv.ParseUint(number, 10, 63)
	if err != nil || sectors == 0 || sectors > vmdkMaxSectors {
		return fmt.Errorf("extent of %q sectors", clip(number))
	}
	kind, s := cutWord(s)
	e := vmdkExtent{access: access, kind: strings.ToUpper(kind), size: int64(sectors) * vmdkSector}
	switch e.kind {
	case "FLAT", "VMFS":
		if s, err = e.file(s); err != nil {
			return err
		}
	case "ZERO":
	default: // refused by check, which names the type of the whole disk first
		s = ""
	}
	if s != "" {
		return fmt.Errorf("%q behind the extent", clip(s))
	}
	d.extents = append(d.extents, e)
	return nil
}

// file takes "NAME" OFFSET and returns what is left. vSphere leaves the offset
// of a VMFS extent out.
func (e *vmdkExtent) file(s string) (rest string, err error) {
	if !strings.HasPrefix(s, `"`) {
		return s, fmt.Errorf("extent of type %q without a file name in quotes", clip(e.kind))
	}
	name, s, ok := strings.Cut(s[1:], `"`)
	if !ok {
		return s, errors.New("file name without its second quote")
	}
	e.name = name
	number, s := cutWord(strings.TrimLeft(s, " \t"))
	if number == "" && e.kind == "VMFS" {
		return s, nil
	}
	sectors, err := strconv.ParseUint(number, 10, 63)
	if err != nil || sectors > vmdkMaxSectors {
		return s, fmt.Errorf("offset of %q sectors into %q", clip(number), clip(name))
	}
	e.at = int64(sectors) * vmdkSector
	if e.at > math.MaxInt64-e.size {
		return s, fmt.Errorf("offset of %d sectors into %q: the extent ends beyond 8 EiB", sectors, clip(name))
	}
	return s, nil
}

// cutWord splits s at its first space.
func cutWord(s string) (word, rest string) {
	i := strings.IndexAny(s, " \t")
	if i < 0 {
		return s, ""
	}
	return s[:i], strings.TrimLeft(s[i:], " \t")
}

// clip keeps a line of an error short.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

func isHex(s string) bool {
	return s != "" && strings.Trim(s, "0123456789abcdefABCDEF") == ""
}

func contains(list []string, s string) bool {
	for _, one := range list {
		if one == s {
			return true
		}
	}
	return false
}
