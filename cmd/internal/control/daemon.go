package control

import (
	"context"
	"errors"

	"google.golang.org/protobuf/proto"

	"github.com/haulback/haulback/hostctl/job"
	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// daemonHandler is service Daemon.
type daemonHandler struct{ s *Server }

// GetInfo implements controlv1.DaemonHandler.
func (h daemonHandler) GetInfo(ctx context.Context, _ *controlv1.GetInfoRequest) (*controlv1.GetInfoResponse, error) {
	info, err := h.s.cfg.Daemon.Info(ctx)
	if err != nil {
		return nil, err
	}
	if info == nil {
		return nil, errors.New("the daemon tells nothing of itself")
	}
	out := proto.CloneOf(info) // it may be shared
	if out.Capacity == nil {
		out.Capacity = &controlv1.Capacity{}
	}
	out.Capacity.MaxDisksPerJob = job.MaxDisks
	out.Capacity.MaxRequestBytes = int64(h.s.cfg.Bounds.RequestBytes)
	out.Capacity.MaxStreams = int32(h.s.cfg.Bounds.CallerStreams)
	return out, nil
}

// Drain implements controlv1.DaemonHandler.
func (h daemonHandler) Drain(ctx context.Context, _ *controlv1.DrainRequest) (*controlv1.DrainResponse, error) {
	return h.s.cfg.Daemon.Drain(ctx)
}

// Reload implements controlv1.DaemonHandler.
func (h daemonHandler) Reload(ctx context.Context, _ *controlv1.ReloadRequest) (*controlv1.ReloadResponse, error) {
	warnings, err := h.s.cfg.Daemon.Reload(ctx)
	if err != nil {
		return nil, err
	}
	return &controlv1.ReloadResponse{Warnings: warnings}, nil
}
