package simvs

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/simulator/esx"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// Server is one simulated vCenter or ESXi. All methods are safe for concurrent
// use.
type Server struct {
	cfg     Config
	model   *simulator.Model
	service *simulator.Service
	cert    tls.Certificate
	url     *url.URL

	stores map[string]*datastore
	folder types.ManagedObjectReference // of VMs
	pool   types.ManagedObjectReference
	hosts  []types.ManagedObjectReference
	dc     *simulator.Datacenter

	skipped []string // .vmx files that could not be registered

	tasks  atomic.Int64
	work   sync.WaitGroup // tasks under way
	done   chan struct{}  // closed by Close
	drops  dropper
	create sync.Mutex // one VM is made or registered at a time
	stock  sync.Mutex // the simulator's own work with datastores, which it reads without a lock

	mu       sync.Mutex // guards what follows
	http     *http.Server
	serving  chan struct{} // closed when http has ended
	machines map[types.ManagedObjectReference]*machine
	users    map[string]*account
	sessions map[string]string // user by session key
	sw       Switches
	disabled map[types.ManagedObjectReference]map[string]string // source by method
	closed   bool
}

type datastore struct {
	Datastore
	ref types.ManagedObjectReference
}

// one makes one model at a time: govmomi's in-process client, with which a model
// is made, has one session for all simulators of a process.
var one sync.Mutex

// New starts a server. VMs whose .vmx files stand in the directories of the
// datastores are registered, powered off.
func New(cfg Config) (*Server, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	if cfg.Password == "" {
		cfg.Password = rand.Text()
	}
	s := &Server{
		cfg: cfg, stores: map[string]*datastore{}, machines: map[types.ManagedObjectReference]*machine{},
		done: make(chan struct{}), users: map[string]*account{}, sessions: map[string]string{}, disabled: map[types.ManagedObjectReference]map[string]string{},
	}
	s.users[cfg.User] = &account{password: cfg.Password, admin: true}
	var err error
	if s.cert, err = certificate(cfg.CertFile); err != nil {
		return nil, fmt.Errorf("simvs: certificate: %w", err)
	}
	if err := s.build(); err != nil {
		return nil, errors.Join(fmt.Errorf("simvs: %w", err), s.Close())
	}
	if err := s.listen(cfg.Listen); err != nil {
		return nil, errors.Join(fmt.Errorf("simvs: %w", err), s.Close())
	}
	if err := s.findVMs(); err != nil {
		return nil, errors.Join(fmt.Errorf("simvs: %w", err), s.Close())
	}
	return s, nil
}

// build makes the inventory.
func (s *Server) build() error {
	model := simulator.VPX()
	if s.cfg.Kind == ESXi {
		model = simulator.ESX()
	}
	model.Machine, model.Datastore, model.Portgroup, model.Autostart = 0, 0, 0, false
	model.Host, model.Cluster, model.ClusterHost = 1, 0, 0
	if s.cfg.Cluster {
		model.Host, model.Cluster, model.ClusterHost = 0, 1, 2
	}
	about := &model.ServiceContent.About
	about.Version, about.ApiVersion, about.Build = s.cfg.Version, s.cfg.Version, "22380479"
	about.FullName = fmt.Sprintf("%s %s build-%s", about.Name, about.Version, about.Build)
	one.Lock()
	err := model.Create()
	one.Unlock()
	s.model = model
	if err != nil {
		return fmt.Errorf("inventory: %w", err)
	}
	s.service = model.Service
	ctx := s.context("")
	s.dc = ctx.Map.Any("Datacenter").(*simulator.Datacenter)
	s.folder = s.dc.VmFolder
	for _, h := range ctx.Map.All("HostSystem") {
		host := h.(*simulator.HostSystem)
		s.hosts = append(s.hosts, host.Self)
		host.Summary.Config.Product = &types.AboutInfo{
			Name: "VMware ESXi", Version: s.cfg.Version, Build: "22380479", FullName: "VMware ESXi " + s.cfg.Version + " build-22380479",
		}
	}
	s.pool = rootPool(ctx)
	if err := s.addDatastores(ctx); err != nil {
		return err
	}
	if err := s.addNetworks(ctx); err != nil {
		return err
	}
	s.replaceTaskList(ctx)
	ctx.Map.Handler = s.handle
	return nil
}

// rootPool is the resource pool of the first host or cluster.
func rootPool(ctx *simulator.Context) types.ManagedObjectReference {
	for _, kind := range []string{"ClusterComputeResource", "ComputeResource"} {
		for _, e := range ctx.Map.All(kind) {
			switch cr := e.(type) {
			case *simulator.ClusterComputeResource:
				return *cr.ResourcePool
			case *mo.ComputeResource:
				return *cr.ResourcePool
			}
		}
	}
	return esx.ResourcePool.Self
}

