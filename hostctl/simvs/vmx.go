package simvs

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strconv"
	"strings"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// vmx is what the simulator reads of a .vmx file.
type vmx struct {
	name string
	keys map[string]string // all, by lower-case name
	raw  map[string]string // names as they were written, by lower-case name
}

// readVMX parses a .vmx: lines of KEY = "VALUE".
func readVMX(file string) (*vmx, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	v := &vmx{keys: map[string]string{}, raw: map[string]string{}}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			return nil, fmt.Errorf("%s: line %d: no KEY = \"VALUE\"", filepath.Base(file), n)
		}
		key = strings.TrimSpace(key)
		value = strings.Trim(strings.TrimSpace(value), `"`)
		v.keys[strings.ToLower(key)], v.raw[strings.ToLower(key)] = unquote(value), key
	}
	v.name = v.keys["displayname"]
	return v, lines.Err()
}

// quote and unquote keep characters that end a value: |22 is a quotation mark.
func quote(s string) string {
	return strings.NewReplacer("|", "|7C", `"`, "|22", "\n", "|0A", "\r", "|0D").Replace(s)
}

func unquote(s string) string {
	return strings.NewReplacer("|7C", "|", "|22", `"`, "|0A", "\n", "|0D", "\r").Replace(s)
}

// saveVMX writes the .vmx of the VM as it is now.
func (m *machine) saveVMX(ctx *simulator.Context) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	m.saveVMXLocked(ctx)
}

// saveVMXLocked does it with m.mu held. What cannot be written is not: the next
// change tries again.
func (m *machine) saveVMXLocked(ctx *simulator.Context) {
	file, err := m.s.file(m.vmx)
	if err != nil {
		return
	}
	var text string
	ctx.WithLock(m.vm, func() { text = m.vmxText(m.vm.Config, m.vm.Name) })
	if os.WriteFile(file+"~", []byte(text), 0o600) == nil {
		_ = os.Rename(file+"~", file)
	}
}

// vmxText is the configuration as a .vmx.
func (m *machine) vmxText(c *types.VirtualMachineConfigInfo, name string) string {
	var b strings.Builder
	put := func(key string, value any) { fmt.Fprintf(&b, "%s = \"%s\"\n", key, quote(fmt.Sprint(value))) }
	put(".encoding", "UTF-8")
	put("config.version", "8")
	put("virtualHW.version", strings.TrimPrefix(c.Version, "vmx-"))
	put("displayName", name)
	put("guestOS", c.GuestId)
	put("firmware", c.Firmware)
	put("numvcpus", c.Hardware.NumCPU)
	put("memSize", c.Hardware.MemoryMB)
	put("uuid.bios", diskUUID(c.Uuid))
	put("vc.uuid", diskUUID(c.InstanceUuid))
	if c.Annotation != "" {
		put("annotation", c.Annotation)
	}
	if c.ChangeTrackingEnabled != nil && *c.ChangeTrackingEnabled {
		put("ctkEnabled", "TRUE")
	}
	m.vmxDevices(put, c)
	var extra []string
	values := map[string]string{}
	for _, o := range c.ExtraConfig {
		if v := o.GetOptionValue(); v.Key != "govcsim" {
			extra = append(extra, v.Key)
			values[v.Key] = fmt.Sprint(v.Value)
		}
	}
	sort.Strings(extra)
	for _, key := range extra {
		put(key, values[key])
	}
	return b.String()
}

func (m *machine) vmxDevices(put func(string, any), c *types.VirtualMachineConfigInfo) {
	list := object.VirtualDeviceList(c.Hardware.Device)
	nic := 0
	for _, device := range list {
		switch d := device.(type) {
		case types.BaseVirtualSCSIController:
			prefix := fmt.Sprintf("scsi%d.", d.GetVirtualSCSIController().BusNumber)
			put(prefix+"present", "TRUE")
			put(prefix+"virtualDev", scsiKind(device))
		case *types.VirtualDisk:
			m.vmxDisk(put, diskLabel(list, d)+".", d)
		case types.BaseVirtualEthernetCard:
			vmxNIC(put, fmt.Sprintf("ethernet%d.", nic), device, d.GetVirtualEthernetCard())
			nic++
		}
	}
}

