package simvs

import (
	"os"
	"slices"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// areasPerAnswer is what vSphere gives at most, by the experience of others.
const areasPerAnswer = 2000

// QueryChangedDiskAreas answers what differs between a change ID and a snapshot,
// or the disk as it is now when the VM is off.
func (h *vmHook) QueryChangedDiskAreas(_ *simulator.Context, r *types.QueryChangedDiskAreas) soap.HasFault {
	info, fault := h.m.changed(r)
	if fault != nil {
		return &methods.QueryChangedDiskAreasBody{Fault_: simulator.Fault(faultText(fault), fault)}
	}
	return &methods.QueryChangedDiskAreasBody{Res: &types.QueryChangedDiskAreasResponse{Returnval: *info}}
}

func (m *machine) changed(r *types.QueryChangedDiskAreas) (*types.DiskChangeInfo, types.BaseMethodFault) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	l, id, size, fault := m.asked(r)
	if fault != nil {
		return nil, fault
	}
	if r.StartOffset < 0 || r.StartOffset >= size {
		return nil, &types.InvalidArgument{InvalidProperty: "startOffset"}
	}
	d := m.disk(r.DeviceKey)
	sw := m.s.switches()
	d.track.mu.Lock()
	defer d.track.mu.Unlock()
	if r.StartOffset == 0 {
		d.track.page = 0
	}
	d.track.page++
	if sw.FaultAtPage > 0 && d.track.page == sw.FaultAtPage {
		return nil, fileFault(l.name())
	}
	var areas []types.DiskChangeExtent
	if r.ChangeId == "*" {
		areas, fault = allocated(l, size)
	} else {
		areas, fault = d.track.areas(&sw, r.ChangeId, id, l, size)
	}
	if fault != nil {
		return nil, fault
	}
	return m.s.answer(r.StartOffset, size, areas), nil
}

// asked finds what the question is about.
func (m *machine) asked(r *types.QueryChangedDiskAreas) (l link, id string, size int64, fault types.BaseMethodFault) {
	d := m.disk(r.DeviceKey)
	if d == nil {
		return l, "", 0, &types.InvalidArgument{InvalidProperty: "deviceKey"}
	}
	if r.Snapshot == nil {
		if m.power != types.VirtualMachinePowerStatePoweredOff {
			return l, "", 0, &types.InvalidArgument{InvalidProperty: "snapshot"}
		}
		return d.leaf, "", d.size, nil
	}
	p := m.points[*r.Snapshot]
	if p == nil || p.removed {
		return l, "", 0, &types.ManagedObjectNotFound{Obj: *r.Snapshot}
	}
	l, ok := p.disks[d.key]
	if !ok {
		return l, "", 0, &types.InvalidArgument{InvalidProperty: "deviceKey"}
	}
	if p.changes[d.key] == "" && r.ChangeId != "*" {
		return l, "", 0, fileFault(l.name()) // tracking was not on
	}
	return l, p.changes[d.key], d.size, nil
}

// areas compares two saved points, or one with the file. t.mu is held.
func (t *tracking) areas(sw *Switches, since, until string, l link, size int64) ([]types.DiskChangeExtent, types.BaseMethodFault) {
	epoch, _, _ := strings.Cut(since, "/")
	from := t.saved[since]
	if t.epoch == "" || epoch != t.epoch || from == nil {
		return nil, fileFault(l.name())
	}
	to := t.saved[until]
	if until != "" && to == nil { // a snapshot of an epoch before
		return nil, fileFault(l.name())
	}
	if until == "" {
		var err error
		if to, err = readContents(l.flat(), size); err != nil {
			return nil, fileFault(l.name())
		}
	}
	if sw.FaultAfterExtend && from.size != to.size {
		return nil, fileFault(l.name())
	}
	if sw.StaleWithSnapshot && t.stale {
		return nil, nil
	}
	blocks := differ(from, to)
	if sw.StaleAfterRevert {
		blocks = slices.DeleteFunc(blocks, func(i int) bool { return t.blind[i] })
	}
	return runs(blocks, size), nil
}

