package wire

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/haulback/haulback/cbt"
)

// golden is one frame of protocol 1 with the bytes that doc.go gives it. They
// are written by hand from there: when a test says that they differ, the code
// is wrong, or the protocol has a new version.
type golden struct {
	name  string
	frame Frame
	hex   string // header and body; spaces and lines are for the reader
	zero  []int  // offsets in the body of bytes that have to be zero
	wrong []poke // and what else must not be there
}

// poke is bytes that make a body wrong at an offset.
type poke struct {
	at  int
	hex string
}

// countersHex is 19 counters with the values 1 to 19.
const countersHex = `13
	0000000000000001 0000000000000002 0000000000000003 0000000000000004
	0000000000000005 0000000000000006 0000000000000007 0000000000000008
	0000000000000009 000000000000000a 000000000000000b 000000000000000c
	000000000000000d 000000000000000e 000000000000000f 0000000000000010
	0000000000000011 0000000000000012 0000000000000013`

const (
	hex16 = "000102030405060708090a0b0c0d0e0f "
	hex32 = hex16 + "101112131415161718191a1b1c1d1e1f "
)

var (
	bytes16 = [16]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}
	bytes32 = [32]byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31}
	counted = Counters{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19}
)

// tooFar is the first batch number whose offset might not fit.
const tooFar = "0000040000000000"

