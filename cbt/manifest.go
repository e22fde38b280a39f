package cbt

import (
	"encoding/binary"
	"fmt"
)

// The encoded manifest starts with these; ParseManifest knows no other version.
const (
	manifestMagic   = "HBMF"
	manifestVersion = 1
	manifestHead    = len(manifestMagic) + 1 + 8
)

// Manifest is the digests of one disk at one point, all of them, in disk order.
type Manifest struct {
	Size    int64    // of the disk, in bytes
	Digests []Digest // one per grain
}

// Root is the root of the manifest, or ErrIncomplete.
func (m Manifest) Root() (Digest, error) {
	if err := m.check(); err != nil {
		return Digest{}, err
	}
	r := NewRoot(m.Size)
	for i := range m.Digests {
		r.Add(&m.Digests[i])
	}
	return r.Sum()
}

// Diff is the map of the grains whose digests differ. Manifests of disks of
// different sizes do not compare: that is ErrBounds, and an incomplete one is
// ErrIncomplete.
func (m Manifest) Diff(o Manifest) (Map, error) {
	if m.Size != o.Size {
		return Map{}, fmt.Errorf("%w: manifests of %d and %d bytes", ErrBounds, m.Size, o.Size)
	}
	for _, x := range []Manifest{m, o} {
		if err := x.check(); err != nil {
			return Map{}, err
		}
	}
	var d Map
	for i := range m.Digests {
		if m.Digests[i] != o.Digests[i] {
			d.push(Grain(int64(i), m.Size))
		}
	}
	return d, nil
}

// AppendTo appends the encoding of the manifest, with its root at the end, to
// b; package cbt's documentation has its layout.
func (m Manifest) AppendTo(b []byte) ([]byte, error) {
	root, err := m.Root()
	if err != nil {
		return b, err
	}
	b = append(b, manifestMagic...)
	b = append(b, manifestVersion)
	b = binary.BigEndian.AppendUint64(b, uint64(m.Size))
	for i := range m.Digests {
		b = append(b, m.Digests[i][:]...)
	}
	return append(b, root[:]...), nil
}

// ParseManifest decodes all of b and checks the root. Anything else than one
// whole manifest is ErrFormat.
func ParseManifest(b []byte) (Manifest, error) {
	d := decoder{b: b}
	n := int64(len(b)-manifestHead)/DigestSize - 1 // digests, less the root
	switch {
	case n < 0:
		d.fail("manifest: %d bytes", len(b))
	case string(b[:4]) != manifestMagic || b[4] != manifestVersion:
		d.fail("manifest: starts with %x", b[:5])
	}
	if d.err != nil {
		return Manifest{}, d.err
	}
	m := Manifest{Size: int64(binary.BigEndian.Uint64(b[5:]))}
	if m.Size < 0 || Grains(m.Size) != n || len(b) != manifestHead+int(n+1)*DigestSize {
		d.fail("manifest: %d bytes for a disk of %d", len(b), m.Size)
		return Manifest{}, d.err
	}
	b = b[manifestHead:]
	m.Digests = make([]Digest, n)
	for i := range m.Digests {
		b = b[copy(m.Digests[i][:], b):]
	}
	if root, err := m.Root(); err != nil || root != Digest(b) {
		d.fail("manifest: root %v, stored %x", root, b)
		return Manifest{}, d.err
	}
	return m, nil
}

// check returns ErrIncomplete unless there is one digest per grain.
func (m Manifest) check() error {
	if n := Grains(m.Size); m.Size < 0 || int64(len(m.Digests)) != n {
		return fmt.Errorf("%w: manifest of %d for %d grains", ErrIncomplete, len(m.Digests), n)
	}
	return nil
}