func (m *machine) vmxDisk(put func(string, any), prefix string, d *types.VirtualDisk) {
	b, ok := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
	if !ok {
		return
	}
	l, err := m.s.parseLink(b.FileName)
	if err != nil {
		return
	}
	name := "/vmfs/volumes/" + l.ds.Name + "/" + l.rel()
	if own, err := m.s.parseLink(m.vmx + ".vmdk"); err == nil && own.ds == l.ds && own.dir == l.dir {
		name = l.base + ".vmdk"
	}
	put(prefix+"present", "TRUE")
	put(prefix+"deviceType", "scsi-hardDisk")
	put(prefix+"fileName", name)
	if b.DiskMode != "" && b.DiskMode != string(types.VirtualDiskModePersistent) {
		put(prefix+"mode", strings.ReplaceAll(b.DiskMode, "_", "-"))
	}
}

func vmxNIC(put func(string, any), prefix string, device types.BaseVirtualDevice, c *types.VirtualEthernetCard) {
	put(prefix+"present", "TRUE")
	put(prefix+"virtualDev", nicKind(device))
	if b, ok := c.Backing.(*types.VirtualEthernetCardNetworkBackingInfo); ok {
		put(prefix+"networkName", b.DeviceName)
	}
	put(prefix+"addressType", "static")
	put(prefix+"address", c.MacAddress)
	if c.Connectable != nil {
		put(prefix+"startConnected", strings.ToUpper(strconv.FormatBool(c.Connectable.StartConnected)))
	}
}

func scsiKind(device types.BaseVirtualDevice) string {
	switch device.(type) {
	case *types.ParaVirtualSCSIController:
		return "pvscsi"
	case *types.VirtualLsiLogicSASController:
		return "lsisas1068"
	case *types.VirtualBusLogicController:
		return "buslogic"
	}
	return "lsilogic"
}

func nicKind(device types.BaseVirtualDevice) string {
	switch device.(type) {
	case *types.VirtualE1000:
		return "e1000"
	case *types.VirtualE1000e:
		return "e1000e"
	}
	return "vmxnet3"
}

// own are the keys, or beginnings of keys, that are not extra configuration.
var own = []string{
	".encoding", "config.version", "virtualhw.version", "displayname", "guestos", "firmware", "numvcpus", "memsize", "uuid.bios", "vc.uuid",
	"annotation", "ctkenabled",
}

func isExtra(key string) bool {
	for _, k := range own {
		if key == k {
			return false
		}
	}
	head, _, _ := strings.Cut(key, ".")
	for _, kind := range []string{"scsi", "sata", "nvme", "ide", "ethernet"} {
		if rest, ok := strings.CutPrefix(head, kind); ok && rest != "" && strings.Trim(rest, "0123456789:") == "" {
			return false
		}
	}
	return true
}

// spec is the configuration that the file describes; dir is its directory.
func (v *vmx) spec(s *Server, dir link) (*types.VirtualMachineConfigSpec, []types.BaseVirtualEthernetCard) {
	number := func(key string) int64 {
		n, _ := strconv.ParseInt(v.keys[key], 10, 32) // 0: the simulator's default
		return n
	}
	c := &types.VirtualMachineConfigSpec{
		GuestId: v.keys["guestos"], Firmware: v.keys["firmware"], Annotation: v.keys["annotation"],
		NumCPUs: int32(number("numvcpus")), MemoryMB: number("memsize"),
		Uuid: dashes(v.keys["uuid.bios"]), InstanceUuid: dashes(v.keys["vc.uuid"]),
		ChangeTrackingEnabled: types.NewBool(strings.EqualFold(v.keys["ctkenabled"], "TRUE")),
	}
	for key, value := range v.keys {
		if isExtra(key) {
			c.ExtraConfig = append(c.ExtraConfig, &types.OptionValue{Key: v.raw[key], Value: value})
		}
	}
	sort.Slice(c.ExtraConfig, func(i, j int) bool {
		return c.ExtraConfig[i].GetOptionValue().Key < c.ExtraConfig[j].GetOptionValue().Key
	})
	v.controllers(c)
	v.hardDisks(c, dir)
	return c, v.nics()
}

