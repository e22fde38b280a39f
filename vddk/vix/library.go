//go:build linux && amd64 && cgo

package vix

// #cgo LDFLAGS: -ldl -lpthread
// #include <stdlib.h>
// #include "shim.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime/cgo"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// majors are the numbers in the library's file name that are tried, the newest
// first; a kit holds one of them.
var majors = [...]int{9, 8, 7, 6}

var (
	errClosed   = errors.New("the library is closed")
	errCanceled = errors.New("canceled before its turn")
)

// Library is the loaded library. There is one in a process, and it is never
// unloaded. All methods but Run may be called concurrently, once Run runs.
type Library struct {
	cfg   Config
	api   *C.hb_library
	self  cgo.Handle // never deleted: log lines may come until the process ends
	major int
	modes string

	calls   chan func() // for the main thread
	ended   chan struct{}
	current atomic.Pointer[running] // what the main thread is in

	table atomic.Pointer[[]*slot] // by index; it only grows, under mu

	mu    sync.Mutex // guards what follows
	disks map[*Disk]struct{}
	spare []*slot // of disks that were closed; their memory is never unmapped
}

// running is a call that has not returned.
type running struct {
	name  string
	began time.Time
}

// Load opens the library and calls InitEx. The calling goroutine has to be
// locked to the process's main thread (VDDK guide), and to call Run next. A
// second Load in a process is refused by the library.
func Load(cfg Config) (*Library, error) {
	api, major, err := find(cfg.LibDir)
	if err != nil {
		return nil, err
	}
	l := &Library{
		cfg: cfg, api: api, major: major, calls: make(chan func()), ended: make(chan struct{}),
		disks: map[*Disk]struct{}{},
	}
	l.self = cgo.NewHandle(l)
	dir := C.CString(cfg.LibDir)
	defer C.free(unsafe.Pointer(dir))
	file, free := optional(cfg.ConfigFile)
	defer free()
	l.begin("InitEx", cfg.LibDir)
	rc := C.hb_init(api, C.uintptr_t(l.self), dir, file)
	l.current.Store(nil)
	if rc != 0 {
		return nil, l.fail("InitEx", cfg.LibDir, uint64(rc))
	}
	l.modes = text(func(p *C.char, n C.int) { C.hb_transport_modes(api, p, n) })
	return l, nil
}

// find tries the names that the releases had.
func find(dir string) (*C.hb_library, int, error) {
	failed := &LoadError{LibDir: dir}
	for _, sub := range []string{"lib64", ""} {
		for _, major := range majors {
			path := filepath.Join(dir, sub, fmt.Sprintf("libvixDiskLib.so.%d", major))
			api, why := open(path)
			if api != nil {
				return api, major, nil
			}
			if !strings.HasPrefix(why, path+": cannot open shared object file: No such file") {
				failed.Tried = append(failed.Tried, why)
			}
		}
	}
	if len(failed.Tried) == 0 {
		failed.Tried = []string{"neither lib64/libvixDiskLib.so.N nor libvixDiskLib.so.N is there, for N from 6 to 9"}
	}
	return nil, 0, failed
}

func open(path string) (api *C.hb_library, why string) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	var message *C.char
	api = C.hb_load(name, &message)
	defer C.free(unsafe.Pointer(message))
	if api == nil && message != nil {
		why = C.GoString(message)
	}
	return api, why
}

// Version names the release as far as its file name tells.
func (l *Library) Version() string { return fmt.Sprint(l.major) }

// TransportModes is what the library can do, as it says: "file:nbdssl:nbd".
func (l *Library) TransportModes() string { return l.modes }

// Run makes the calls that belong on the main thread, until Close.
func (l *Library) Run() {
	for {
		select {
		case call := <-l.calls:
			call()
		case <-l.ended:
			return
		}
	}
}

// do runs call on the main thread and waits for it. The context counts until
// its turn comes.
func (l *Library) do(ctx context.Context, name, object string, call func()) error {
	err := l.turn(ctx.Done(), name, object, call)
	if errors.Is(err, errCanceled) {
		err = fmt.Errorf("VixDiskLib_%s %s: %w", name, object, context.Cause(ctx))
	}
	return err
}

// turn is do with a channel to cancel by, or nil.
func (l *Library) turn(cancel <-chan struct{}, name, object string, call func()) error {
	done := make(chan struct{})
	turn := func() {
		defer close(done)
		l.begin(name, object)
		defer l.current.Store(nil)
		call()
	}
	select {
	case l.calls <- turn:
		<-done
		return nil
	case <-l.ended:
		return fmt.Errorf("VixDiskLib_%s %s: %w", name, object, errClosed)
	case <-cancel:
		return errCanceled
	}
}

