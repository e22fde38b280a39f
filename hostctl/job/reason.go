package job

// The stable reasons of failures and refusals; append only. They are part of
// the control API (domain "haulback").
const (
	ReasonInternal    = "INTERNAL"
	ReasonInvalid     = "INVALID"              // the request itself is wrong; the text says where
	ReasonNotFound    = "NOT_FOUND"            //
	ReasonConflict    = "STATE_CONFLICT"       // not in this phase, or changed meanwhile
	ReasonExists      = "ALREADY_EXISTS"       // another spec under the same ID
	ReasonAuth        = "AUTH"                 // not paired, no right, ticket refused
	ReasonFenced      = "FENCED"               // a later epoch, another run holds the disk
	ReasonBusy        = "BUSY"                 // the disk is in use by another program
	ReasonUnavailable = "ENDPOINT_UNAVAILABLE" // a retry may help
	ReasonEndpoint    = "ENDPOINT_INVALID"     // no such disk, wrong kind, wrong role
	ReasonTooSmall    = "TARGET_TOO_SMALL"     //
	ReasonChecksum    = "CHECKSUM_MISMATCH"    // the disks differ, or are not proved equal
	ReasonCBT         = "CBT_INVALID"          // change tracking was required and is not to be had
	ReasonBase        = "BASE_MISMATCH"        // changes that belong to another base
	ReasonSource      = "SOURCE_CHANGED"       // size or identity of a disk changed in the run
	ReasonStorage     = "STORAGE"              // a disk failed to read, write or flush
	ReasonNoSpace     = "NO_SPACE"             //
	ReasonIncomplete  = "INCOMPLETE"           // began and did not end; Resume goes on
	ReasonCanceled    = "CANCELED"             //
	ReasonDraining    = "DRAINING"             // the daemon is about to stop
	ReasonQuota       = "QUOTA"                // a bound of this daemon: jobs, sizes, memory
	ReasonEngine      = "ENGINE_UNAVAILABLE"   // the job store cannot be read or written
)