func add(c *types.VirtualMachineConfigSpec, d types.BaseVirtualDevice) {
	c.DeviceChange = append(c.DeviceChange, &types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationAdd, Device: d})
}

func (v *vmx) is(key string) bool { return strings.EqualFold(v.keys[key], "TRUE") }

func (v *vmx) controllers(c *types.VirtualMachineConfigSpec) {
	for bus := int32(0); bus < 4; bus++ {
		prefix := fmt.Sprintf("scsi%d.", bus)
		if !v.is(prefix + "present") {
			continue
		}
		d := scsiController(v.keys[prefix+"virtualdev"], bus)
		add(c, d)
	}
	for bus := int32(0); bus < 4; bus++ {
		for unit := range 16 {
			if v.is(fmt.Sprintf("nvme%d:%d.present", bus, unit)) {
				n := &types.VirtualNVMEController{}
				n.BusNumber, n.Key = bus, 31000+bus
				add(c, n)
				break
			}
		}
		for unit := range 30 {
			if v.is(fmt.Sprintf("sata%d:%d.present", bus, unit)) {
				n := &types.VirtualAHCIController{}
				n.BusNumber, n.Key = bus, 15000+bus
				add(c, n)
				break
			}
		}
	}
}

func scsiController(kind string, bus int32) types.BaseVirtualDevice {
	base := types.VirtualSCSIController{SharedBus: types.VirtualSCSISharingNoSharing, VirtualController: types.VirtualController{
		BusNumber: bus, VirtualDevice: types.VirtualDevice{Key: 1000 + bus},
	}}
	switch kind {
	case "pvscsi":
		return &types.ParaVirtualSCSIController{VirtualSCSIController: base}
	case "lsisas1068":
		return &types.VirtualLsiLogicSASController{VirtualSCSIController: base}
	case "buslogic":
		return &types.VirtualBusLogicController{VirtualSCSIController: base}
	}
	return &types.VirtualLsiLogicController{VirtualSCSIController: base}
}

func (v *vmx) hardDisks(c *types.VirtualMachineConfigSpec, dir link) {
	bases := []struct {
		kind  string
		key   int32
		units int32
	}{{"scsi", 1000, 64}, {"sata", 15000, 30}, {"nvme", 31000, 15}}
	for _, b := range bases {
		for bus := range int32(4) {
			for unit := range b.units {
				prefix := fmt.Sprintf("%s%d:%d.", b.kind, bus, unit)
				name := v.keys[prefix+"filename"]
				if !v.is(prefix+"present") || path.Ext(name) != ".vmdk" {
					continue
				}
				mode := strings.ReplaceAll(v.keys[prefix+"mode"], "-", "_")
				add(c, &types.VirtualDisk{VirtualDevice: types.VirtualDevice{
					ControllerKey: b.key + bus, UnitNumber: types.NewInt32(unit),
					Backing: &types.VirtualDiskFlatVer2BackingInfo{
						DiskMode:                     mode,
						VirtualDeviceFileBackingInfo: types.VirtualDeviceFileBackingInfo{FileName: vmdkName(name, dir)},
					},
				}})
			}
		}
	}
}

// vmdkName makes a datastore path of a name in a .vmx.
func vmdkName(name string, dir link) string {
	if rest, ok := strings.CutPrefix(name, "/vmfs/volumes/"); ok {
		ds, file, _ := strings.Cut(rest, "/")
		return fmt.Sprintf("[%s] %s", ds, file)
	}
	return fmt.Sprintf("[%s] %s", dir.ds.Name, path.Join(dir.dir, name))
}