func (l *Library) begin(name, object string) {
	l.current.Store(&running{name: "VixDiskLib_" + name + " " + object, began: time.Now()})
}

// Stuck returns an error that names a call which has not returned for longer
// than control (a call of the main thread) or io (a request, Wait, Flush), and
// nil when there is none.
func (l *Library) Stuck(control, io time.Duration) error {
	if r := l.current.Load(); r != nil && time.Since(r.began) > control {
		return fmt.Errorf("%s has not returned for %v", r.name, control)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for d := range l.disks {
		if name := d.stuck(io); name != "" {
			return fmt.Errorf("VixDiskLib_%s %s has not returned for %v", name, d.path, io)
		}
	}
	return nil
}

// Prepare disables what must not happen to the VM while its disks are in use,
// its relocation above all, under the name identity (at most 50 bytes). A bare
// ESXi refuses it.
func (l *Library) Prepare(ctx context.Context, p Params, identity string) error {
	return l.access(ctx, "PrepareForAccess", p, identity, func(login *C.hb_login, id *C.char) C.uint64_t {
		return C.hb_prepare(l.api, login, id)
	})
}

// EndAccess takes back what Prepare did under identity, in this process or one
// before it.
func (l *Library) EndAccess(ctx context.Context, p Params, identity string) error {
	return l.access(ctx, "EndAccess", p, identity, func(login *C.hb_login, id *C.char) C.uint64_t {
		return C.hb_end(l.api, login, id)
	})
}

func (l *Library) access(ctx context.Context, name string, p Params, identity string, call func(*C.hb_login, *C.char) C.uint64_t) error {
	if err := p.validate(); err != nil {
		return fmt.Errorf("VixDiskLib_%s %s: %w", name, p.VM, err)
	}
	if len(identity) > maxIdentity || strings.ContainsRune(identity, 0) {
		return fmt.Errorf("VixDiskLib_%s %s: identity %q: more than %d bytes", name, p.VM, identity, maxIdentity)
	}
	login := newLogin(&p)
	defer login.free()
	id := C.CString(identity)
	defer C.free(unsafe.Pointer(id))
	var rc C.uint64_t
	if err := l.do(ctx, name, p.VM, func() { rc = call(&login.c, id) }); err != nil {
		return err
	}
	return l.fail(name, p.VM, uint64(rc))
}

// Close ends Run. Disks that are open are closed first; errors of that are
// returned.
func (l *Library) Close(ctx context.Context) error {
	l.mu.Lock()
	var open []*Disk
	for d := range l.disks {
		open = append(open, d)
	}
	l.mu.Unlock()
	var all []error
	for _, d := range open {
		all = append(all, d.Close())
	}
	err := l.do(ctx, "Exit", "", func() {
		C.hb_exit(l.api)
		close(l.ended)
	})
	if errors.Is(err, errClosed) {
		err = nil // idempotent
	}
	return errors.Join(append(all, err)...)
}

// fail makes an error of what a function returned, nil of 0.
func (l *Library) fail(name, object string, rc uint64) error {
	switch rc {
	case 0:
		return nil
	case rcContradiction:
		return &Error{Func: name, Object: object, Raw: rc, Text: "it returned 0 where it has to say whether the request is under way, or called back for one that it refused"}
	}
	return &Error{Func: name, Object: object, Raw: rc, Text: text(func(p *C.char, n C.int) {
		C.hb_error_text(l.api, C.uint64_t(rc), p, n)
	})}
}

// text calls a function that fills a C buffer.
func text(fill func(*C.char, C.int)) string {
	const size = 512
	p := (*C.char)(C.calloc(1, size))
	defer C.free(unsafe.Pointer(p))
	fill(p, size)
	return strings.ToValidUTF8(C.GoString(p), "?")
}

func optional(s string) (p *C.char, free func()) {
	if s == "" {
		return nil, func() {}
	}
	p = C.CString(s)
	return p, func() { C.free(unsafe.Pointer(p)) }
}

// note writes a line of our own to the log.
func (l *Library) note(level Level, line string) {
	if l.cfg.Log != nil {
		l.cfg.Log(level, line)
	}
}

//export haulbackVixLog
func haulbackVixLog(key C.uintptr_t, level C.int, line *C.char, length C.int) {
	l := cgo.Handle(key).Value().(*Library)
	l.note(Level(level), strings.TrimRight(C.GoStringN(line, length), "\r\n"))
}
