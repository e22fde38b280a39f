package osdtest

import (
	"context"
	"maps"
	"strings"

	"github.com/libopenstorage/openstorage/api"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

var errUnimplemented = status.Error(codes.Unimplemented, "osdtest has no such method")

// notSupported is what the reference server's drivers say of what they have not.
const notSupported = "Operation not supported"

type volumes struct{ s *Server }

// openLocked finds a volume for a caller who wants to do so much with it. "" is wrong.
func (s *Server) openLocked(ctx context.Context, id string, access api.Ownership_AccessType) (*volume, error) {
	if id == "" {
		return nil, status.Error(codes.InvalidArgument, "Must supply volume id")
	}
	v := s.findLocked(id)
	if v == nil {
		return nil, status.Errorf(codes.NotFound, "Volume id %s not found", id)
	}
	if !s.messageLocked(v).IsPermitted(ctx, access) {
		return nil, status.Errorf(codes.PermissionDenied, "Access denied to volume %s", v.ID)
	}
	return v, nil
}

// Create makes a volume of zeros, or finds the one that has the name.
func (v volumes) Create(ctx context.Context, req *api.SdkVolumeCreateRequest) (*api.SdkVolumeCreateResponse, error) {
	if req.GetName() == "" {
		return nil, status.Error(codes.InvalidArgument, "Must supply a unique name")
	}
	if req.GetSpec() == nil {
		return nil, status.Error(codes.InvalidArgument, "Must supply spec object")
	}
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	labels := maps.Clone(req.GetLabels())
	for key, value := range req.GetSpec().GetVolumeLabels() {
		if labels == nil {
			labels = make(map[string]string)
		}
		labels[key] = value
	}
	id, err := v.s.createLocked(ctx, &volume{
		Name: req.GetName(), Labels: labels, Size: int64(req.GetSpec().GetSize()), Shared: req.GetSpec().GetShared(),
	})
	if err != nil {
		return nil, err
	}
	return &api.SdkVolumeCreateResponse{VolumeId: id}, nil
}

// Clone makes a volume with the bytes of another, or finds the one that has the name.
// It can be written, whatever its parent can.
func (v volumes) Clone(ctx context.Context, req *api.SdkVolumeCloneRequest) (*api.SdkVolumeCloneResponse, error) {
	if req.GetName() == "" {
		return nil, status.Error(codes.InvalidArgument, "Must supply a uniqe name")
	}
	if req.GetParentId() == "" {
		return nil, status.Error(codes.InvalidArgument, "Must parent volume id")
	}
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	parent, err := v.s.openLocked(ctx, req.GetParentId(), api.Ownership_Read)
	if err != nil {
		return nil, err
	}
	clone := &volume{Name: req.GetName(), Parent: parent.ID, Size: parent.Size, Shared: parent.Shared}
	if v.s.quirks.CopyLabels {
		clone.Labels = parent.Labels
	}
	id, err := v.s.createLocked(ctx, clone)
	if err != nil {
		return nil, err
	}
	return &api.SdkVolumeCloneResponse{VolumeId: id}, nil
}

// createLocked makes the volume and returns its id, or that of the volume of the same
// name, size and parent.
func (s *Server) createLocked(ctx context.Context, v *volume) (id string, err error) {
	if s.quirks.EmptyIDs {
		return "", nil
	}
	if old := s.findLocked(v.Name); old != nil {
		return s.sameLocked(ctx, old, v)
	}
	if owner := api.OwnershipSetUsernameFromContext(ctx, nil); owner != nil {
		v.Owner = owner.GetOwner()
	}
	switch {
	case strings.Contains(v.Name, " "):
		return "", status.Error(codes.Internal, "Failed to create volume: volume name cannot contain space characters")
	case v.Size <= 0:
		return "", status.Error(codes.Internal, "Failed to create volume: Cannot have size of zero on block volume")
	}
	if err := s.addLocked(v, v.Parent); err != nil {
		return "", status.Errorf(codes.Internal, "Failed to create volume: %v", err)
	}
	return v.ID, nil
}

// sameLocked is the idempotency of Create and Clone: by name, and what is checked here.
func (s *Server) sameLocked(ctx context.Context, old, v *volume) (id string, err error) {
	if !s.messageLocked(old).IsPermitted(ctx, api.Ownership_Admin) {
		return "", status.Errorf(codes.PermissionDenied, "Volume %s already exists and is owned by another user", v.Name)
	}
	for s.quirks.HangCreate && old.attached {
		if err := s.waitDetachLocked(ctx); err != nil {
			return "", err
		}
	}
	switch {
	case old.Size != v.Size:
		return "", status.Errorf(codes.AlreadyExists,
			"Existing volume has a size of %v which differs from requested size of %v", old.Size, v.Size)
	case old.Shared != v.Shared:
		return "", status.Errorf(codes.AlreadyExists,
			"Existing volume has shared=%v while request is asking for shared=%v", old.Shared, v.Shared)
	case old.Parent != v.Parent:
		return "", status.Error(codes.AlreadyExists, "Existing volume has conflicting parent value")
	}
	return old.ID, nil
}

// waitDetachLocked unlocks, waits for a Detach of whatever, and locks.
func (s *Server) waitDetachLocked(ctx context.Context) error {
	detached := s.detached
	s.mu.Unlock()
	defer s.mu.Lock()
	select {
	case <-detached:
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	case <-s.closing:
		return status.Error(codes.Unavailable, "server is closed")
	}
}

// Delete takes a volume away. One that is not there is no error, one that is attached is.
func (v volumes) Delete(ctx context.Context, req *api.SdkVolumeDeleteRequest) (*api.SdkVolumeDeleteResponse, error) {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	one, err := v.s.openLocked(ctx, req.GetVolumeId(), api.Ownership_Admin)
	if status.Code(err) == codes.NotFound {
		return &api.SdkVolumeDeleteResponse{}, nil
	}
	if err != nil {
		return nil, err
	}
	v.s.settleLocked(one)
	switch {
	case one.attached && !v.s.quirks.DeleteAttached:
		err = status.Errorf(codes.Internal,
			"Failed to delete volume %s: Volume is still attached and cannot be deleted", req.GetVolumeId())
	case one.restore != nil:
		err = status.Errorf(codes.Internal, "Failed to delete volume %s: Volume is busy", req.GetVolumeId())
	}
	if err != nil {
		return nil, err
	}
	if one.attached {
		v.s.unplugLocked(one)
	}
	if err := v.s.removeLocked(one); err != nil {
		return nil, status.Errorf(codes.Internal, "Failed to delete volume %s: %v", req.GetVolumeId(), err)
	}
	return &api.SdkVolumeDeleteResponse{}, nil
}

// Inspect takes names, too.
func (v volumes) Inspect(ctx context.Context, req *api.SdkVolumeInspectRequest) (*api.SdkVolumeInspectResponse, error) {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	one, err := v.s.openLocked(ctx, req.GetVolumeId(), api.Ownership_Read)
	if err != nil {
		return nil, err
	}
	return v.s.inspectLocked(one), nil
}

func (s *Server) inspectLocked(v *volume) *api.SdkVolumeInspectResponse {
	s.settleLocked(v)
	m := s.messageLocked(v)
	if v.restore != nil {
		v.restore.left--
	}
	return &api.SdkVolumeInspectResponse{Volume: m, Name: v.Name, Labels: maps.Clone(v.Labels)}
}

// matchLocked are the volumes that fit, and that the caller may see.
func (s *Server) matchLocked(ctx context.Context, fits func(*volume) bool) (all []*volume) {
	for _, v := range s.sortedLocked() {
		if fits(v) && s.messageLocked(v).IsPermitted(ctx, api.Ownership_Read) {
			all = append(all, v)
		}
	}
	return all
}

// filter has what the two requests with filters have.
type filter interface {
	GetName() string
	GetLabels() map[string]string
	GetOwnership() *api.Ownership
}

func (v *volume) fits(f filter) bool {
	if o := f.GetOwnership(); o != nil && (v.Owner == "" || v.Owner != o.GetOwner()) {
		return false
	}
	return (f.GetName() == "" || f.GetName() == v.Name) && v.labelled(f.GetLabels())
}

func (v *volume) labelled(want map[string]string) bool {
	for key, value := range want {
		if has, is := v.Labels[key]; !is || has != value {
			return false
		}
	}
	return true
}

func (v volumes) InspectWithFilters(ctx context.Context, req *api.SdkVolumeInspectWithFiltersRequest) (*api.SdkVolumeInspectWithFiltersResponse, error) {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	answer := &api.SdkVolumeInspectWithFiltersResponse{}
	for _, one := range v.s.matchLocked(ctx, func(one *volume) bool { return one.fits(req) }) {
		answer.Volumes = append(answer.Volumes, v.s.inspectLocked(one))
	}
	return answer, nil
}

func (v volumes) EnumerateWithFilters(ctx context.Context, req *api.SdkVolumeEnumerateWithFiltersRequest) (*api.SdkVolumeEnumerateWithFiltersResponse, error) {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	answer := &api.SdkVolumeEnumerateWithFiltersResponse{}
	for _, one := range v.s.matchLocked(ctx, func(one *volume) bool { return one.fits(req) }) {
		answer.VolumeIds = append(answer.VolumeIds, one.ID)
	}
	return answer, nil
}

func (v volumes) Enumerate(ctx context.Context, _ *api.SdkVolumeEnumerateRequest) (*api.SdkVolumeEnumerateResponse, error) {
	all, err := v.EnumerateWithFilters(ctx, &api.SdkVolumeEnumerateWithFiltersRequest{})
	return &api.SdkVolumeEnumerateResponse{VolumeIds: all.GetVolumeIds()}, err
}
