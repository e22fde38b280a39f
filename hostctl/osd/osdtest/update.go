package osdtest

import (
	"context"

	"github.com/libopenstorage/openstorage/api"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// Update puts labels on a volume; an empty value takes one away. A spec is not supported.
func (v volumes) Update(ctx context.Context, req *api.SdkVolumeUpdateRequest) (*api.SdkVolumeUpdateResponse, error) {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	one, err := v.s.openLocked(ctx, req.GetVolumeId(), api.Ownership_Write)
	if err != nil {
		return nil, err
	}
	if v.s.quirks.NoUpdate || req.GetSpec() != nil {
		return nil, status.Error(codes.Internal, "Failed to update volume: "+notSupported)
	}
	for key, value := range req.GetLabels() {
		if one.Labels == nil {
			one.Labels = make(map[string]string)
		}
		one.Labels[key] = value
		if value == "" {
			delete(one.Labels, key)
		}
	}
	if err := v.s.saveLocked(); err != nil {
		return nil, status.Errorf(codes.Internal, "Failed to update volume: %v", err)
	}
	return &api.SdkVolumeUpdateResponse{}, nil
}

// usageLocked is what a volume takes on disk.
func (v volumes) usageLocked(ctx context.Context, id string) (int64, error) {
	one, err := v.s.openLocked(ctx, id, api.Ownership_Read)
	if err != nil {
		return 0, err
	}
	if !v.s.quirks.Capacity {
		return 0, status.Errorf(codes.Internal, "Failed to obtain stats for volume %s: %s", id, notSupported)
	}
	return allocated(v.s.imageOf(one)), nil
}

func (v volumes) Stats(ctx context.Context, req *api.SdkVolumeStatsRequest) (*api.SdkVolumeStatsResponse, error) {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	used, err := v.usageLocked(ctx, req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	return &api.SdkVolumeStatsResponse{Stats: &api.Stats{BytesUsed: uint64(used)}}, nil
}

func (v volumes) CapacityUsage(ctx context.Context, req *api.SdkVolumeCapacityUsageRequest) (*api.SdkVolumeCapacityUsageResponse, error) {
	v.s.mu.Lock()
	defer v.s.mu.Unlock()
	used, err := v.usageLocked(ctx, req.GetVolumeId())
	if err != nil {
		return nil, err
	}
	return &api.SdkVolumeCapacityUsageResponse{
		CapacityUsageInfo: &api.CapacityUsageInfo{ExclusiveBytes: used, TotalBytes: used},
	}, nil
}

func (volumes) SnapshotScheduleUpdate(context.Context, *api.SdkVolumeSnapshotScheduleUpdateRequest) (*api.SdkVolumeSnapshotScheduleUpdateResponse, error) {
	return nil, errUnimplemented
}

func (volumes) VolumeCatalog(context.Context, *api.SdkVolumeCatalogRequest) (*api.SdkVolumeCatalogResponse, error) {
	return nil, errUnimplemented
}
