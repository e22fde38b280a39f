package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/haulback/haulback/cmd/internal/size"
	"github.com/haulback/haulback/cmd/internal/strict"
	"github.com/haulback/haulback/hostctl/simvs"
)

// file is sim.toml.
type file struct {
	Kind       string      `toml:"kind"`
	User       string      `toml:"user"`
	Version    string      `toml:"version"`
	Cluster    bool        `toml:"cluster"`
	Networks   []string    `toml:"networks"`
	Datastores []datastore `toml:"datastore"`
	VMs        []vm        `toml:"vm"`
}

type datastore struct {
	Name     string `toml:"name"`
	Path     string `toml:"path"`
	Capacity string `toml:"capacity"`
}

type vm struct {
	Name      string   `toml:"name"`
	Datastore string   `toml:"datastore"`
	Networks  []string `toml:"networks"`
	CPUs      int32    `toml:"cpus"`
	Memory    string   `toml:"memory"`
	UUID      string   `toml:"uuid"`
	Firmware  string   `toml:"firmware"`
	Guest     string   `toml:"guest"`
	On        bool     `toml:"on"`
	Disks     []disk   `toml:"disk"`
}

type disk struct {
	Size      string `toml:"size"`
	Image     string `toml:"image"`
	Thick     bool   `toml:"thick"`
	Datastore string `toml:"datastore"`
}

// read takes the configuration into cfg and returns the VMs to make. Paths are
// relative to the file.
func read(path string, cfg *simvs.Config) ([]simvs.VM, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var f file
	if _, err := strict.Decode(path, text, &f); err != nil {
		return nil, err
	}
	cfg.Kind, cfg.User, cfg.Version, cfg.Cluster, cfg.Networks = f.Kind, f.User, f.Version, f.Cluster, f.Networks
	beside := func(p string) string {
		if p == "" || filepath.IsAbs(p) {
			return p
		}
		return filepath.Join(filepath.Dir(path), p)
	}
	for _, ds := range f.Datastores {
		capacity, err := bytes(ds.Capacity)
		if err != nil {
			return nil, fmt.Errorf("%s: datastore %s: capacity: %w", path, ds.Name, err)
		}
		cfg.Datastores = append(cfg.Datastores, simvs.Datastore{Name: ds.Name, Path: beside(ds.Path), Capacity: capacity})
	}
	var vms []simvs.VM
	for i := range f.VMs {
		v, err := f.VMs[i].spec(beside)
		if err != nil {
			return nil, fmt.Errorf("%s: vm %s: %w", path, f.VMs[i].Name, err)
		}
		vms = append(vms, v)
	}
	return vms, nil
}

func (v *vm) spec(beside func(string) string) (simvs.VM, error) {
	memory, err := bytes(v.Memory)
	if err != nil {
		return simvs.VM{}, fmt.Errorf("memory: %w", err)
	}
	s := simvs.VM{
		Name: v.Name, Datastore: v.Datastore, Networks: v.Networks, CPUs: v.CPUs, MemoryMiB: memory >> 20,
		UUID: v.UUID, Firmware: v.Firmware, Guest: v.Guest, On: v.On,
	}
	for i, d := range v.Disks {
		n, err := bytes(d.Size)
		if err != nil {
			return simvs.VM{}, fmt.Errorf("disk %d: size: %w", i, err)
		}
		s.Disks = append(s.Disks, simvs.Disk{Size: n, Image: beside(d.Image), Thick: d.Thick, Datastore: d.Datastore})
	}
	return s, nil
}

// bytes is a number with a unit; nothing is 0.
func bytes(text string) (int64, error) {
	if text == "" {
		return 0, nil
	}
	return size.Parse(text)
}
