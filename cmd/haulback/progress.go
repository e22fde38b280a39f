package main

import (
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/wire"
)

// progressFlag adds --progress-fd; done says what 100/100 means.
func progressFlag(cmd *cobra.Command, f *flags, done string) {
	cmd.Flags().StringVar(&f.progressFD, "progress-fd", "", "write \"N/100\" lines to file descriptor `N`, above 2, as nbdcopy does; 100/100 only when "+done)
}

// progressFD is a file descriptor of the caller that gets "N/100" lines.
// A reader that is slow, or gone, does not stop a copy.
type progressFD struct {
	report.Output
	passes int // that are to come
	values chan int
	done   chan struct{}

	mu   sync.Mutex
	pass int
	last int
}

// hundred is the room for all that is ever said: nobody waits for a reader.
const hundred = 101

// patience is how long the last lines of a run may take to be read.
const patience = time.Second

// progress takes --progress-fd over; nil when it was not given.
func (f *flags) progress() (*progressFD, error) {
	if f.progressFD == "" {
		return nil, nil
	}
	fd, err := strconv.Atoi(f.progressFD)
	if err == nil {
		err = checkFD(fd)
	} else {
		err = fmt.Errorf("a file descriptor is a number from 3")
	}
	if err != nil {
		return nil, usage("--progress-fd %s: %w", f.progressFD, err)
	}
	unix.CloseOnExec(fd) // a worker that outlives this must not keep the reader waiting
	p := &progressFD{passes: 1, last: -1, values: make(chan int, hundred), done: make(chan struct{})}
	if f.verify == "full" {
		p.passes = 2
	}
	go p.write(fd)
	return p, nil
}

// checkFD reports what is wrong with a file descriptor that a caller should
// have opened for us. Everything that this process has opened is closed on
// exec, and nothing that it was handed is: so none is mistaken for another.
func checkFD(fd int) error {
	if fd >= 0 && fd <= 2 {
		return fmt.Errorf("that is standard input, output or error; open another one, as in: --progress-fd 3 3>progress")
	}
	if fd < 0 {
		return fmt.Errorf("a file descriptor is a number from 3")
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC != 0 {
		return fmt.Errorf("it is not open; open it, as in: --progress-fd %d %d>progress", fd, fd)
	}
	mode, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil || mode&unix.O_ACCMODE == unix.O_RDONLY {
		return fmt.Errorf("it is open for reading only")
	}
	return nil
}

func (p *progressFD) write(fd int) {
	defer close(p.done)
	out := os.NewFile(uintptr(fd), "progress")
	for n := range p.values {
		if _, err := fmt.Fprintf(out, "%d/100\n", n); err != nil {
			return // nobody reads; values has room for the rest
		}
	}
	_ = out.Close() // what could not be said is nobody's loss
}

// with is out that also tells p.
func (p *progressFD) with(out report.Output) report.Output {
	if p == nil {
		return out
	}
	p.Output = out
	return p
}

// Started implements report.Output.
func (p *progressFD) Started(s report.Start) {
	p.say(0)
	p.Output.Started(s)
}

// Status implements report.Output.
func (p *progressFD) Status(c wire.Counters, limitedBy string) {
	if c.Total > 0 {
		p.mu.Lock()
		pass := min(p.pass, p.passes-1)
		p.mu.Unlock()
		share := min(float64(c.Verified+c.Skipped)/float64(c.Total), 1)
		p.say(min(99, int(100*(float64(pass)+share)/float64(p.passes))))
	}
	p.Output.Status(c, limitedBy)
}

// Close implements report.Output: a pass has ended.
func (p *progressFD) Close() {
	p.mu.Lock()
	p.pass++
	p.mu.Unlock()
	p.Output.Close()
}

// say tells a number that is higher than all before.
func (p *progressFD) say(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n > p.last {
		p.last = n
		p.values <- n // has room
	}
}

// end says how it ended, and waits a moment for the reader.
func (p *progressFD) end(err error) error {
	if p == nil {
		return err
	}
	if err == nil {
		p.say(100)
	}
	close(p.values)
	select {
	case <-p.done:
	case <-time.After(patience):
	}
	return err
}
