package config

import (
	"fmt"
	"regexp"
	"time"

	"github.com/haulback/haulback/cmd/internal/strict"
)

// Workload is what a host of kind KindOpenStorage has in the place of a VM:
// volumes in order, and what powers it.
type Workload struct {
	Name    string
	Volumes []WorkloadVolume
	// Compute is ComputeNone, ComputeExec, or the name of a host of kind
	// KindVSphere whose VM it is.
	Compute                   string
	VM                        string   // of that host: name or UUID
	PowerOn, PowerOff, Status []string // of ComputeExec: programs and their arguments
	Timeout                   time.Duration
}

// WorkloadVolume is a volume by its name or id, and the place of the disk that it
// is: disks of two hosts are counterparts by it.
type WorkloadVolume struct{ Volume, Label string }

// What powers a workload, besides a host.
const (
	ComputeNone = "none" // nobody: it is off when its volumes are detached
	ComputeExec = "exec" // programs of the site
)

// DefaultPowerTimeout is what a program that powers a workload may take, beyond
// the grace of a power-off.
const DefaultPowerTimeout = 5 * time.Minute

const maxVolumes = 256

type workloadTOML struct {
	Name     string   `toml:"name"`
	Volumes  []string `toml:"volumes"`
	Labels   []string `toml:"labels"`
	Compute  string   `toml:"compute"`
	VM       string   `toml:"vm"`
	PowerOn  []string `toml:"power_on"`
	PowerOff []string `toml:"power_off"`
	Status   []string `toml:"status"`
	Timeout  string   `toml:"timeout"`
}

// clusterHost reads a host of kind KindOpenStorage. others are all hosts of the
// file.
func (c *checker) clusterHost(at string, t *hostTOML, others []hostTOML) (h Host) {
	h = Host{Name: t.Name, Kind: KindOpenStorage, OpenStorage: t.OpenStorage, Mover: t.Mover, Export: t.Export}
	what := fmt.Sprintf("host %q", t.Name)
	for key, set := range map[string]bool{
		"url": t.URL != "", "user": t.User != "", "password_file": t.Password != "", "thumbprint": t.Thumbprint != "", "ca_file": t.CA != "",
		"datacenter": t.Datacenter != "", "registered": t.Registered,
	} {
		if set {
			c.wrong(at+key, fmt.Errorf("%s: %s is of kind %q; where the cluster is says its profile, openstorage = \"NAME\"; take it out", what, key, KindVSphere))
		}
	}
	if t.OpenStorage == "" {
		c.wrong(at+"openstorage", fmt.Errorf("%s: openstorage is missing; name a profile, as in openstorage = \"px\" with a table [[openstorage]]", what))
	} else {
		c.profile(at+"openstorage", what, t.OpenStorage)
	}
	if len(t.Workload) == 0 {
		c.wrong(at+"workload", fmt.Errorf("%s: it has no workloads; add a table [[host.workload]] with name and volumes for each", what))
	}
	names := c.names("workload")
	if c.owners == nil {
		c.owners = map[string]string{}
	}
	for i := range t.Workload {
		w := &t.Workload[i]
		in := fmt.Sprintf("%sworkload[%d].", at, i)
		names(in, w.Name)
		h.Workloads = append(h.Workloads, c.workload(in, what, w, others))
		for _, v := range w.Volumes {
			key, owner := t.OpenStorage+"/"+v, t.Name+"/"+w.Name
			if first, ok := c.owners[key]; ok {
				c.wrong(in+"volumes", fmt.Errorf("%s: the volume %q is in the workloads %s and %s; a volume has one owner, take it out of one", what, v, first, owner))
				continue
			}
			c.owners[key] = owner
		}
	}
	return h
}

var goodVolume = regexp.MustCompile(`^[A-Za-z0-9_.-]{1,253}$`)

