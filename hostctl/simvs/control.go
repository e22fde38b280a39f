package simvs

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"

	"github.com/vmware/govmomi/vim25/types"
)

// Control is the port by which tests and people do what no client of vSphere can:
// write as a guest, cut the power, turn switches. It speaks HTTP and JSON; an
// answer is JSON, that of an error {"error": TEXT} with a status of 400 or more.
//
//	GET  /v1/vms                      the VMs: ref, name, uuid, path, power, disks
//	POST /v1/vms                      {"name","disks":[{"size","image"}],"on",...} (type VM) -> {"ref"}
//	GET  /v1/vms/{vm}/files           the files of the leaves; ?snapshot=REF: of a snapshot
//	POST /v1/vms/{vm}/power           {"to":"on" | "off" | "loss"}
//	POST /v1/vms/{vm}/write           {"disk":0,"off":0,"file":PATH | "text":TEXT | "len":N,"seed":1} -> {"written"}
//	GET  /v1/vms/{vm}/read            ?disk=0&off=0&len=512: the bytes themselves
//	POST /v1/vms/{vm}/churn           {"disk","rate","block","seed","off","len","limit"} -> {"id"}
//	POST /v1/churns/{id}/stop         -> {"written"}
//	GET  /v1/switches                 type Switches; durations are in nanoseconds
//	POST /v1/switches                 sets those that are named
//	POST /v1/users                    {"name","password_file","privileges":[...]}
//	POST /v1/sessions/drop            ends all sessions
//	POST /v1/down, /v1/up             closes and opens the listener
//	POST /v1/drop-reply               {"method","nth"}: the call is executed, its reply lost
//
// {vm} is a reference, name or instanceUuid. There is no authentication: the port
// is a socket that its owner alone can open.
type Control struct {
	s   *Server
	mux *http.ServeMux

	mu     sync.Mutex // guards churns
	churns map[string]*churning
	next   int
}

type churning struct {
	stop    context.CancelFunc
	done    chan struct{}
	written int64
	err     error
}

// NewControl is the handler of the control port.
func NewControl(s *Server) *Control {
	c := &Control{s: s, mux: http.NewServeMux(), churns: map[string]*churning{}}
	handle := func(pattern string, do func(r *http.Request) (any, error)) {
		c.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			answer, err := do(r)
			w.Header().Set("Content-Type", "application/json")
			if err != nil {
				w.WriteHeader(http.StatusBadRequest)
				answer = map[string]string{"error": err.Error()}
			}
			_ = json.NewEncoder(w).Encode(answer) // the client is gone
		})
	}
	handle("GET /v1/vms", c.listVMs)
	handle("POST /v1/vms", c.addVM)
	handle("GET /v1/vms/{vm}/files", c.files)
	handle("POST /v1/vms/{vm}/power", c.setPower)
	handle("POST /v1/vms/{vm}/write", c.write)
	handle("POST /v1/vms/{vm}/churn", c.churn)
	handle("POST /v1/churns/{id}/stop", c.stopChurn)
	handle("GET /v1/switches", func(*http.Request) (any, error) { return s.switches(), nil })
	handle("POST /v1/switches", c.setSwitches)
	handle("POST /v1/users", c.addUser)
	handle("POST /v1/sessions/drop", func(*http.Request) (any, error) { s.DropSessions(); return struct{}{}, nil })
	handle("POST /v1/down", func(*http.Request) (any, error) { s.Down(); return struct{}{}, nil })
	handle("POST /v1/up", func(*http.Request) (any, error) { return struct{}{}, s.Up() })
	handle("POST /v1/drop-reply", c.dropReply)
	c.mux.HandleFunc("GET /v1/vms/{vm}/read", c.read)
	return c
}

// ServeHTTP answers one request.
func (c *Control) ServeHTTP(w http.ResponseWriter, r *http.Request) { c.mux.ServeHTTP(w, r) }

// Close stops all churns.
func (c *Control) Close() error {
	c.mu.Lock()
	var all []*churning
	for _, one := range c.churns {
		all = append(all, one)
	}
	c.mu.Unlock()
	for _, one := range all {
		one.stop()
		<-one.done
	}
	return nil
}

// decode reads a body and refuses what it does not know.
func decode(r *http.Request, v any) error {
	d := json.NewDecoder(io.LimitReader(r.Body, 1<<20))
	d.DisallowUnknownFields()
	return d.Decode(v)
}

func (c *Control) listVMs(*http.Request) (any, error) {
	type line struct {
		Ref       string   `json:"ref"`
		Name      string   `json:"name"`
		UUID      string   `json:"uuid"`
		Path      string   `json:"path"`
		Power     string   `json:"power"`
		Disks     []File   `json:"disks"`
		Snapshots []string `json:"snapshots,omitempty"`
	}
	list := []line{}
	for _, m := range c.s.all() {
		files, err := c.s.Files(m.ref.Value, "")
		if err != nil {
			continue // it is gone
		}
		m.mu.RLock()
		one := line{m.ref.Value, m.title, m.uuid, m.vmx, string(m.power), files, nil}
		var walk func(tree []types.VirtualMachineSnapshotTree)
		walk = func(tree []types.VirtualMachineSnapshotTree) {
			for _, t := range tree {
				one.Snapshots = append(one.Snapshots, t.Snapshot.Value)
				walk(t.ChildSnapshotList)
			}
		}
		walk(m.tree(nil))
		m.mu.RUnlock()
		list = append(list, one)
	}
	return list, nil
}

