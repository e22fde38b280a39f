package report

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"
)

// The types of a line; docs/cli.md says what is in each. Append only.
const (
	TypeStarted   = "started"
	TypeStatus    = "status"
	TypeEvent     = "event"
	TypeWarning   = "warning"
	TypeError     = "error" // one of several mistakes; exit_error follows
	TypeSummary   = "summary"
	TypeExitError = "exit_error"
	TypeExtent    = "extent"
	TypeSetting   = "setting"
	TypeCheck     = "check"
	TypePeer      = "peer"
	TypeServing   = "serving" // nbd serve: clients may come
	TypeJob       = "job"
	TypeRecord    = "record" // audit show
	TypeVM        = "vm"
	TypePlan      = "plan"
	TypeFailback  = "failback"
	TypeLeftover  = "leftover"
	TypeDaemon    = "daemon" // status: the daemon itself
)

// Lines writes the JSON lines of a command that has more to say than a
// transfer. It is safe for concurrent use. Other than a transfer's, its errors
// count: a list that was cut by a full disk is no list.
type Lines struct {
	mu  sync.Mutex
	out *bufio.Writer
	now func() time.Time
	err error
}

// NewLines writes to out what Flush, or a full buffer, lets go.
func NewLines(out io.Writer) *Lines {
	return &Lines{out: bufio.NewWriterSize(out, 32<<10), now: time.Now}
}

// Line writes v, which marshals to an object, as one line of type kind.
func (l *Lines) Line(kind string, v any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	line, err := lineOf(kind, l.now(), v)
	if err == nil {
		_, err = l.out.Write(line)
	}
	if l.err == nil {
		l.err = err
	}
	return l.err
}

// Flush writes what is buffered and returns the first error there was.
func (l *Lines) Flush() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.out.Flush(); l.err == nil {
		l.err = err
	}
	return l.err
}

// lineOf is the header and the fields of v in one object.
func lineOf(kind string, now time.Time, v any) ([]byte, error) {
	top, err := json.Marshal(head(kind, now))
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(v)
	switch {
	case err != nil:
		return nil, err
	case len(body) < 2 || body[0] != '{':
		return nil, fmt.Errorf("report: a line of type %s is no object: %s", kind, body)
	case len(body) > 2:
		top[len(top)-1] = ','
		top = append(top, body[1:]...)
	}
	return append(top, '\n'), nil
}

// WriteLine writes one line at once.
func WriteLine(out io.Writer, kind string, v any) error {
	line, err := lineOf(kind, time.Now(), v)
	if err != nil {
		return err
	}
	_, err = out.Write(line)
	return err
}

// Text is the body of a line that only says something.
type Text struct {
	Text string `json:"text"`
}
