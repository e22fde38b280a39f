package osdtest

import (
	"context"
	"fmt"

	"github.com/libopenstorage/openstorage/api"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

type identity struct{ s *Server }

// Version of the SDK is that of the API module.
func (i identity) Version(context.Context, *api.SdkIdentityVersionRequest) (*api.SdkIdentityVersionResponse, error) {
	major, minor, patch := api.SdkVersion_Major, api.SdkVersion_Minor, api.SdkVersion_Patch
	return &api.SdkIdentityVersionResponse{
		SdkVersion: &api.SdkVersion{
			Major: int32(major), Minor: int32(minor), Patch: int32(patch),
			Version: fmt.Sprintf("%d.%d.%d", major, minor, patch),
		},
		Version: &api.StorageVersion{Driver: i.s.cfg.Driver, Version: "1.0.0"},
	}, nil
}

// Capabilities are a list that never changes, whatever the driver can.
func (identity) Capabilities(context.Context, *api.SdkIdentityCapabilitiesRequest) (*api.SdkIdentityCapabilitiesResponse, error) {
	answer := &api.SdkIdentityCapabilitiesResponse{}
	for _, t := range []api.SdkServiceCapability_OpenStorageService_Type{
		api.SdkServiceCapability_OpenStorageService_CLUSTER, api.SdkServiceCapability_OpenStorageService_CLOUD_BACKUP,
		api.SdkServiceCapability_OpenStorageService_CREDENTIALS, api.SdkServiceCapability_OpenStorageService_NODE,
		api.SdkServiceCapability_OpenStorageService_OBJECT_STORAGE, api.SdkServiceCapability_OpenStorageService_SCHEDULE_POLICY,
		api.SdkServiceCapability_OpenStorageService_VOLUME, api.SdkServiceCapability_OpenStorageService_ALERTS,
		api.SdkServiceCapability_OpenStorageService_MOUNT_ATTACH, api.SdkServiceCapability_OpenStorageService_ROLE,
		api.SdkServiceCapability_OpenStorageService_CLUSTER_PAIR, api.SdkServiceCapability_OpenStorageService_MIGRATE,
		api.SdkServiceCapability_OpenStorageService_STORAGE_POLICY,
	} {
		answer.Capabilities = append(answer.Capabilities, &api.SdkServiceCapability{
			Type: &api.SdkServiceCapability_Service{Service: &api.SdkServiceCapability_OpenStorageService{Type: t}},
		})
	}
	return answer, nil
}

type nodes struct{ s *Server }

// messageLocked is this node, with the file system of Dir as its pool.
func (n nodes) messageLocked() *api.StorageNode {
	c := &n.s.cfg
	m := &api.StorageNode{
		Id: c.Node, Hostname: c.Hostname, SchedulerNodeName: c.Hostname,
		MgmtIp: "127.0.0.1", DataIp: "127.0.0.1", Status: api.Status_STATUS_OK,
	}
	size, used := n.s.quirks.PoolSize, n.s.quirks.PoolUsed
	var st unix.Statfs_t
	if size == 0 && unix.Statfs(c.Dir, &st) == nil {
		size = int64(st.Blocks) * st.Bsize
		used = size - int64(st.Bavail)*st.Bsize
	}
	if size > 0 {
		m.Pools = []*api.StoragePool{{TotalSize: uint64(size), Used: uint64(used), Uuid: "pool-" + c.Node}}
	}
	return m
}

func (n nodes) InspectCurrent(context.Context, *api.SdkNodeInspectCurrentRequest) (*api.SdkNodeInspectCurrentResponse, error) {
	n.s.mu.Lock()
	defer n.s.mu.Unlock()
	m := n.messageLocked()
	n.s.nodes++
	if n.s.quirks.ForeignNode && n.s.nodes%2 == 0 {
		m.Id = fmt.Sprintf("node-of-others-%d", n.s.nodes)
		m.Hostname, m.SchedulerNodeName, m.MgmtIp = m.Id, m.Id, "192.0.2.1"
	}
	return &api.SdkNodeInspectCurrentResponse{Node: m}, nil
}

func (n nodes) Inspect(_ context.Context, req *api.SdkNodeInspectRequest) (*api.SdkNodeInspectResponse, error) {
	n.s.mu.Lock()
	defer n.s.mu.Unlock()
	if req.GetNodeId() != n.s.cfg.Node {
		return nil, status.Errorf(codes.NotFound, "Id %s not found", req.GetNodeId())
	}
	return &api.SdkNodeInspectResponse{Node: n.messageLocked()}, nil
}

func (n nodes) Enumerate(context.Context, *api.SdkNodeEnumerateRequest) (*api.SdkNodeEnumerateResponse, error) {
	return &api.SdkNodeEnumerateResponse{NodeIds: []string{n.s.cfg.Node}}, nil
}

func (n nodes) EnumerateWithFilters(context.Context, *api.SdkNodeEnumerateWithFiltersRequest) (*api.SdkNodeEnumerateWithFiltersResponse, error) {
	n.s.mu.Lock()
	defer n.s.mu.Unlock()
	return &api.SdkNodeEnumerateWithFiltersResponse{Nodes: []*api.StorageNode{n.messageLocked()}}, nil
}

func (nodes) VolumeUsageByNode(context.Context, *api.SdkNodeVolumeUsageByNodeRequest) (*api.SdkNodeVolumeUsageByNodeResponse, error) {
	return nil, errUnimplemented
}

func (nodes) DrainAttachments(context.Context, *api.SdkNodeDrainAttachmentsRequest) (*api.SdkJobResponse, error) {
	return nil, errUnimplemented
}

func (nodes) CordonAttachments(context.Context, *api.SdkNodeCordonAttachmentsRequest) (*api.SdkNodeCordonAttachmentsResponse, error) {
	return nil, errUnimplemented
}

func (nodes) UncordonAttachments(context.Context, *api.SdkNodeUncordonAttachmentsRequest) (*api.SdkNodeUncordonAttachmentsResponse, error) {
	return nil, errUnimplemented
}