func (c *checker) workload(at, host string, t *workloadTOML, others []hostTOML) Workload {
	what := fmt.Sprintf("%s: workload %q", host, t.Name)
	w := Workload{
		Name: t.Name, Compute: t.Compute, VM: t.VM, PowerOn: t.PowerOn, PowerOff: t.PowerOff, Status: t.Status,
		Timeout: c.duration(at+"timeout", t.Timeout, leastTimeout, mostTimeout),
	}
	switch {
	case len(t.Volumes) == 0 || len(t.Volumes) > maxVolumes:
		c.wrong(at+"volumes", fmt.Errorf("%s: %d volumes; name 1 to %d in order, as in volumes = [\"web-root\"]", what, len(t.Volumes), maxVolumes))
	case len(t.Labels) > 0 && len(t.Labels) != len(t.Volumes):
		c.wrong(at+"labels", fmt.Errorf("%s: %d labels for %d volumes; write one for each, in the same order, or none", what, len(t.Labels), len(t.Volumes)))
	}
	seen := map[string]bool{}
	for i, v := range t.Volumes {
		if !goodVolume.MatchString(v) {
			c.wrong(at+"volumes", fmt.Errorf("%s: volume %q: the name or id of a volume, letters, digits, '_', '.' and '-'; a volume of another name is named by its id", what, v))
		}
		one := WorkloadVolume{Volume: v, Label: fmt.Sprintf("osd0:%d", i)}
		if i < len(t.Labels) {
			if one.Label = t.Labels[i]; !goodLabel.MatchString(one.Label) || seen[one.Label] {
				c.wrong(at+"labels", fmt.Errorf("%s: label %q: the place of the disk, each once, as in \"scsi0:0\"", what, one.Label))
			}
			seen[one.Label] = true
		}
		w.Volumes = append(w.Volumes, one)
	}
	c.compute(at, what, t, &w, others)
	return w
}

var goodLabel = regexp.MustCompile(`^[A-Za-z0-9_.:-]{1,64}$`)

// compute checks what powers a workload.
func (c *checker) compute(at, what string, t *workloadTOML, w *Workload, others []hostTOML) {
	programs := map[string][]string{"power_on": t.PowerOn, "power_off": t.PowerOff, "status": t.Status}
	switch w.Compute {
	case "":
		c.wrong(at+"compute", fmt.Errorf("%s: compute is missing; write \"none\" (you power it), \"exec\" (programs do), or the name of a host of kind %q", what, KindVSphere))
		return
	case ComputeNone:
	case ComputeExec:
		for _, key := range []string{"power_off", "power_on", "status"} {
			if len(programs[key]) == 0 {
				c.wrong(at+key, fmt.Errorf("%s: %s is missing; compute = \"exec\" needs power_off, power_on and status, as in %s = [\"/usr/local/bin/shop\", \"ARGUMENT\"]", what, key, key))
			}
			c.program(at+key, what+": "+key, programs[key])
		}
		if w.Timeout == 0 {
			w.Timeout = DefaultPowerTimeout
		}
	default:
		c.computeHost(at, what, w, others)
	}
	for key, set := range map[string]bool{"power_on": len(t.PowerOn) > 0, "power_off": len(t.PowerOff) > 0, "status": len(t.Status) > 0, "timeout": t.Timeout != ""} {
		if set && w.Compute != ComputeExec {
			c.wrong(at+key, fmt.Errorf("%s: %s goes with compute = \"exec\", and this is %q; take it out", what, key, w.Compute))
		}
	}
	if t.VM != "" && (w.Compute == ComputeNone || w.Compute == ComputeExec) {
		c.wrong(at+"vm", fmt.Errorf("%s: vm goes with compute = \"NAME OF A HOST\", and this is %q; take it out", what, w.Compute))
	}
}

// computeHost: the workload is a VM of another host of the file.
func (c *checker) computeHost(at, what string, w *Workload, others []hostTOML) {
	if w.VM == "" {
		c.wrong(at+"vm", fmt.Errorf("%s: vm is missing; name the VM of the host %q, by its name or UUID", what, w.Compute))
	}
	for _, o := range others {
		switch {
		case o.Name != w.Compute:
		case o.Kind == "" || o.Kind == KindVSphere:
			return
		default:
			c.wrong(at+"compute", fmt.Errorf("%s: compute %q: that host is of kind %q; name one of kind %q, \"exec\" or \"none\"", what, w.Compute, o.Kind, KindVSphere))
			return
		}
	}
	c.wrong(at+"compute", fmt.Errorf("%s: compute %q: neither \"none\", nor \"exec\", nor a [[host]] of the file; write one of them", what, w.Compute))
}

// noCluster refuses what only a host of kind KindOpenStorage has.
func (c *checker) noCluster(at string, t *hostTOML) {
	for key, set := range map[string]bool{"openstorage": t.OpenStorage != "", "workload[0]": len(t.Workload) > 0} {
		if set {
			c.wrong(at+key, fmt.Errorf("host %q: %s goes with kind = %q, and this is %q; write that kind, or take it out", t.Name, strict.Bare(key), KindOpenStorage, KindVSphere))
		}
	}
}