// runs joins neighbouring blocks.
func runs(blocks []int, size int64) (areas []types.DiskChangeExtent) {
	for _, i := range blocks {
		off := int64(i) * blockSize
		length := min(blockSize, size-off)
		if length <= 0 {
			continue
		}
		if n := len(areas); n > 0 && areas[n-1].Start+areas[n-1].Length == off {
			areas[n-1].Length += length
			continue
		}
		areas = append(areas, types.DiskChangeExtent{Start: off, Length: length})
	}
	return areas
}

// allocated are the parts of the file that are no holes, in whole blocks.
func allocated(l link, size int64) ([]types.DiskChangeExtent, types.BaseMethodFault) {
	f, err := os.Open(l.flat())
	if err != nil {
		return nil, fileFault(l.name())
	}
	defer f.Close()
	var blocks []int
	err = data(f, func(off, end int64) error {
		for i := off / blockSize; i*blockSize < end; i++ {
			if n := len(blocks); n == 0 || blocks[n-1] < int(i) {
				blocks = append(blocks, int(i))
			}
		}
		return nil
	})
	if err != nil {
		return nil, fileFault(l.name())
	}
	return runs(blocks, size), nil
}

// answer is one page: what changed from start on, as far as the cap allows, and
// what the switches make of it.
func (s *Server) answer(start, size int64, areas []types.DiskChangeExtent) *types.DiskChangeInfo {
	sw := s.switches()
	if s.takeZeroPage() {
		return &types.DiskChangeInfo{StartOffset: start}
	}
	areas = after(lie(&sw, areas, size), start)
	limit := areasPerAnswer
	if sw.AreaCap > 0 {
		limit = sw.AreaCap
	}
	info := &types.DiskChangeInfo{StartOffset: start, Length: size - start}
	if len(areas) > limit {
		areas = areas[:limit]
		if last := areas[limit-1]; !sw.CapSilently {
			info.Length = last.Start + last.Length - start
		}
	}
	info.ChangedArea = disorder(&sw, areas, size)
	return info
}

// after cuts off what lies before start.
func after(areas []types.DiskChangeExtent, start int64) (rest []types.DiskChangeExtent) {
	for _, a := range areas {
		if end := a.Start + a.Length; end > start {
			a.Start = max(a.Start, start)
			a.Length = end - a.Start
			rest = append(rest, a)
		}
	}
	return rest
}

// lie reports too much or too little.
func lie(sw *Switches, areas []types.DiskChangeExtent, size int64) []types.DiskChangeExtent {
	var out []types.DiskChangeExtent
	for i, a := range areas {
		if sw.UnderReport > 0 && (i+1)%sw.UnderReport == 0 {
			continue
		}
		out = append(out, a)
	}
	if !sw.OverReport {
		return out
	}
	const wide = 1 << 20
	marked := map[int]bool{}
	for _, a := range out {
		for b := a.Start / wide; b <= (a.Start+a.Length-1)/wide+1; b++ { // and one more
			for i := b * wide / blockSize; i < (b+1)*wide/blockSize; i++ {
				marked[int(i)] = true
			}
		}
	}
	var blocks []int
	for i := range marked {
		blocks = append(blocks, i)
	}
	slices.Sort(blocks)
	return runs(blocks, size)
}

// disorder keeps what is said and says it badly.
func disorder(sw *Switches, areas []types.DiskChangeExtent, size int64) []types.DiskChangeExtent {
	out := slices.Clone(areas)
	if sw.Overlap {
		for _, a := range areas {
			out = append(out, types.DiskChangeExtent{Start: a.Start + a.Length/2, Length: min(a.Length, size-a.Start-a.Length/2)})
		}
	}
	if sw.BeyondEnd {
		out = append(out, types.DiskChangeExtent{Start: size - blockSize, Length: 4 * blockSize})
	}
	if sw.Unsorted {
		slices.Reverse(out)
	}
	return out
}