func (c *Control) addVM(r *http.Request) (any, error) {
	var v VM
	if err := decode(r, &v); err != nil {
		return nil, err
	}
	ref, err := c.s.AddVM(&v)
	return map[string]string{"ref": ref}, err
}

func (c *Control) files(r *http.Request) (any, error) {
	return c.s.Files(r.PathValue("vm"), r.URL.Query().Get("snapshot"))
}

func (c *Control) setPower(r *http.Request) (any, error) {
	var v struct {
		To string `json:"to"`
	}
	if err := decode(r, &v); err != nil {
		return nil, err
	}
	verbs := map[string]func(string) error{"on": c.s.PowerOn, "off": c.s.PowerOff, "loss": c.s.PowerLoss}
	do, ok := verbs[v.To]
	if !ok {
		return nil, fmt.Errorf("power to %q: there are on, off and loss", v.To)
	}
	return struct{}{}, do(r.PathValue("vm"))
}

func (c *Control) write(r *http.Request) (any, error) {
	var v struct {
		Disk int    `json:"disk"`
		Off  int64  `json:"off"`
		File string `json:"file"`
		Text string `json:"text"`
		Len  int64  `json:"len"`
		Seed uint64 `json:"seed"`
	}
	if err := decode(r, &v); err != nil {
		return nil, err
	}
	g, err := c.s.Guest(r.PathValue("vm"))
	if err != nil {
		return nil, err
	}
	var from io.Reader
	switch {
	case v.File != "":
		f, err := os.Open(v.File)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		from = f
	case v.Text != "":
		from = strings.NewReader(v.Text)
	case v.Len > 0:
		var key [32]byte
		for i := range 8 {
			key[i] = byte(v.Seed >> (8 * i))
		}
		from = io.LimitReader(rand.NewChaCha8(key), v.Len)
	default:
		return nil, errors.New("write: name one of file, text and len")
	}
	written, err := io.Copy(io.NewOffsetWriter(writerAt{g, v.Disk}, v.Off), from)
	if err == nil {
		err = g.Flush(v.Disk)
	}
	return map[string]int64{"written": written}, err
}

type writerAt struct {
	g    *Guest
	disk int
}

func (w writerAt) WriteAt(p []byte, off int64) (int, error) { return w.g.WriteAt(w.disk, p, off) }

func (c *Control) read(w http.ResponseWriter, r *http.Request) {
	var disk int
	var off, length int64
	q := r.URL.Query()
	_, err := fmt.Sscanf(q.Get("disk")+" "+q.Get("off")+" "+q.Get("len"), "%d %d %d", &disk, &off, &length)
	if err != nil || length < 0 || length > 64<<20 {
		http.Error(w, `{"error":"read: name disk, off and len, at most 64 MiB"}`, http.StatusBadRequest)
		return
	}
	p := make([]byte, length)
	g, err := c.s.Guest(r.PathValue("vm"))
	if err == nil {
		_, err = g.ReadAt(disk, p, off)
	}
	if err != nil {
		w.WriteHeader(http.StatusBadRequest)
		_ = json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(p)
}

func (c *Control) churn(r *http.Request) (any, error) {
	var v Churn
	if err := decode(r, &v); err != nil {
		return nil, err
	}
	g, err := c.s.Guest(r.PathValue("vm"))
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(r.Context()))
	one := &churning{stop: stop, done: make(chan struct{})}
	c.mu.Lock()
	c.next++
	id := fmt.Sprintf("churn-%d", c.next)
	c.churns[id] = one
	c.mu.Unlock()
	go func() {
		defer close(one.done)
		one.written, one.err = g.Churn(ctx, v)
	}()
	return map[string]string{"id": id}, nil
}

func (c *Control) stopChurn(r *http.Request) (any, error) {
	c.mu.Lock()
	one := c.churns[r.PathValue("id")]
	delete(c.churns, r.PathValue("id"))
	c.mu.Unlock()
	if one == nil {
		return nil, fmt.Errorf("no churn %q", r.PathValue("id"))
	}
	one.stop()
	<-one.done
	if errors.Is(one.err, ErrOff) { // a guest that was turned off writes no more
		one.err = nil
	}
	return map[string]int64{"written": one.written}, one.err
}

func (c *Control) setSwitches(r *http.Request) (any, error) {
	text, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return nil, err
	}
	c.s.Switch(func(sw *Switches) {
		d := json.NewDecoder(strings.NewReader(string(text)))
		d.DisallowUnknownFields()
		next := *sw
		if err = d.Decode(&next); err == nil {
			*sw = next
		}
	})
	return c.s.switches(), err
}

func (c *Control) addUser(r *http.Request) (any, error) {
	var v struct {
		Name         string   `json:"name"`
		PasswordFile string   `json:"password_file"`
		Privileges   []string `json:"privileges"`
	}
	if err := decode(r, &v); err != nil {
		return nil, err
	}
	secret, err := os.ReadFile(v.PasswordFile)
	if err != nil {
		return nil, err
	}
	password := strings.TrimRight(string(secret), "\r\n")
	if v.Name == "" || password == "" {
		return nil, errors.New("user: name and password are needed")
	}
	c.s.AddUser(v.Name, password, v.Privileges...)
	return struct{}{}, nil
}

func (c *Control) dropReply(r *http.Request) (any, error) {
	var v struct {
		Method string `json:"method"`
		Nth    int    `json:"nth"`
	}
	if err := decode(r, &v); err != nil {
		return nil, err
	}
	if v.Method == "" {
		return nil, errors.New("drop-reply: method is needed")
	}
	c.s.DropReply(v.Method, v.Nth)
	return struct{}{}, nil
}
