package osdtest

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/libopenstorage/openstorage/api"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// volume is a volume, snapshot or clone. What has a name in JSON outlives the server.
type volume struct {
	ID       string            `json:"id"`
	Name     string            `json:"name"`
	Parent   string            `json:"parent,omitempty"`
	Owner    string            `json:"owner,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	Size     int64             `json:"size"` // bytes
	Snapshot bool              `json:"snapshot,omitempty"`
	Shared   bool              `json:"shared,omitempty"`
	Created  time.Time         `json:"created"`

	attached bool
	on       string // node
	device   string // what Attach answered
	backing  string // file behind the device; "": nothing is there
	restore  *restore
	fault    string // of the last restore
}

// Info is a volume as it is now.
type Info struct {
	ID, Name, Parent, Owner      string
	Snapshot, ReadOnly, Attached bool
	On, Device                   string // node and path, while it is attached
	Labels                       map[string]string
	Size                         int64 // bytes
	Created                      time.Time
}

// AddVolume makes a volume that belongs to nobody, with the bytes of content, or zeros. Two
// volumes may have one name.
func (s *Server) AddVolume(name string, size int64, content io.Reader) (id string, err error) {
	if size <= 0 || size%512 != 0 {
		return "", fmt.Errorf("osdtest: volume %s: %d bytes: a disk has sectors of 512", name, size)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	v := &volume{Name: name, Size: size}
	if err := s.addLocked(v, ""); err != nil {
		return "", err
	}
	if content == nil {
		return v.ID, nil
	}
	if err := fill(s.imageOf(v), size, content); err != nil {
		return "", errors.Join(fmt.Errorf("osdtest: volume %s: %w", name, err), s.removeLocked(v))
	}
	return v.ID, nil
}

// addLocked gives a volume its id, time and image: a copy of that of parent, or zeros.
func (s *Server) addLocked(v *volume, parent string) error {
	v.ID = uuid.NewString()
	v.Created = time.Now()
	if s.quirks.CoarseTime {
		v.Created = v.Created.Truncate(time.Second)
	}
	v.Labels = maps.Clone(v.Labels)
	for key, value := range s.quirks.MoreLabels {
		if v.Labels == nil {
			v.Labels = make(map[string]string)
		}
		v.Labels[key] = value
	}
	var err error
	if parent == "" {
		err = makeImage(s.imageOf(v), v.Size)
	} else {
		err = copyImage(s.image(parent), s.imageOf(v), v.Size)
	}
	if err != nil {
		return err
	}
	s.vols[v.ID] = v
	return s.saveLocked()
}

func (s *Server) removeLocked(v *volume) error {
	delete(s.vols, v.ID)
	return errors.Join(os.Remove(s.imageOf(v)), s.saveLocked())
}

// findLocked is the volume of that name, if there is one such, or of that id. So does the
// reference server.
func (s *Server) findLocked(nameOrID string) *volume {
	var found *volume
	n := 0
	for _, v := range s.vols {
		if v.Name == nameOrID {
			found = v
			n++
		}
	}
	if n == 1 {
		return found
	}
	return s.vols[nameOrID]
}

// sortedLocked are all volumes by id.
func (s *Server) sortedLocked() []*volume {
	return slices.SortedFunc(maps.Values(s.vols), func(a, b *volume) int { return cmp.Compare(a.ID, b.ID) })
}

// Volumes are all, sorted by id.
func (s *Server) Volumes() []Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Info
	for _, v := range s.sortedLocked() {
		all = append(all, Info{
			ID: v.ID, Name: v.Name, Parent: v.Parent, Owner: v.Owner,
			Snapshot: v.Snapshot, ReadOnly: s.readOnlyLocked(v), Attached: v.attached, On: v.on, Device: v.device,
			Labels: maps.Clone(v.Labels), Size: v.Size, Created: v.Created,
		})
	}
	return all
}

// Image is the file with the bytes of a volume; the volume needs not be there any more.
func (s *Server) Image(id string) string { return s.image(id) }

func (s *Server) image(id string) string {
	return filepath.Join(s.cfg.Dir, imagesDir, id+".blockdevice")
}

func (s *Server) imageOf(v *volume) string { return s.image(v.ID) }

func (s *Server) readOnlyLocked(v *volume) bool { return v.Snapshot && !s.quirks.WritableSnapshots }

// messageLocked is what clients see of a volume.
func (s *Server) messageLocked(v *volume) *api.Volume {
	m := &api.Volume{
		Id:       v.ID,
		Source:   &api.Source{Parent: v.Parent},
		Readonly: s.readOnlyLocked(v),
		Locator:  &api.VolumeLocator{Name: v.Name, VolumeLabels: maps.Clone(v.Labels)},
		Ctime:    timestamppb.New(v.Created),
		Spec: &api.VolumeSpec{
			Size: uint64(v.Size), Format: api.FSType_FS_TYPE_NONE, HaLevel: 1, Shared: v.Shared,
		},
		Usage:  uint64(allocated(s.imageOf(v))),
		Format: api.FSType_FS_TYPE_NONE,
		Status: api.VolumeStatus_VOLUME_STATUS_UP,
		State:  api.VolumeState_VOLUME_STATE_AVAILABLE,
		Error:  v.fault,
	}
	if v.Owner != "" {
		m.Spec.Ownership = &api.Ownership{Owner: v.Owner}
	}
	if v.attached {
		m.State = api.VolumeState_VOLUME_STATE_ATTACHED
		m.DevicePath = v.device
		if s.quirks.Secure {
			m.DevicePath, m.SecureDevicePath = s.path("encrypted-"+v.ID), v.device
			m.Spec.Encrypted = true
		}
		if !s.quirks.NoAttachedOn {
			m.AttachedOn = v.on
		}
	}
	if v.restore != nil {
		m.State = api.VolumeState_VOLUME_STATE_RESTORE
		m.Error = s.quirks.RestoreText
	}
	unfit(m, s.quirks.Unfit[v.ID])
	return m
}

// unfit makes a message say what Quirks.Unfit wants.
func unfit(m *api.Volume, how string) {
	switch how {
	case "down":
		m.Status = api.VolumeStatus_VOLUME_STATUS_DOWN
	case "degraded":
		m.Status = api.VolumeStatus_VOLUME_STATUS_DEGRADED
	case "error":
		m.State, m.Error = api.VolumeState_VOLUME_STATE_ERROR, "a replica is lost"
	case "trashcan":
		m.InTrashcan = true
	case "pending":
		m.State = api.VolumeState_VOLUME_STATE_PENDING
	case "deleted":
		m.State = api.VolumeState_VOLUME_STATE_DELETED
	case "detaching":
		m.State = api.VolumeState_VOLUME_STATE_DETATCHING
	case "internal":
		m.AttachedState = api.AttachState_ATTACH_STATE_INTERNAL
	}
}