var goldens = []golden{
	{
		name:  "Hello",
		frame: &Hello{Op: OpPull, Mode: ModeCopy, Run: bytes16, Pass: 258, Rate: 5, Track: TrackingStrict, Full: true, Export: "vm1", Agent: "hb/1", Ticket: []byte{7, 8}},
		hex:   "01 000000 00000031  0001 02 01" + hex16 + "00000102 0000000000000005 02 01  0003 766d31  0004 68622f31  0002 0708",
		wrong: []poke{{45, "0401"}, {2, "00"}, {2, "05"}, {3, "00"}, {3, "03"}, {24, "80"}, {32, "05"}, {33, "02"}, {36, "0a"}, {36, "ff"}, {34, "ffff"}},
	}, {
		name:  "Welcome",
		frame: &Welcome{Agent: "hb/1"},
		hex:   "02 000000 00000008  0001  0004 68622f31",
		wrong: []poke{{4, "00"}, {4, "7f"}, {4, "c0"}},
	}, {
		name:  "Error",
		frame: &Error{Code: CodeFenced, Text: "over", Remote: true},
		hex:   "03 000000 00000008  000b  0004 6f766572",
		wrong: []poke{{4, "1b"}, {6, "c2 85"}},
	}, {
		name: "Open",
		frame: &Open{
			Mode: ModeVerify, Full: true, Streams: 4, Owner: bytes16, Held: 1<<61 + 7, Start: 3, Size: 0x123456789, Window: 2048,
			Plan: bytes32, Identity: "id", Reason: "why",
		},
		hex: "04 000000 00000061  02 01 04 00" + hex16 + `2000000000000007 0000000000000003 0000000123456789
			00010000 00000010 00000800` + hex32 + "0002 6964  0003 776879",
		wrong: []poke{
			{0, "00"}, {0, "03"}, {1, "02"}, {3, "01"}, {3, "02"}, {3, "04"}, {2, "00"}, {2, "09"}, {20, "40"}, {28, "80"}, {36, "80"}, {44, "00020000"}, {48, "00000020"}, {52, "00000000"},
		},
	}, {
		name: "Open, hinted",
		frame: &Open{
			Mode: ModeCopy, Streams: 1, Owner: bytes16, Size: 65536, Window: 1, Plan: bytes32, Hinted: true, Fresh: true, Refine: true,
		},
		hex: "04 000000 0000005c  01 00 01 07" + hex16 + `0000000000000000 0000000000000000 0000000000010000
			00010000 00000010 00000001` + hex32 + "0000  0000",
		wrong: []poke{{0, "02"}, {0, "03"}, {1, "01"}, {3, "0f"}, {35, "01"}},
	}, {
		name: "Opened",
		frame: &Opened{
			Epoch: 1<<63 + 8, Start: 3, Size: 0x123456789, Tag: bytes16, Had: 65536, State: StateInconsistent, Refine: true, Cold: "direct", Identity: "t1",
		},
		hex: "05 000000 0000003e  8000000000000008 0000000000000003 0000000123456789" + hex16 + `0000000000010000 01 01
			0006 646972656374  0002 7431`,
		wrong: []poke{{8, "80"}, {16, "80"}, {40, "80"}, {48, "05"}, {48, "ff"}, {49, "02"}},
	}, {
		name:  "Manifest",
		frame: &Manifest{Batch: 5, Grains: 4, Zero: 0b001, Unread: 0b100, Skip: 0b1000, Digests: [cbt.BatchGrains]cbt.Digest{1: bytes32}},
		hex:   "06 000000 00000030  0000000000000005 04 00 0001 0004 0008" + hex32,
		zero:  []int{9},
		wrong: []poke{
			{0, "80"},
			{0, tooFar},
			{8, "00"},
			{8, "11"},
			{8, "03"},
			{10, "0011"},
			{12, "0005"},
			{12, "0000"},
			{10, "0000"},
			{14, "0000"},
			{14, "0018"},
			{14, "0009"},
			{14, "000c"},
			{8, "04 00 0000 0000 000f"},
		},
	}, {
		name:  "Holes",
		frame: &Holes{Run{First: 1, Count: 256}},
		hex:   "07 000000 00000010  0000000000000001 0000000000000100",
		wrong: []poke{{0, "80"}, {8, "80"}, {0, tooFar}, {8, tooFar}, {8, "0000000000000000"}, {0, "ffffffffffffffff"}},
	}, {
		name:  "Same",
		frame: &Same{[]Run{{First: 2, Count: 1}, {First: 1<<42 - 1, Count: 1<<42 - 1}}},
		hex: `09 000000 00000022  0002
			0000000000000002 0000000000000001  000003ffffffffff 000003ffffffffff`,
		wrong: []poke{{0, "0000"}, {0, "0001"}, {0, "0003"}, {0, "0202"}, {10, "0000000000000000"}, {18, tooFar}, {26, tooFar}},
	}, {
		name:  "Diff",
		frame: &Diff{Batch: 5, Mask: 0x8001, Unread: 0x8000},
		hex:   "0a 000000 0000000c  0000000000000005 8001 8000",
		wrong: []poke{{0, "80"}, {0, tooFar}, {8, "0000"}, {10, "0002"}, {10, "c000"}},
	}, {
		name:  "Ack",
		frame: &Ack{Settled: 1, Received: 2, Durable: 3, Verified: 4, ReadBack: 5, Busy: true},
		hex: `0b 000000 00000029  0000000000000001 0000000000000002 0000000000000003
			0000000000000004 0000000000000005 01`,
		wrong: []poke{{0, "80"}, {8, "80"}, {16, "80"}, {24, "80"}, {32, "80"}, {40, "02"}, {40, "ff"}},
	}, {
		name:  "Redo",
		frame: &Redo{Batch: 5, Mask: 0x0102, Round: 1},
		hex:   "0c 000000 0000000c  0000000000000005 0102 01 00",
		zero:  []int{11},
		wrong: []poke{{0, "80"}, {0, tooFar}, {8, "0000"}, {10, "00"}},
	}, {
		name:  "Finish",
		frame: &Finish{Root: bytes32, Compared: 16, Bad: 1},
		hex:   "0d 000000 00000030 " + hex32 + "0000000000000010 0000000000000001",
		wrong: []poke{{32, "80"}, {40, "80"}},
	}, {
		name:  "Verified",
		frame: &Verified{State: StateVerified, Epoch: 8, Root: bytes32, Compared: 16, ReadBack: 2, Lost: 1, Skipped: 5, Sampled: 4},
		hex: "0e 000000 00000051  03 0000000000000008" + hex32 + `0000000000000010 0000000000000002 0000000000000001
			0000000000000005 0000000000000004`,
		wrong: []poke{{0, "05"}, {41, "80"}, {49, "80"}, {57, "80"}, {65, "80"}, {73, "80"}},
	}, {
		name: "Probed",
		frame: &Probed{
			Size: 0x123456789, Target: true, State: StatePoisoned, Run: bytes16, Pass: 2, Epoch: 8, Durable: 65536, Root: bytes32,
			Skipped: 5, Sampled: 4, Identity: "id", Kind: "file", Cold: "direct", Use: "x",
		},
		hex: "0f 000000 00000073  0000000123456789 01 04" + hex16 + "00000002 0000000000000008 0000000000010000" + hex32 + `
			0000000000000005 0000000000000004  0002 6964  0004 66696c65  0006 646972656374  0001 78`,
		wrong: []poke{{0, "80"}, {8, "02"}, {9, "05"}, {38, "80"}, {78, "80"}, {86, "80"}},
	}, {
		name:  "Order",
		frame: &Order{Address: "t:7420", Peer: bytes32, Export: "vm1", Transport: "tls", Rate: 1000, Retry: 60, Full: true, Ticket: []byte{9}},
		hex: "10 000000 00000042 " + hex32 + `00000000000003e8 0000003c 01
			0006 743a37343230  0003 766d31  0003 746c73  0001 09`,
		wrong: []poke{{63, "0401"}, {32, "80"}, {44, "02"}},
	}, {
		name:  "Renew",
		frame: &Renew{Source: []byte{1, 2}, Target: []byte{3}},
		hex:   "16 000000 00000007  0002 0102  0001 03",
		wrong: []poke{{0, "0401"}, {0, "0003"}},
	}, {
		name:  "Join",
		frame: &Join{Proof: bytes32, Address: "t:1", Agent: "hb/1"},
		hex:   "20 000000 0000002b " + hex32 + "0003 743a31  0004 68622f31",
		wrong: []poke{{34, "0a"}, {32, "ffff"}},
	}, {
		name:  "Joined",
		frame: &Joined{Proof: bytes32, Agent: "hb/1"},
		hex:   "21 000000 00000026 " + hex32 + "0004 68622f31",
		wrong: []poke{{34, "0a"}},
	}, {
		name:  "Status",
		frame: &Status{Counters: counted, Text: "hi"},
		hex:   "11 000000 0000009d " + countersHex + "0002 6869",
		wrong: []poke{{0, "14"}, {0, "ff"}, {1, "80"}, {145, "80"}},
	}, {
		name: "Report",
		frame: &Report{
			Code: CodeVerify, State: StateCopied, Epoch: 8, Root: bytes32, Larger: 3, Counters: counted, Text: "no", Cold: "direct",
			Transport: "tls", Source: "a", Target: "b", Hinted: true, Reason: "c", Why: "d", Control: "bbr", Conns: 5,
			Bad: []Bad{{Off: 65536, Len: 512, Unreadable: true}},
		},
		hex: "12 000000 00000102  0018 02 0000000000000008" + hex32 + "0000000000000003" + countersHex +
			"01  0002 6e6f  0006 646972656374  0003 746c73  0001 61  0001 62  0001 63  0001 64  0003 626272  05  01  0000000000010000 0000000000000200 01",
		wrong: []poke{{2, "05"}, {43, "80"}, {52, "80"}, {204, "02"}, {240, "41"}, {257, "02"}},
	}, {
		name:  "Ping",
		frame: &Ping{Seq: 7, Reply: true},
		hex:   "13 000000 00000008  00000007 01 000000",
		zero:  []int{5, 6, 7},
		wrong: []poke{{4, "02"}},
	}, {
		name:  "Path",
		frame: &Path{Op: PathSeen, BBR: true, RTT: 50000, At: 1000000, Waited: 900000, Bytes: 2000000, Packets: 1500, Lost: 2, Control: "reno"},
		hex: `1a 000000 00000036  01 01 0000 0000c350 00000000000f4240 00000000000dbba0 00000000001e8480
			00000000000005dc 0000000000000002 0004 72656e6f`,
		zero:  []int{2, 3},
		wrong: []poke{{0, "00"}, {0, "03"}, {1, "02"}, {8, "80"}, {16, "80"}, {24, "80"}, {32, "80"}, {40, "80"}, {50, "0a"}},
	}, {
		name:  "Path, drain",
		frame: &Path{Op: PathDrain},
		hex: `1a 000000 00000032  02 00 0000 00000000 0000000000000000 0000000000000000 0000000000000000
			0000000000000000 0000000000000000 0000`,
		wrong: []poke{{1, "01"}, {7, "01"}, {15, "01"}, {47, "01"}},
	}, {
		name:  "Hint",
		frame: &Hint{Size: 1 << 30, Granularity: 65536, Areas: 2, Base: 1, Sample: 16, Trust: cbt.Exact, Provider: "vs", Since: "52 de/4", Remark: "x"},
		hex: `17 000000 00000031  0000000040000000 0000000000010000 00000002 00000001 0000000000000010 02
			0002 7673  0007 35322064652f34  0001 78`,
		wrong: []poke{{0, "80"}, {8, "80"}, {16, "00010001"}, {24, "80"}, {32, "03"}, {35, "0a"}, {33, "ffff"}},
	}, {
		name:  "Hint, nothing but a sample",
		frame: &Hint{Sample: 256},
		hex:   "17 000000 00000027  0000000000000000 0000000000000000 00000000 00000000 0000000000000100 00 0000 0000 0000",
	}, {
		name:  "Areas",
		frame: &Areas{[]cbt.Extent{{Off: 0, Len: 512}, {Off: 513, Len: 1<<63 - 1 - 513}}},
		hex: `18 000000 00000022  0002
			0000000000000000 0000000000000200  0000000000000201 7ffffffffffffdfe`,
		wrong: []poke{
			{0, "0000"},
			{0, "0001"},
			{0, "0003"},
			{0, "0201"},
			{2, "80"},
			{10, "0000000000000000"},
			{10, "0000000000000201"},
			{18, "0000000000000200"},
			{18, "0000000000000203"},
			{26, "80"},
		},
	}, {
		name:  "Base",
		frame: &Base{Pass: 3},
		hex:   "19 000000 00000008  00000003 00000000",
		zero:  []int{4, 5, 6, 7},
		wrong: []poke{{0, "00000000"}},
	}, {
		name:  "Refine",
		frame: &Refine{Batch: 5, Mask: 0x8001},
		hex:   "1e 000000 0000000a  0000000000000005 8001",
		wrong: []poke{{0, "80"}, {0, tooFar}, {8, "0000"}},
	}, {
		name:  "Parts",
		frame: &Parts{Batch: 5, Mask: 2, Sums: [cbt.BatchGrains][GrainParts]PartSum{1: {bytes16, 15: {1}}}},
		hex: "1f 000000 0000010a  0000000000000005 0002" + hex16 + strings.Repeat(zero32, 7) + `
			01 000000000000000000000000000000`,
		wrong: []poke{{0, "80"}, {0, tooFar}, {8, "0000"}, {8, "0003"}},
	}, {
		name:  "Parts, of nothing",
		frame: &Parts{Batch: 5},
		hex:   "1f 000000 0000000a  0000000000000005 0000",
		wrong: []poke{{8, "0001"}},
	}, {
		name:  "Pace",
		frame: &Pace{Wire: 1 << 20, Read: 65536, Latency: 20 * time.Millisecond, Priority: -1},
		hex:   "15 000000 00000018  0000000000100000 0000000000010000 00004e20 01 000000",
		zero:  []int{21, 22, 23},
		wrong: []poke{
			{0, "80"},
			{0, "000000000000ffff"},
			{8, "80"},
			{8, "000000000000ffff"},
			{8, "0000000000000001"},
			{16, "00000063"},
			{16, "00000001"},
			{20, "00"},
			{20, "04"},
		},
	}, {
		name:  "Pace, none",
		frame: &Pace{Priority: 1},
		hex:   "15 000000 00000018  0000000000000000 0000000000000000 00000000 03 000000",
	}, {
		name: "Plan",
		frame: &Plan{[]Step{
			{Run: Run{First: 2, Count: 1}, Read: 0x8003, Sampled: 0x8000}, {Run: Run{First: 3, Count: 1<<42 - 1}, Read: 0xffff},
		}},
		hex: `14 000000 0000002a  0002
			0000000000000002 0000000000000001 8003 8000  0000000000000003 000003ffffffffff ffff 0000`,
		wrong: []poke{
			{0, "0000"},
			{0, "0001"},
			{0, "0003"},
			{2, "80"},
			{2, tooFar},
			{10, "0000000000000000"},
			{10, "0000000000000002"},
			{18, "0000"},
			{20, "4000"},
			{22, "0000000000000001"},
			{30, tooFar},
			{38, "0000"},
		},
	},
}