func (s *Server) addDatastores(ctx *simulator.Context) error {
	for _, ds := range s.cfg.Datastores {
		if ds.Path == "" {
			ds.Path = filepath.Join(s.cfg.Dir, ds.Name)
		}
		if ds.Capacity == 0 {
			ds.Capacity = 1 << 40
		}
		path, err := filepath.Abs(ds.Path)
		if err != nil {
			return err
		}
		ds.Path = path
		if err := os.MkdirAll(ds.Path, 0o750); err != nil {
			return err
		}
		d := &datastore{Datastore: ds}
		for _, ref := range s.hosts {
			host := ctx.Map.Get(ref).(*simulator.HostSystem)
			system := ctx.Map.Get(*host.ConfigManager.DatastoreSystem).(*simulator.HostDatastoreSystem)
			body := system.CreateLocalDatastore(ctx, &types.CreateLocalDatastore{This: system.Self, Name: ds.Name, Path: ds.Path})
			if f := body.Fault(); f != nil {
				return fmt.Errorf("datastore %s: %s", ds.Name, f.String)
			}
		}
		for _, e := range ctx.Map.All("Datastore") {
			if store := e.(*simulator.Datastore); store.Name == ds.Name {
				d.ref = store.Self
			}
		}
		s.stores[ds.Name] = d
		s.space(ctx, d)
	}
	return nil
}

func (s *Server) addNetworks(ctx *simulator.Context) error {
	host := ctx.Map.Get(s.hosts[0]).(*simulator.HostSystem)
	system := ctx.Map.Get(*host.ConfigManager.NetworkSystem).(*simulator.HostNetworkSystem)
	for _, name := range s.cfg.Networks {
		if name == "VM Network" {
			continue
		}
		body := system.AddPortGroup(ctx, &types.AddPortGroup{
			This: system.Self, Portgrp: types.HostPortGroupSpec{Name: name, VswitchName: "vSwitch0"},
		})
		if f := body.Fault(); f != nil {
			return fmt.Errorf("network %s: %T", name, f.VimFault())
		}
	}
	return nil
}

// context is that of a call from inside.
func (s *Server) context(user string) *simulator.Context {
	c := *s.service.Context
	c.Context = context.Background()
	c.Session = &simulator.Session{
		UserSession: types.UserSession{Key: "simvs-" + rand.Text(), UserName: user},
		Registry:    simulator.NewRegistry(), Map: c.Map,
	}
	return &c
}

// listen opens the address and serves it.
func (s *Server) listen(address string) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	if tcp := l.Addr().(*net.TCPAddr); !tcp.IP.IsLoopback() {
		l.Close()
		return fmt.Errorf("%s is not a loopback address: this server is for tests", address)
	}
	if s.url == nil {
		s.url = &url.URL{Scheme: "https", Host: l.Addr().String(), Path: "/sdk", User: url.UserPassword(s.cfg.User, s.cfg.Password)}
		s.routes()
	}
	s.serve(l)
	return nil
}

func (s *Server) serve(l net.Listener) {
	server := &http.Server{
		Handler: s.front(), ReadHeaderTimeout: 10 * time.Second,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{s.cert}, MinVersion: tls.VersionTLS12},
		ErrorLog:  discard(),
	}
	serving := make(chan struct{})
	s.mu.Lock()
	s.http, s.serving = server, serving
	s.mu.Unlock()
	go func() {
		defer close(serving)
		_ = server.ServeTLS(l, "", "") // ends with ErrServerClosed
	}()
}

// URL is where clients find the server; it has no user in it.
func (s *Server) URL() string {
	u := *s.url
	u.User = nil
	return u.String()
}

// User and Password are those of the administrator.
func (s *Server) User() string { return s.cfg.User }

// Password is that of User.
func (s *Server) Password() string { return s.cfg.Password }

// Datastores are the directories by name.
func (s *Server) Datastores() map[string]string {
	paths := map[string]string{}
	for name, ds := range s.stores {
		paths[name] = ds.Path
	}
	return paths
}

// Skipped are the .vmx files that New has found and could not register, and why.
func (s *Server) Skipped() []string { return s.skipped }

// Down closes the listener and all connections: the vCenter is gone, its hosts
// and their VMs go on. Tasks do, too.
func (s *Server) Down() {
	s.mu.Lock()
	server, serving := s.http, s.serving
	s.http = nil
	s.mu.Unlock()
	if server != nil {
		server.Close()
		<-serving
	}
}

// Up ends a Down, at the same address.
func (s *Server) Up() error {
	s.mu.Lock()
	up := s.http != nil
	s.mu.Unlock()
	if up {
		return nil
	}
	return s.listen(s.url.Host)
}

// Close ends the server. Guests lose their power; the files stay.
func (s *Server) Close() error {
	s.Down()
	s.mu.Lock()
	if !s.closed {
		close(s.done)
	}
	s.closed = true
	var all []*machine
	for _, m := range s.machines {
		all = append(all, m)
	}
	s.mu.Unlock()
	s.work.Wait()
	for _, m := range all {
		m.closeFiles()
	}
	if s.model != nil && s.model.Service != nil {
		s.model.Remove()
	}
	return nil
}
