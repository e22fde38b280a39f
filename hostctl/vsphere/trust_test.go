package vsphere

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/haulback/haulback/cbt"
	"github.com/haulback/haulback/hostctl"
)

const hostID = "52 de c0 d9 b9 43 9d 10-61 d5 4c 1b e9 7b 65 63/81"

func TestChangeID(t *testing.T) {
	at := time.UnixMilli(1_700_000_000_123).UTC()
	id, err := parseChangeID(stamp(hostID, at, 1<<30))
	if err != nil || id.host != hostID || id.uuid != "52dec0d9b9439d1061d54c1be97b6563" || id.seq != 81 || !id.at.Equal(at) || id.size != 1<<30 {
		t.Errorf("got %+v, %v", id, err)
	}
	if id, err = parseChangeID(hostID); err != nil || !id.at.IsZero() || id.size != 0 {
		t.Errorf("the host's own: %+v, %v", id, err)
	}
	if stamp("", at, 1) != "" || stamp("*", at, 1) != "*" {
		t.Error("what is no change ID was made one")
	}
	for _, bad := range []string{"", "*", "x", "52 de", "/1", "52 de/x", "52 de/-1", hostID + stampMark, hostID + stampMark + "1", hostID + stampMark + "1,0", hostID + stampMark + "x,1"} {
		if id, err := parseChangeID(bad); err == nil {
			t.Errorf("%q: %+v, no error", bad, id)
		}
	}
}

// goodQuestion is one that check has nothing against.
func goodQuestion() question {
	const size = 1 << 30
	at := time.Now()
	low := hostctl.Snapshot{ID: "s1", Disks: []hostctl.Disk{{Key: 2000, Size: size, ChangeID: stamp(hostID, at, size)}}}
	high := hostctl.Snapshot{ID: "s2", Parent: "s1", Name: "now", Disks: []hostctl.Disk{{Key: 2000, Label: "scsi0:0", Size: size, ChangeID: stamp(hostID, at, size)}}}
	base, err := parseChangeID(stamp(strings.Replace(hostID, "/81", "/80", 1), at, size))
	if err != nil {
		panic(err)
	}
	vm := &hostctl.VM{Tracking: true, Version: "VMware ESXi 8.0.2 build-22380479", Disks: []hostctl.Disk{{Key: 2000, Size: size}}, Snapshots: []hostctl.Snapshot{low, high}}
	vm.Name = "web"
	return question{vm: vm, shot: &high, key: 2000, size: size, base: base}
}

// The pitfall table, row by row.
func TestDistrust(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*question)
		says   string // empty: it is trusted
	}{
		{"all is well", func(*question) {}, ""},
		{"nothing has changed", func(q *question) { q.base.seq = 81 }, ""},
		{"another count", func(q *question) { q.base.uuid = "0" }, "another count"},
		{"back in time", func(q *question) { q.base.seq = 82 }, "back in time"},
		{"tracking off", func(q *question) { q.vm.Tracking = false }, "is off"},
		{"off at the snapshot", func(q *question) { q.shot.Disks[0].ChangeID = "" }, "was off"},
		{"all allocated", func(q *question) { q.shot.Disks[0].ChangeID = "*" }, "no point in time"},
		{"no such disk", func(q *question) { q.key = 2001 }, "no disk with key"},
		{"independent", func(q *question) { q.shot.Disks[0].Unfit = "independent persistent" }, "independent"},
		{"grown since the base", func(q *question) { q.base.size = 1 << 29 }, "KB 310751"},
		{"grown since the snapshot", func(q *question) { q.vm.Disks[0].Size = 1 << 31 }, "made larger"},
		{"another size was asked for", func(q *question) { q.size = 1 << 29 }, "bytes, not"},
		{"turned on above a snapshot", func(q *question) { q.vm.Snapshots[0].Disks[0].ChangeID = "" }, "100033481"},
		{"6.0 before its fix", func(q *question) { q.vm.Version = "VMware ESXi 6.0.0 build-2494585" }, "KB 317933"},
		{"6.0 after it", func(q *question) { q.vm.Version = "VMware ESXi 6.0.0 build-3247720" }, ""},
		{"5.5", func(q *question) { q.vm.Version = "VMware ESXi 5.5.0 build-1331820" }, "before 6.0"},
		{"no version", func(q *question) { q.vm.Version = "" }, ""},
	} {
		q := goodQuestion()
		c.change(&q)
		err := q.check()
		_, distrusted := errors.AsType[*untrue](err)
		if c.says == "" && err != nil || c.says != "" && (!distrusted || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: got %v, want it to say %q", c.name, err, c.says)
		}
	}
}

