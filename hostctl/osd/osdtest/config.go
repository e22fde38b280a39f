package osdtest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Config is what a server is made with.
type Config struct {
	Dir      string // of images, socket, certificate and tokens; has to be there
	Listen   string // "unix" (default: a socket in Dir) or "127.0.0.1:PORT"
	TLS      bool   // by TCP
	Auth     bool   // tokens count; without one a caller is guest, as with the reference server
	Loop     bool   // Attach makes loop devices; else it answers the image's path
	Driver   string // default "nfs"
	Node     string // id of the node, default "node-1"
	Hostname string // default: this machine's
	Delay    time.Duration
}

// check fills in what is not said.
func (c *Config) check() error {
	if c.Dir == "" {
		return errors.New("osdtest: Config.Dir: name a directory that is there")
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return err
	}
	// the kernel tells backing files of loop devices without links
	if c.Dir, err = filepath.EvalSymlinks(dir); err != nil {
		return fmt.Errorf("osdtest: Config.Dir: %w", err)
	}
	if c.Listen == "" {
		c.Listen = "unix"
	}
	if c.Listen == "unix" && c.TLS {
		return errors.New("osdtest: Config.TLS: a unix socket has none")
	}
	if c.Listen != "unix" {
		host, _, err := net.SplitHostPort(c.Listen)
		if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
			return fmt.Errorf("osdtest: Config.Listen: %q: write unix, or an address and port on loopback", c.Listen)
		}
	}
	if c.Driver == "" {
		c.Driver = "nfs"
	}
	if c.Node == "" {
		c.Node = "node-1"
	}
	if c.Hostname == "" {
		if c.Hostname, err = os.Hostname(); err != nil {
			return err
		}
	}
	if c.Loop {
		return HasLoop()
	}
	return nil
}
