package simvs

import (
	"errors"
	"fmt"
	"strings"
)

// The kinds of server that are simulated.
const (
	VCenter = "vcenter"
	ESXi    = "esxi"
)

// Config is what a Server is made of. Useful are Dir alone, and the rest where
// two sites differ.
type Config struct {
	Dir        string      // holds the datastores that name no directory of their own
	Kind       string      // VCenter (the default) or ESXi
	Listen     string      // address on loopback; default 127.0.0.1:0
	Datastores []Datastore // default: LocalDS_0
	Networks   []string    // besides "VM Network"
	User       string      // default administrator@vsphere.local, on ESXi root
	Password   string      // default: a random one, see Server.Password
	Version    string      // of the product; default 8.0.2
	Cluster    bool        // VCenter: a cluster of two hosts instead of one host
	CertFile   string      // PEM with certificate and key, made if it is not there; default: a new one that is not kept
}

// Datastore is a directory that the simulated hosts see.
type Datastore struct {
	Name     string
	Path     string // default: Dir/Name
	Capacity int64  // bytes; default 1 TiB. What the files take is taken off.
}

func (c *Config) complete() error {
	if c.Dir == "" {
		return errors.New("simvs: Dir is empty: name a directory for the datastores")
	}
	set := func(s *string, value string) {
		if *s == "" {
			*s = value
		}
	}
	set(&c.Kind, VCenter)
	set(&c.Listen, "127.0.0.1:0")
	set(&c.Version, "8.0.2")
	switch c.Kind {
	case VCenter:
		set(&c.User, "administrator@vsphere.local")
	case ESXi:
		set(&c.User, "root")
	default:
		return fmt.Errorf("simvs: kind %q: there are %s and %s", c.Kind, VCenter, ESXi)
	}
	if len(c.Datastores) == 0 {
		c.Datastores = []Datastore{{Name: "LocalDS_0"}}
	}
	seen := map[string]bool{}
	for _, ds := range c.Datastores {
		if ds.Name == "" || strings.ContainsAny(ds.Name, "/[]\\%") || ds.Name[0] == '.' || seen[ds.Name] {
			return fmt.Errorf("simvs: datastore %q: its name is empty, taken or has one of / [ ] \\ %%", ds.Name)
		}
		seen[ds.Name] = true
	}
	return nil
}