func (v *vmx) nics() (list []types.BaseVirtualEthernetCard) {
	for n := range 10 {
		prefix := fmt.Sprintf("ethernet%d.", n)
		if !v.is(prefix + "present") {
			continue
		}
		card := types.VirtualEthernetCard{AddressType: "manual", MacAddress: v.keys[prefix+"address"]}
		card.ControllerKey, card.UnitNumber = 100, types.NewInt32(int32(7+n))
		card.Backing = &types.VirtualEthernetCardNetworkBackingInfo{
			VirtualDeviceDeviceBackingInfo: types.VirtualDeviceDeviceBackingInfo{DeviceName: v.keys[prefix+"networkname"]},
		}
		card.Connectable = &types.VirtualDeviceConnectInfo{StartConnected: !strings.EqualFold(v.keys[prefix+"startconnected"], "FALSE"), AllowGuestControl: true}
		switch v.keys[prefix+"virtualdev"] {
		case "e1000":
			list = append(list, &types.VirtualE1000{VirtualEthernetCard: card})
		case "e1000e":
			list = append(list, &types.VirtualE1000e{VirtualEthernetCard: card})
		default:
			list = append(list, &types.VirtualVmxnet3{VirtualVmxnet: types.VirtualVmxnet{VirtualEthernetCard: card}})
		}
	}
	return list
}

// applyVMX gives a VM that was just registered what its file says. A NIC whose
// network this host does not have keeps the name and is not connected to any.
func (m *machine) applyVMX(ctx *simulator.Context, v *vmx) types.BaseMethodFault {
	dir, err := m.s.parseLink(m.vmx + ".vmdk")
	if err != nil {
		return fileFault(m.vmx)
	}
	removeOldLocks(filepath.Dir(dir.flat()))
	spec, nics := v.spec(m.s, dir)
	var lost []types.BaseVirtualDevice
	for _, nic := range nics {
		card := nic.GetVirtualEthernetCard()
		b := card.Backing.(*types.VirtualEthernetCardNetworkBackingInfo)
		if m.s.hasNetwork(ctx, b.DeviceName) {
			add(spec, nic.(types.BaseVirtualDevice))
			continue
		}
		b.Network = &types.ManagedObjectReference{Type: "Network", Value: "network-missing"}
		card.Key = *card.UnitNumber - 7 + 4000
		card.DeviceInfo = &types.Description{Label: fmt.Sprintf("Network adapter %d", *card.UnitNumber-6), Summary: b.DeviceName}
		lost = append(lost, nic.(types.BaseVirtualDevice))
	}
	if fault := m.reconfigure(ctx, spec); fault != nil {
		return fault
	}
	if len(lost) > 0 {
		ctx.WithLock(m.vm, func() {
			list := clone(types.ArrayOfVirtualDevice{VirtualDevice: m.vm.Config.Hardware.Device}).VirtualDevice
			ctx.Update(m.vm, []types.PropertyChange{{Name: "config.hardware.device", Val: append(list, lost...)}})
		})
		m.saveVMX(ctx)
	}
	return nil
}

// findVMs registers what stands in the datastores. What cannot be is skipped.
func (s *Server) findVMs() error {
	ctx := s.context(s.cfg.User)
	for _, ds := range s.cfg.Datastores {
		store := s.stores[ds.Name]
		found, err := filepath.Glob(filepath.Join(store.Path, "*", "*.vmx"))
		if err != nil {
			return err
		}
		for _, file := range found {
			rel, err := filepath.Rel(store.Path, file)
			if err != nil {
				return err
			}
			if _, fault := s.registerVM(ctx, &types.RegisterVM_Task{This: s.folder, Path: fmt.Sprintf("[%s] %s", ds.Name, rel)}); fault != nil {
				s.skipped = append(s.skipped, fmt.Sprintf("[%s] %s: %s", ds.Name, rel, faultText(fault)))
			}
		}
	}
	return nil
}
