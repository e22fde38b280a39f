package failbacks

import (
	"sync"
	"time"

	"github.com/haulback/haulback/cmd/internal/hostdisk"
	"github.com/haulback/haulback/hostctl/failback"
)

// mineFor is how long a volume counts as a pass's after its end: who watches the
// cluster sees a detach later than we do.
const mineFor = 15 * time.Second

// volumes are those that passes write, or compare as their targets, now or lately.
type volumes struct {
	mu   sync.Mutex
	uses map[string]*use // by id
}

type use struct {
	passes int
	ended  time.Time // the last of them
}

// volumeOf is the id of the volume that p is now, or empty.
func volumeOf(p *failback.Place) string {
	n, err := hostdisk.ParseFile(p.Disk.File)
	if err != nil || n.At != "" {
		return ""
	}
	return n.Volume
}

// hold notes that a pass has a volume; what it gives ends that. No volume is none.
func (v *volumes) hold(id string) func() {
	if id == "" {
		return func() {}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.uses == nil {
		v.uses = map[string]*use{}
	}
	u := v.uses[id]
	if u == nil {
		u = new(use)
		v.uses[id] = u
	}
	u.passes++
	return func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		u.passes--
		u.ended = time.Now()
	}
}

// mine reports whether a pass has the volume, or had it lately. It forgets what is
// longer ago.
func (v *volumes) mine(id string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	for id, u := range v.uses {
		if u.passes == 0 && time.Since(u.ended) >= mineFor {
			delete(v.uses, id)
		}
	}
	return v.uses[id] != nil
}

// Mine reports whether a pass of this Mover has an OpenStorage volume for its
// target, or had it less than 15 s ago: its attachment is no stranger's.
func (m *Mover) Mine(volume string) bool { return m.volumes.mine(volume) }
