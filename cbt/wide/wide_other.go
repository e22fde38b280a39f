//go:build !amd64 || purego

package wide

// There is no assembler for this processor, or the build asked for none.
const (
	able    = false
	library = false
)

type scratch struct{}

func (*scratch) sum([]byte, *[Size]byte) { panic("wide: no assembler") }

func (*scratch) pieces([]byte, *[GrainPieces][Size]byte) { panic("wide: no assembler") }
