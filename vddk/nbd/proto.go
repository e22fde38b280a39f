package nbd

// Numbers of the NBD protocol, from doc/proto.md of the NetworkBlockDevice/nbd
// project ("The NBD protocol"). All fields are big-endian. The section that a
// number comes from stands above its block.

// Newstyle negotiation.
const (
	magicInit     uint64 = 0x4e42444d41474943 // "NBDMAGIC"
	magicOption   uint64 = 0x49484156454F5054 // "IHAVEOPT"
	magicOptReply uint64 = 0x3e889045565a9

	flagFixedNewstyle uint16 = 1 << 0 // server, handshake flags
	flagNoZeroes      uint16 = 1 << 1

	flagClientFixedNewstyle uint32 = 1 << 0
	flagClientNoZeroes      uint32 = 1 << 1
)

// Option types.
const (
	optExportName      uint32 = 1
	optAbort           uint32 = 2
	optList            uint32 = 3
	optStartTLS        uint32 = 5
	optInfo            uint32 = 6
	optGo              uint32 = 7
	optStructuredReply uint32 = 8
	optListMetaContext uint32 = 9
	optSetMetaContext  uint32 = 10
	optExtendedHeaders uint32 = 11
)

// Option reply types. An error has bit 31 set.
const (
	repAck         uint32 = 1
	repServer      uint32 = 2
	repInfo        uint32 = 3
	repMetaContext uint32 = 4

	repFlagError      uint32 = 1 << 31
	repErrUnsup       uint32 = repFlagError | 1
	repErrPolicy      uint32 = repFlagError | 2
	repErrInvalid     uint32 = repFlagError | 3
	repErrPlatform    uint32 = repFlagError | 4
	repErrTLSReqd     uint32 = repFlagError | 5
	repErrUnknown     uint32 = repFlagError | 6
	repErrShutdown    uint32 = repFlagError | 7
	repErrBlockSize   uint32 = repFlagError | 8
	repErrTooBig      uint32 = repFlagError | 9
	repErrExtHeadReqd uint32 = repFlagError | 10
)

// Information types of optInfo and optGo.
const (
	infoExport      uint16 = 0
	infoName        uint16 = 1
	infoDescription uint16 = 2
	infoBlockSize   uint16 = 3
)

// Transmission flags of an export.
const (
	txHasFlags        uint16 = 1 << 0
	txReadOnly        uint16 = 1 << 1
	txSendFlush       uint16 = 1 << 2
	txSendFUA         uint16 = 1 << 3
	txRotational      uint16 = 1 << 4
	txSendTrim        uint16 = 1 << 5
	txSendWriteZeroes uint16 = 1 << 6
	txSendDF          uint16 = 1 << 7
	txCanMultiConn    uint16 = 1 << 8
	txSendResize      uint16 = 1 << 9
	txSendCache       uint16 = 1 << 10
	txSendFastZero    uint16 = 1 << 11
)

// Transmission phase.
const (
	magicRequest         uint32 = 0x25609513
	magicSimpleReply     uint32 = 0x67446698
	magicStructuredReply uint32 = 0x668e33ef

	cmdRead        uint16 = 0
	cmdWrite       uint16 = 1
	cmdDisconnect  uint16 = 2
	cmdFlush       uint16 = 3
	cmdTrim        uint16 = 4
	cmdCache       uint16 = 5
	cmdWriteZeroes uint16 = 6
	cmdBlockStatus uint16 = 7

	cmdFlagFUA      uint16 = 1 << 0
	cmdFlagNoHole   uint16 = 1 << 1
	cmdFlagDF       uint16 = 1 << 2
	cmdFlagReqOne   uint16 = 1 << 3
	cmdFlagFastZero uint16 = 1 << 4

	requestLen    = 28 // magic, flags, type, cookie, offset, length
	simpleLen     = 16 // magic, error, cookie
	structuredLen = 20 // magic, flags, type, cookie, length
)

// Structured reply chunks. An error chunk has bit 15 set.
const (
	chunkFlagDone uint16 = 1 << 0

	chunkNone        uint16 = 0
	chunkOffsetData  uint16 = 1
	chunkOffsetHole  uint16 = 2
	chunkBlockStatus uint16 = 5
	chunkFlagError   uint16 = 1 << 15
	chunkError       uint16 = chunkFlagError | 1
	chunkErrorOffset uint16 = chunkFlagError | 2
)

// Error values of a reply. They are Linux's errno for those that exist there.
const (
	errPerm     uint32 = 1
	errIO       uint32 = 5
	errNoMem    uint32 = 12
	errInval    uint32 = 22
	errNoSpc    uint32 = 28
	errOverflow uint32 = 75
	errNotSup   uint32 = 95
	errShutdown uint32 = 108
)

// Metadata contexts and the flags of their extents.
const (
	contextAllocation         = "base:allocation"
	contextDirtyBitmap        = "qemu:dirty-bitmap:" // and the name of the bitmap
	allocationHole            = uint32(1 << 0)
	allocationZero            = uint32(1 << 1)
	dirtyBitmapDirty          = uint32(1 << 0)
	maxStringLen              = 4096      // "Values": an export's or a context's name
	maxRequest                = 32 << 20  // the largest request that every server has to take
	maxOptionLen       uint32 = 64 << 10  // ours: more than any option or its reply needs
	maxTCPPort                = 1<<16 - 1 //
	defaultPort               = "10809"
)
