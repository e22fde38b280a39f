package cbt

import "encoding/binary"

// The two forms of an encoded bitmap. Runs alone would take a byte per grain
// where single grains alternate; with both, no bitmap takes more than a bit per
// grain and eleven bytes.
const (
	formRuns = 0
	formRaw  = 1
)

// AppendTo appends the encoding of the bitmap to p; package cbt's documentation
// has its layout. The runs are used unless the raw bytes are fewer.
func (b *Bitmap) AppendTo(p []byte) []byte {
	p = binary.AppendUvarint(p, uint64(b.Grains()))
	mark := len(p)
	p = b.appendRuns(append(p, formRuns), mark+1+b.rawLen())
	if len(p) <= mark+1+b.rawLen() {
		return p
	}
	return b.appendRaw(append(p[:mark], formRaw))
}

// appendRuns appends run lengths, clear and set in turn, and gives up once p
// is longer than most.
func (b *Bitmap) appendRuns(p []byte, most int) []byte {
	least, set := int64(0), false
	for lo := int64(0); lo < b.Grains() && len(p) <= most; least, set = 1, !set {
		hi := b.NextSet(lo)
		if set {
			hi = b.NextClear(lo)
		}
		p = binary.AppendUvarint(p, uint64(hi-lo-least))
		lo = hi
	}
	return p
}

// appendRaw appends the bits, lowest first.
func (b *Bitmap) appendRaw(p []byte) []byte {
	mark := len(p)
	for _, w := range b.words {
		p = binary.LittleEndian.AppendUint64(p, w)
	}
	return p[:mark+b.rawLen()]
}

// rawLen is the length of the raw form in bytes.
func (b *Bitmap) rawLen() int { return int((b.Grains() + 7) / 8) }

// ParseBitmap decodes all of p: a bitmap for a disk of size bytes. Anything
// else is ErrFormat.
func ParseBitmap(p []byte, size int64) (*Bitmap, error) {
	d := decoder{b: p}
	n := Grains(size)
	if got := d.uvarint(0, n, "grains"); d.err == nil && got != n {
		d.fail("%d grains for a disk of %d", got, n)
	}
	form := d.uvarint(0, formRaw, "form")
	if d.err != nil {
		return nil, d.err
	}
	b := NewBitmap(size)
	if form == formRaw {
		b.takeRaw(&d)
	} else {
		b.takeRuns(&d)
	}
	if err := d.done(); err != nil {
		return nil, err
	}
	return b, nil
}

// takeRuns decodes the form that appendRuns writes.
func (b *Bitmap) takeRuns(d *decoder) {
	if len(d.b) > b.rawLen() {
		d.fail("bitmap: %d bytes of runs where %d do", len(d.b), b.rawLen())
		return
	}
	n, least, set := b.Grains(), int64(0), false
	for lo := int64(0); lo < n && d.err == nil; least, set = 1, !set {
		hi := lo + d.uvarint(least, n-lo, "run")
		if set {
			b.SetRange(lo, hi)
		}
		lo = hi
	}
}

// takeRaw decodes the form that appendRaw writes.
func (b *Bitmap) takeRaw(d *decoder) {
	n := b.rawLen()
	if len(d.b) < n {
		d.fail("bitmap: %d bytes of %d", len(d.b), n)
		return
	}
	for i, c := range d.b[:n] {
		b.words[i/8] |= uint64(c) << (i % 8 * 8)
	}
	d.b = d.b[n:]
	if k := b.Grains() % 64; k != 0 && b.words[len(b.words)-1]>>k != 0 {
		d.fail("bitmap: bits beyond the last grain")
		return
	}
	if len(b.appendRuns(nil, n)) <= n {
		d.fail("bitmap: raw where runs are not longer")
	}
}
