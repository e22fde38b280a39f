package hostctl

import "time"

// Ref names one VM of one host.
type Ref struct {
	Host string // as the controller's configuration calls it
	ID   string // the host's handle, "vm-42"; a registration changes it
	UUID string // the host's stable identity of the VM (vSphere: instanceUuid)
	Name string // for people; hosts let it change and may have two of a name
}

// Power is a VM's power state.
type Power uint8

// The power states; append only, they are stored.
const (
	PowerUnknown Power = 0
	Off          Power = 1
	On           Power = 2
	Suspended    Power = 3 // its memory is on disk: neither on nor safely off
)

// String is the word for people; the zero Power is "unknown".
func (p Power) String() string {
	switch p {
	case On:
		return "on"
	case Off:
		return "off"
	case Suspended:
		return "suspended"
	}
	return "unknown"
}

// VM is what a host says of a VM at one moment.
type VM struct {
	Ref
	BIOS      string // BIOS UUID, or empty
	Path      string // of its configuration: "[ds] web/web.vmx"
	Power     Power
	Tools     bool   // guest tools run: a guest can be asked to shut down
	Question  string // what the host waits for an answer to, or empty
	Busy      string // a task that the host is at with it (relocation, consolidation), or empty
	Disks     []Disk
	Snapshots []Snapshot // parents before their children
	Current   string     // ID of the snapshot that the leaf stands on, or empty
	NICs      []NIC
	CPUs      int
	MemoryMiB int64
	Firmware  string // "bios" or "efi"
	GuestOS   string // the host's word for it
	CanTrack  bool
	Tracking  bool              // change tracking is on
	Marks     map[string]string // what Compute.Mark has set, without the host's prefix
	Disabled  []string          // methods that somebody has disabled
	Version   string            // of the host product: "VMware ESXi 8.0.2"
}

// Disk is one virtual disk of a VM, or of a snapshot of it.
type Disk struct {
	Key       int32  // the host's device key; stable while the VM lives
	Label     string // where it is attached: "scsi0:0"
	UUID      string // of its contents' backing; stable over snapshots
	File      string // what is opened: "[ds] web/web-000001.vmdk"
	Size      int64  // bytes
	Datastore string
	Thin      bool
	ChangeID  string // of a snapshot's disk: the point in change tracking; empty: not tracked
	Adapter   string // model of its controller, as the host calls it ("pvscsi"), or empty
	Unfit     string // why it can be neither snapshotted nor tracked ("independent persistent"), or empty
}

// Snapshot is one snapshot of a VM.
type Snapshot struct {
	ID      string
	Name    string
	Text    string // its description
	Parent  string // ID, or empty
	Created time.Time
	Disks   []Disk // as they were then; their File is what a reader opens
}

// NIC is a network adapter.
type NIC struct {
	Key       int32
	Label     string
	Network   string
	MAC       string
	Model     string // as the host calls it ("vmxnet3"), or empty
	Connected bool   // at power-on
}

// Query names a VM to look for: by UUID where it has one, else by ID, path or
// name, whichever is set first in this order.
type Query struct {
	UUID, ID, Path, Name string
}

// Event is something that happened to a watched VM, by whomever.
type Event struct {
	VM    Ref
	At    time.Time
	Power Power // the state since then
	Disks bool  // a disk was added, removed or changed its size or backing
	Gone  bool  // unregistered or deleted
	Text  string
}

// Space is what a datastore has.
type Space struct {
	Datastore  string
	Free, Size int64
}

// NewVM is a VM to make.
type NewVM struct {
	Name      string
	Like      VM // configuration to take over; its disks are those of Disks
	Place     Placement
	Disks     []NewDisk
	Networks  map[string]string // from the networks of Like to those of this host
	Connected bool              // NICs connect at power-on
	// Registered leaves it in the host's inventory while its disks are being
	// filled. Else nobody can start it before Register.
	Registered bool
}

// NewDisk is an empty disk to make.
type NewDisk struct {
	Like      Disk // label and controller to take over
	Size      int64
	Datastore string // empty: that of the placement
	Thin      bool
}

// Placement says where a VM lives. What is empty is for the host to choose where
// there is one choice only; else it is an error that lists them.
type Placement struct {
	Datacenter, Folder, Pool, Server, Datastore string
}
