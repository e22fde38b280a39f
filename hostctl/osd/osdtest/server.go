package osdtest

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/libopenstorage/openstorage/api"
	"github.com/libopenstorage/openstorage/pkg/auth"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// Names in Config.Dir.
const (
	imagesDir   = "images"
	devicesDir  = "devices" // of Quirks.ReusePaths
	volumesFile = "volumes.json"
	socketFile  = "osd.sock"
	lockFile    = "lock" // held while a server lives
	secretFile  = "secret"
	tokenFile   = "token"
	caFile      = "ca.pem"
	keyFile     = "server.pem"
)

// Server is one node of an OpenStorage cluster. Its methods may be called at any time
// and from anywhere.
type Server struct {
	cfg    Config
	lock   *os.File // of Dir; nil: another server's
	secret []byte   // of tokens
	verify *auth.JwtAuthenticator
	cert   *tls.Certificate // nil: no TLS
	socket string           // "" by TCP
	tmp    string           // of a socket whose path in Dir is too long

	closing chan struct{}
	slow    sync.WaitGroup // calls that wait, whoever asked

	upMu    sync.Mutex // Down, Up and Close, one at a time; before mu
	rpc     *grpc.Server
	served  chan struct{}
	address string
	closed  bool

	mu       sync.Mutex
	quirks   Quirks
	holds    map[string]Hold // by method
	vols     map[string]*volume
	calls    map[string]int
	seen     metadata.MD   // of the last call
	nodes    int           // calls of InspectCurrent
	freed    []string      // paths of what was detached
	detached chan struct{} // closed and made anew at each Detach
}

// New makes a server that serves until Close. It has the volumes of an earlier
// server on the same directory, all detached.
func New(cfg Config) (*Server, error) {
	if err := cfg.check(); err != nil {
		return nil, err
	}
	s := &Server{
		cfg: cfg, closing: make(chan struct{}), detached: make(chan struct{}),
		vols: make(map[string]*volume), calls: make(map[string]int), holds: make(map[string]Hold),
	}
	if err := s.prepare(); err != nil {
		return nil, errors.Join(err, s.release())
	}
	if err := s.Up(); err != nil {
		return nil, errors.Join(err, s.release())
	}
	return s, nil
}