func TestSpoiledByEvents(t *testing.T) {
	no, yes := false, true
	reconfigured := func(s types.VirtualMachineConfigSpec) types.BaseEvent {
		return &types.VmReconfiguredEvent{ConfigSpec: s}
	}
	for _, c := range []struct {
		name  string
		event types.BaseEvent
		says  string
	}{
		{"power on", &types.VmPoweredOnEvent{}, ""},
		{"annotation", reconfigured(types.VirtualMachineConfigSpec{Annotation: "x"}), ""},
		{"tracking on", reconfigured(types.VirtualMachineConfigSpec{ChangeTrackingEnabled: &yes}), ""},
		{"tracking off", reconfigured(types.VirtualMachineConfigSpec{ChangeTrackingEnabled: &no}), "KB 422164"},
		{"tracking of a disk off", reconfigured(types.VirtualMachineConfigSpec{ExtraConfig: []types.BaseOptionValue{
			&types.OptionValue{Key: "scsi0:0.ctkEnabled", Value: "FALSE"},
		}}), "of a disk off"},
		{"restarted elsewhere", &types.VmRestartedOnAlternateHostEvent{}, "its host failed"},
		{"reset by HA", &types.VmDasBeingResetEvent{}, "high availability"},
		{"orphaned", &types.VmOrphanedEvent{}, "lost it"},
		{"revert task", &types.TaskEvent{Info: types.TaskInfo{DescriptionId: "vm.Snapshot.revert"}}, "reverted"},
		{"snapshot task", &types.TaskEvent{Info: types.TaskInfo{DescriptionId: "VirtualMachine.createSnapshot"}}, ""},
		{"revert told", &types.EventEx{EventTypeId: "x", Message: "Reverted to snapshot a"}, "reverted"},
		{"failover", &types.EventEx{EventTypeId: "com.vmware.vc.ha.VmRestartedByHAEvent"}, "high availability"},
		{"formatted", &types.VmMessageEvent{VmEvent: types.VmEvent{Event: types.Event{FullFormattedMessage: "web was reverted"}}}, "reverted"},
	} {
		if got := spoils(c.event); c.says == "" && got != "" || !strings.Contains(got, c.says) {
			t.Errorf("%s: got %q, want it to say %q", c.name, got, c.says)
		}
	}
}

// B1, B5 and the difference between "no hint" and "the host is away".
func TestJudge(t *testing.T) {
	c := &Client{cfg: Config{Name: "home", User: "u"}}
	q := &question{doubt: "a doubt"}
	file := soap.WrapVimFault(&types.FileFault{File: "[ds] web/web.vmdk"})
	for _, j := range []struct {
		name  string
		err   error
		trust cbt.Trust
		says  string
		fails bool
	}{
		{"answered", nil, cbt.OverReports, "a doubt", false},
		{"untrue", distrust("because"), cbt.Distrusted, "because", false},
		{"error caused by file", c.wrap(t.Context(), "ask", file), cbt.Distrusted, "FileFault", false},
		{"away", c.later("ask", "away"), cbt.Distrusted, "", true},
		{"no privilege", c.wrap(t.Context(), "ask", soap.WrapVimFault(&types.NoPermission{PrivilegeId: "p"})), cbt.Distrusted, "", true},
	} {
		hint, err := judge(cbt.Hint{Areas: []cbt.Extent{{Len: 1}}}, q, j.err)
		if (err != nil) != j.fails || !j.fails && (hint.Trust != j.trust || !strings.Contains(hint.Remark, j.says)) {
			t.Errorf("%s: %+v, %v", j.name, hint, err)
		}
		if !j.fails && hint.Trust == cbt.Distrusted && len(hint.Areas) > 0 {
			t.Errorf("%s: distrusted areas were handed out", j.name)
		}
	}
}

func TestClean(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"web", "web"},
		{"a\x1b[31mred\x1b[0m", "a [31mred [0m"},
		{"line\nline\r\x00", "line line"},
		{"\u202egnp.exe", "gnp.exe"},
		{"\xff\xfe", "??"},
		{"grün 网络", "grün 网络"},
		{strings.Repeat("ü", 400), strings.Repeat("ü", 250) + "..."},
	} {
		if got := clean(c.in); got != c.want {
			t.Errorf("%q: got %q, want %q", c.in, got, c.want)
		}
	}
}