// newFrame is an empty frame of type t; nil for Data, which needs a binder to
// be parsed.
func newFrame(t Type) Frame {
	for i := range goldens {
		if goldens[i].frame.Type() == t {
			return emptyLike(goldens[i].frame)
		}
	}
	return nil
}

func emptyLike(f Frame) Frame {
	switch f.(type) {
	case *Hello:
		return new(Hello)
	case *Welcome:
		return new(Welcome)
	case *Error:
		return new(Error)
	case *Open:
		return new(Open)
	case *Opened:
		return new(Opened)
	case *Manifest:
		return new(Manifest)
	case *Holes:
		return new(Holes)
	case *Same:
		return new(Same)
	case *Diff:
		return new(Diff)
	case *Ack:
		return new(Ack)
	case *Redo:
		return new(Redo)
	case *Ping:
		return new(Ping)
	case *Pace:
		return new(Pace)
	case *Plan:
		return new(Plan)
	case *Hint:
		return new(Hint)
	case *Areas:
		return new(Areas)
	case *Base:
		return new(Base)
	case *Path:
		return new(Path)
	case *Refine:
		return new(Refine)
	case *Parts:
		return new(Parts)
	case *Finish:
		return new(Finish)
	case *Verified:
		return new(Verified)
	case *Probed:
		return new(Probed)
	case *Order:
		return new(Order)
	case *Renew:
		return new(Renew)
	case *Join:
		return new(Join)
	case *Joined:
		return new(Joined)
	case *Status:
		return new(Status)
	case *Report:
		return new(Report)
	}
	return nil
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatalf("%v in %q", err, s)
	}
	return b
}

// with is body with p's bytes in it.
func (p poke) with(t testing.TB, body []byte) []byte {
	t.Helper()
	b := bytes.Clone(body)
	if x := unhex(t, p.hex); copy(b[p.at:], x) != len(x) {
		t.Fatalf("poke at %d of %d bytes", p.at, len(b))
	}
	return b
}
