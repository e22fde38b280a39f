package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
	"time"
	"unsafe"

	tea "charm.land/bubbletea/v2"
	"golang.org/x/sys/unix"
)

// wakeUp is how soon a process that was to stop and did not goes on by itself. The
// kernel stops nobody whom no shell could continue, and Bubble Tea waits for the
// SIGCONT that never comes then. In a process that did stop no time passes.
const wakeUp = 700 * time.Millisecond

// suspending lets SIGTSTP stop the process while the view is put away, and tells
// stop of it at all other times. Back again it tells resized, as the kernel told
// nobody of a window that changed meanwhile. It is for one goroutine.
func suspending(ctx context.Context, stop, resized chan os.Signal) func(tea.Model, tea.Msg) tea.Msg {
	signal.Notify(stop, syscall.SIGTSTP)
	var handler sigaction
	var resumed context.CancelFunc // nil: it is not put away
	return func(_ tea.Model, msg tea.Msg) tea.Msg {
		switch msg.(type) {
		case tea.SuspendMsg:
			if resumed != nil {
				return nil // asked twice before it came back
			}
			handler = swap(unix.SIGTSTP, sigaction{})
			away, cancel := context.WithCancel(ctx)
			resumed = cancel
			go func() { // ends with the view at the latest
				tick := time.NewTicker(wakeUp)
				defer tick.Stop()
				for {
					select {
					case <-tick.C:
						_ = syscall.Kill(os.Getpid(), syscall.SIGCONT)
					case <-away.Done(): // also of a signal that ends the view: it has to come back first
						_ = syscall.Kill(os.Getpid(), syscall.SIGCONT)
						return
					}
				}
			}()
		case tea.ResumeMsg:
			if resumed == nil {
				break
			}
			resumed()
			resumed = nil
			swap(unix.SIGTSTP, handler)
			select {
			case resized <- syscall.SIGWINCH:
			default: // it is to look anyway
			}
		}
		return msg
	}
}

// sigaction has room for the kernel's struct of that name, whose layout differs
// between machines. All zero it is the default action on each of them.
type sigaction [64]byte

// swap sets what a signal does and returns what it did. Go's signal.Reset does not
// do it: the handler that Notify has installed stays, and takes SIGTSTP for nothing
// (runtime, sigInstallGoHandler).
func swap(s syscall.Signal, to sigaction) (from sigaction) {
	const setBytes = 8 // the kernel's signal set
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(s), uintptr(unsafe.Pointer(&to)), uintptr(unsafe.Pointer(&from)), setBytes, 0, 0)
	return from
}
