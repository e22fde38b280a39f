package osdtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/libopenstorage/openstorage/api"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

type mountAttach struct{ s *Server }

const onAnother = "Volume is attached on another node"

// Attach is idempotent: what is attached here keeps its path.
func (m mountAttach) Attach(ctx context.Context, req *api.SdkVolumeAttachRequest) (*api.SdkVolumeAttachResponse, error) {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	v, err := m.s.openLocked(ctx, req.GetVolumeId(), api.Ownership_Write)
	if err != nil {
		return nil, err
	}
	m.s.settleLocked(v)
	if m.s.quirks.Elsewhere != "" && !v.attached {
		m.s.attachRemoteLocked(v, m.s.quirks.Elsewhere)
	}
	switch {
	case v.attached && v.on != m.s.cfg.Node:
		return nil, status.Error(codes.AlreadyExists, onAnother)
	case v.restore != nil:
		return nil, status.Error(codes.Internal, "failed  to attach volume: Volume is busy")
	case v.attached:
		return &api.SdkVolumeAttachResponse{DevicePath: v.device}, nil
	}
	switch {
	case m.s.quirks.EmptyPath:
		v.attached, v.on = true, m.s.cfg.Node
	case m.s.quirks.Path != "":
		v.attached, v.on, v.device = true, m.s.cfg.Node, m.s.quirks.Path
	default:
		err = m.s.plugLocked(v)
	}
	if err != nil {
		return nil, status.Errorf(codes.Internal, "failed  to attach volume: %v", err)
	}
	return &api.SdkVolumeAttachResponse{DevicePath: v.device}, nil
}

// Detach of what is not attached is OK. Who has the device open keeps it.
func (m mountAttach) Detach(ctx context.Context, req *api.SdkVolumeDetachRequest) (*api.SdkVolumeDetachResponse, error) {
	m.s.mu.Lock()
	defer m.s.mu.Unlock()
	v, err := m.s.openLocked(ctx, req.GetVolumeId(), api.Ownership_Write)
	if status.Code(err) == codes.NotFound {
		if m.s.quirks.DetachUnknownOK {
			return &api.SdkVolumeDetachResponse{}, nil
		}
		return nil, status.Errorf(codes.Internal, "Failed to detach volume %s: Cannot locate volume with name %s",
			req.GetVolumeId(), req.GetVolumeId())
	}
	if err != nil {
		return nil, err
	}
	if v.attached && v.on != m.s.cfg.Node && !req.GetOptions().GetRedirect() {
		return nil, status.Errorf(codes.Internal, "Failed to detach volume %s: %s", req.GetVolumeId(), onAnother)
	}
	if v.attached {
		err = m.s.unplugLocked(v)
	}
	if err != nil {
		return nil, status.Errorf(codes.Internal, "Failed to detach volume %s: %v", req.GetVolumeId(), err)
	}
	return &api.SdkVolumeDetachResponse{}, nil
}

func (mountAttach) Mount(context.Context, *api.SdkVolumeMountRequest) (*api.SdkVolumeMountResponse, error) {
	return nil, errUnimplemented
}

func (mountAttach) Unmount(context.Context, *api.SdkVolumeUnmountRequest) (*api.SdkVolumeUnmountResponse, error) {
	return nil, errUnimplemented
}

// AttachOutside attaches a volume as a workload's orchestrator does, to this node ("") or
// to another one, whose path is none here.
func (s *Server) AttachOutside(id, node string) (path string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.vols[id]
	switch {
	case v == nil:
		return "", fmt.Errorf("osdtest: no volume %s", id)
	case v.attached:
		return "", fmt.Errorf("osdtest: volume %s is attached on %s", id, v.on)
	case node == "" || node == s.cfg.Node:
		err = s.plugLocked(v)
	default:
		s.attachRemoteLocked(v, node)
	}
	return v.device, err
}

func (s *Server) attachRemoteLocked(v *volume, node string) {
	v.attached, v.on, v.device = true, node, "/dev/pxd/pxd"+v.ID
}

// DetachOutside detaches a volume, wherever it is attached.
func (s *Server) DetachOutside(id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.vols[id]
	if v == nil {
		return fmt.Errorf("osdtest: no volume %s", id)
	}
	return s.unplugLocked(v)
}

// plugLocked attaches a volume to this node.
func (s *Server) plugLocked(v *volume) (err error) {
	file := s.imageOf(v)
	if extra := s.quirks.WrongSize; extra != 0 {
		file += ".wrong"
		_ = os.Remove(file) // of a server that was killed
		if err := copyImage(s.imageOf(v), file, max(0, v.Size+extra)); err != nil {
			return err
		}
	}
	wanted := ""
	if n := len(s.freed); s.quirks.ReusePaths && n > 0 {
		wanted = s.freed[n-1]
		s.freed = slices.Delete(s.freed, n-1, n)
	}
	device := file
	switch {
	case s.cfg.Loop:
		device, err = attachLoop(file, wanted, s.readOnlyLocked(v))
	case s.quirks.ReusePaths:
		if device = wanted; device == "" {
			device = s.path(fmt.Sprintf("%s/%d", devicesDir, len(s.attachedLocked())))
		}
		_ = os.Remove(device)
		err = os.Link(file, device)
	}
	if err != nil {
		return errors.Join(err, s.unwrongLocked(v, file))
	}
	v.attached, v.on, v.device, v.backing = true, s.cfg.Node, device, file
	return nil
}

func (s *Server) attachedLocked() []*volume {
	return slices.DeleteFunc(s.sortedLocked(), func(v *volume) bool { return !v.attached })
}

// unplugLocked detaches it from wherever it is.
func (s *Server) unplugLocked(v *volume) (err error) {
	if v.backing != "" {
		switch {
		case s.cfg.Loop:
			err = detachLoop(v.device, v.backing)
		case v.device != v.backing:
			err = os.Remove(v.device)
		}
		if err != nil {
			return err
		}
		if v.device != v.backing {
			s.freed = append(s.freed, v.device)
		}
		err = s.unwrongLocked(v, v.backing)
	}
	v.attached, v.on, v.device, v.backing = false, "", "", ""
	close(s.detached)
	s.detached = make(chan struct{})
	return err
}

// unwrongLocked removes the copy of Quirks.WrongSize.
func (s *Server) unwrongLocked(v *volume, file string) error {
	if file == s.imageOf(v) {
		return nil
	}
	return os.Remove(file)
}