func (s *Server) prepare() (err error) {
	for _, name := range []string{imagesDir, devicesDir} {
		if err := os.MkdirAll(s.path(name), 0o700); err != nil {
			return err
		}
	}
	lock, err := os.OpenFile(s.path(lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		lock.Close()
		return fmt.Errorf("osdtest: %s: another server has it", s.cfg.Dir)
	}
	s.lock = lock
	if err := detachAll(s.cfg.Dir); err != nil {
		return err
	}
	if err := s.load(); err != nil {
		return err
	}
	if s.cfg.Auth {
		if err := s.prepareTokens(); err != nil {
			return err
		}
	}
	if s.cfg.TLS {
		if s.cert, err = certificate(s.path(keyFile), s.path(caFile)); err != nil {
			return err
		}
	}
	return s.prepareSocket()
}

// prepareSocket finds a path that a socket can have: 107 bytes at most.
func (s *Server) prepareSocket() (err error) {
	if s.cfg.Listen != "unix" {
		s.address = s.cfg.Listen
		return nil
	}
	s.socket = s.path(socketFile)
	if len(s.socket) > 107 {
		if s.tmp, err = os.MkdirTemp("", "osd"); err != nil {
			return err
		}
		s.socket = filepath.Join(s.tmp, socketFile)
	}
	s.address = "unix://" + s.socket
	return nil
}

func (s *Server) path(name string) string { return filepath.Join(s.cfg.Dir, name) }

// load reads what an earlier server had.
func (s *Server) load() error {
	text, err := os.ReadFile(s.path(volumesFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var all []*volume
	if err := json.Unmarshal(text, &all); err != nil {
		return fmt.Errorf("osdtest: %s: %w", s.path(volumesFile), err)
	}
	for _, v := range all {
		s.vols[v.ID] = v
	}
	return nil
}

// saveLocked writes the volumes; a server that is killed has them again.
func (s *Server) saveLocked() error {
	text, err := json.MarshalIndent(s.sortedLocked(), "", "  ")
	if err != nil {
		return err
	}
	next := s.path(volumesFile) + "~"
	if err := os.WriteFile(next, text, 0o600); err != nil {
		return err
	}
	return os.Rename(next, s.path(volumesFile))
}

// Up serves again after Down, at the same address. It is nothing when it serves.
func (s *Server) Up() error {
	s.upMu.Lock()
	defer s.upMu.Unlock()
	if s.closed {
		return errors.New("osdtest: the server is closed")
	}
	if s.rpc != nil {
		return nil
	}
	l, err := s.listen()
	if err != nil {
		return err
	}
	s.rpc = grpc.NewServer(
		grpc.Creds(s.credentials()), grpc.UnaryInterceptor(s.call), grpc.WaitForHandlers(true),
		grpc.MaxRecvMsgSize(1<<20))
	api.RegisterOpenStorageIdentityServer(s.rpc, identity{s})
	api.RegisterOpenStorageNodeServer(s.rpc, nodes{s})
	api.RegisterOpenStorageVolumeServer(s.rpc, volumes{s})
	api.RegisterOpenStorageMountAttachServer(s.rpc, mountAttach{s})
	s.served = make(chan struct{})
	go func(rpc *grpc.Server, served chan struct{}) {
		defer close(served)
		_ = rpc.Serve(l) // ends with Stop
	}(s.rpc, s.served)
	return nil
}

func (s *Server) listen() (net.Listener, error) {
	if s.socket != "" {
		_ = os.Remove(s.socket) // of a process that was killed; the lock is ours
		l, err := net.Listen("unix", s.socket)
		if err != nil {
			return nil, err
		}
		return l, os.Chmod(s.socket, 0o600)
	}
	l, err := net.Listen("tcp", s.address)
	if err == nil {
		s.address = l.Addr().String()
	}
	return l, err
}

// Down breaks all connections and serves no more until Up. What is attached stays
// attached.
func (s *Server) Down() {
	s.upMu.Lock()
	defer s.upMu.Unlock()
	s.downLocked()
}

func (s *Server) downLocked() {
	if s.rpc == nil {
		return
	}
	s.rpc.Stop()
	<-s.served
	s.rpc = nil
}

// Close ends connections, detaches the loop devices of its own images and gives the
// directory free. The images stay.
func (s *Server) Close() error {
	s.upMu.Lock()
	defer s.upMu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	s.downLocked()
	close(s.closing)
	s.slow.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	return errors.Join(s.saveLocked(), s.release())
}

// release gives back what New took.
func (s *Server) release() error {
	if s.lock == nil {
		return nil
	}
	err := detachAll(s.cfg.Dir)
	if s.tmp != "" {
		err = errors.Join(err, os.RemoveAll(s.tmp))
	}
	return errors.Join(err, s.lock.Close())
}

// Endpoint is what a client's configuration names: unix:///PATH or 127.0.0.1:PORT.
func (s *Server) Endpoint() string {
	s.upMu.Lock()
	defer s.upMu.Unlock()
	return s.address
}

// Node is the id of the node that this is.
func (s *Server) Node() string { return s.cfg.Node }

// Hostname is what the node says it is called.
func (s *Server) Hostname() string { return s.cfg.Hostname }

// CAFile has the certificate that a client has to trust; it is empty without TLS.
func (s *Server) CAFile() string {
	if s.cert == nil {
		return ""
	}
	return s.path(caFile)
}

// Set changes the misbehaviours from the next call on.
func (s *Server) Set(change func(*Quirks)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.quirks)
}

// Hold is told of a call that has come, with its caller's context. The call is done
// when the channel is closed, also for a caller who is gone; nil is never.
type Hold func(ctx context.Context) <-chan struct{}

// Hold holds the calls of a method that come from now on; nil holds no more of them.
func (s *Server) Hold(method string, hold Hold) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds[method] = hold
}

// Calls counts calls of a method that came to their end, answered or not: "" are all.
func (s *Server) Calls(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if method != "" {
		return s.calls[method]
	}
	n := 0
	for _, c := range s.calls {
		n += c
	}
	return n
}

// Seen is what the last call had as metadata under a key.
func (s *Server) Seen(key string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen.Get(strings.ToLower(key))
}
