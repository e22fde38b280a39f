package osdtest

import (
	"context"
	"maps"

	"github.com/libopenstorage/openstorage/api"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// SnapshotCreate copies what is in the image: not what a page cache of a loop device has
// and nobody flushed. The same name twice makes two.
func (v volumes) SnapshotCreate(ctx context.Context, req *api.SdkVolumeSnapshotCreateRequest) (*api.SdkVolumeSnapshotCreateResponse, error) {
	if req.GetVolumeId() != "" && req.GetName() == "" {
		return nil, status.Error(codes.InvalidArgument, "Must supply a name")
	}
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	parent, err := v.s.openLocked(ctx, req.GetVolumeId(), api.Ownership_Read)
	if err != nil {
		return nil, err
	}
	v.s.settleLocked(parent)
	switch {
	case v.s.quirks.EmptyIDs:
		return &api.SdkVolumeSnapshotCreateResponse{}, nil
	case v.s.quirks.AttachedSnapshots && !parent.attached:
		return nil, status.Error(codes.Internal, "Failed to create snapshot: volume must be attached")
	case parent.restore != nil:
		return nil, status.Error(codes.Internal, "Failed to create snapshot: Volume is busy")
	}
	snapshot := &volume{
		Name: req.GetName(), Parent: parent.ID, Owner: parent.Owner, Labels: maps.Clone(req.GetLabels()),
		Size: parent.Size, Shared: parent.Shared, Snapshot: true,
	}
	if v.s.quirks.CopyLabels {
		snapshot.Labels = maps.Clone(parent.Labels)
		if snapshot.Labels == nil {
			snapshot.Labels = make(map[string]string)
		}
		maps.Copy(snapshot.Labels, req.GetLabels())
	}
	if err := v.s.addLocked(snapshot, parent.ID); err != nil {
		return nil, status.Errorf(codes.Internal, "Failed to create snapshot: %v", err)
	}
	return &api.SdkVolumeSnapshotCreateResponse{SnapshotId: snapshot.ID}, nil
}

// SnapshotEnumerateWithFilters lists what was made of a volume: clones, too.
func (v volumes) SnapshotEnumerateWithFilters(ctx context.Context, req *api.SdkVolumeSnapshotEnumerateWithFiltersRequest) (*api.SdkVolumeSnapshotEnumerateWithFiltersResponse, error) {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	parent := ""
	if req.GetVolumeId() != "" {
		one, err := v.s.openLocked(ctx, req.GetVolumeId(), api.Ownership_Read)
		if err != nil {
			return nil, err
		}
		parent = one.ID
	}
	answer := &api.SdkVolumeSnapshotEnumerateWithFiltersResponse{}
	for _, one := range v.s.matchLocked(ctx, func(one *volume) bool {
		return one.Parent != "" && (parent == "" || one.Parent == parent) && one.labelled(req.GetLabels())
	}) {
		answer.VolumeSnapshotIds = append(answer.VolumeSnapshotIds, one.ID)
	}
	return answer, nil
}

func (v volumes) SnapshotEnumerate(ctx context.Context, req *api.SdkVolumeSnapshotEnumerateRequest) (*api.SdkVolumeSnapshotEnumerateResponse, error) {
	all, err := v.SnapshotEnumerateWithFilters(ctx, &api.SdkVolumeSnapshotEnumerateWithFiltersRequest{VolumeId: req.GetVolumeId()})
	if err != nil {
		return nil, err
	}
	return &api.SdkVolumeSnapshotEnumerateResponse{VolumeSnapshotIds: all.GetVolumeSnapshotIds()}, nil
}

// restore is one that was answered and is not done.
type restore struct {
	from string // id of the snapshot
	left int    // Inspects that say RESTORE
}

// SnapshotRestore gives a detached volume the bytes of its snapshot.
func (v volumes) SnapshotRestore(ctx context.Context, req *api.SdkVolumeSnapshotRestoreRequest) (*api.SdkVolumeSnapshotRestoreResponse, error) {
	if req.GetVolumeId() != "" && req.GetSnapshotId() == "" {
		return nil, status.Error(codes.InvalidArgument, "Must supply snapshot id")
	}
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	q := &v.s.quirks
	if q.Unimplemented {
		return nil, errUnimplemented
	}
	one, err := v.s.openLocked(ctx, req.GetVolumeId(), api.Ownership_Write)
	if err != nil {
		return nil, err
	}
	snapshot := v.s.findLocked(req.GetSnapshotId())
	if snapshot == nil {
		return nil, status.Errorf(codes.NotFound, "Id %s or %s not found", req.GetVolumeId(), req.GetSnapshotId())
	}
	v.s.settleLocked(one)
	failed := func(text string) error {
		return status.Errorf(codes.Internal, "Failed to restore volume %s to snapshot %s: %s", req.GetVolumeId(), req.GetSnapshotId(), text)
	}
	switch {
	case q.NoRestore:
		return nil, failed("stat /var/lib/openstorage/nfs/" + snapshot.ID + ": no such file or directory")
	case !q.AnyRestore && (snapshot.Parent != one.ID || !snapshot.Snapshot):
		return nil, status.Errorf(codes.InvalidArgument, "%s is no snapshot of volume %s", snapshot.ID, one.ID)
	case one.attached:
		return nil, failed("Volume is still attached and cannot be restored")
	case one.restore != nil:
		return nil, failed("Volume is busy")
	}
	one.fault = ""
	one.restore = &restore{snapshot.ID, q.AsyncRestore}
	v.s.settleLocked(one)
	return &api.SdkVolumeSnapshotRestoreResponse{}, nil
}

// settleLocked ends a restore that has said RESTORE often enough.
func (s *Server) settleLocked(v *volume) {
	if v.restore == nil || v.restore.left > 0 {
		return
	}
	from, to := s.image(v.restore.from), s.imageOf(v)
	v.restore = nil
	v.fault = s.quirks.RestoreFault
	var err error
	switch {
	case s.quirks.HalfRestore:
		err = overwriteHead(from, to, v.Size/2)
	case !s.quirks.WrongRestore && v.fault == "":
		err = overwrite(from, to, v.Size)
	}
	if err != nil {
		v.fault = err.Error()
	}
}
