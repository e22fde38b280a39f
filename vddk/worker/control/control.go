package control

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"syscall"
	"time"
)

const (
	// Version is that of the conversation.
	Version = 1
	// MaxLine bounds one line in bytes, and so the memory of a reader: the
	// longest has a cookie, or a line of the library's log, in it.
	MaxLine = 64 << 10
)

// Secret is a password or a cookie. It is written whole in JSON and hidden
// everywhere else.
type Secret string

const hidden = "[secret]"

// String hides it.
func (Secret) String() string { return hidden }

// GoString hides it.
func (Secret) GoString() string { return hidden }

// LogValue hides it.
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }

// Request is a line to the worker.
type Request struct {
	ID    uint64    `json:"id"`
	Start *Start    `json:"start,omitempty"`
	Open  *Open     `json:"open,omitempty"`
	Close *Close    `json:"close,omitempty"`
	Ping  *struct{} `json:"ping,omitempty"`
}

// Start says which VM, and as whom.
type Start struct {
	Version    int    `json:"version"`
	Server     string `json:"server"`
	Port       uint16 `json:"port,omitempty"`
	VM         string `json:"vm"`
	Thumbprint string `json:"thumbprint"`
	User       string `json:"user,omitempty"`
	Password   Secret `json:"password,omitempty"`
	Cookie     Secret `json:"cookie,omitempty"`
	// Dir is a directory of the supervisor's for the socket.
	Dir string `json:"dir"`
	// Guard keeps the VM from being moved. What has to be taken back is written
	// down in StateDir, when that is set.
	Guard    bool   `json:"guard,omitempty"`
	StateDir string `json:"state_dir,omitempty"`
	// A call of the library that takes longer is a hang, and the worker's end.
	CallLimit time.Duration `json:"call_limit"` // connect, open, close, ...
	IOLimit   time.Duration `json:"io_limit"`   // read, write, flush
}

// Open opens a disk of the VM.
type Open struct {
	Path       string `json:"path"`
	Snapshot   string `json:"snapshot,omitempty"`
	Transports string `json:"transports"`
	ReadOnly   bool   `json:"read_only,omitempty"`
	MaxRequest int    `json:"max_request"` // bytes
}

// Close flushes and closes a disk, after its clients have left.
type Close struct {
	Export string `json:"export"`
}

// Message is a line from the worker. With an ID it is the answer to a request.
type Message struct {
	ID      uint64   `json:"id,omitempty"`
	Error   *Error   `json:"error,omitempty"`
	Started *Started `json:"started,omitempty"`
	Opened  *Opened  `json:"opened,omitempty"`
	Log     *Log     `json:"log,omitempty"`
	// Failed comes before the NBD client's answer, which has an errno only.
	Failed *Failed `json:"failed,omitempty"`
	// Fatal are the last words.
	Fatal string `json:"fatal,omitempty"`
}

// Started answers Start.
type Started struct {
	Library string `json:"library"` // "8"
	Modes   string `json:"modes"`   // as the library lists them
	Socket  string `json:"socket"`  // path of the NBD server
}

// Opened answers Open.
type Opened struct {
	Export string `json:"export"` // the NBD server's name of the disk
	Size   int64  `json:"size"`   // bytes
	Mode   string `json:"mode"`   // "nbdssl"
}

// Failed says what the library said about a request of an NBD client: of Len
// bytes at Off, or a flush.
type Failed struct {
	Export string `json:"export"`
	Flush  bool   `json:"flush,omitempty"`
	Off    int64  `json:"off,omitempty"`
	Len    int64  `json:"len,omitempty"`
	Error  *Error `json:"error"`
}

// Log is a line of the library.
type Log struct {
	Level int    `json:"level"` // 0 information, 1 warning, 2 panic
	Text  string `json:"text"`
}

// Error is an error on its way between processes: text, class, and the errno
// that errors.Is finds.
type Error struct {
	Text  string        `json:"text"`
	Retry bool          `json:"retryable,omitempty"`
	Errno syscall.Errno `json:"errno,omitempty"`
	Deny  bool          `json:"denied,omitempty"`
	Wrong bool          `json:"usage,omitempty"`
}

func (e *Error) Error() string { return e.Text }

// Retryable is the class that the worker gave it.
func (e *Error) Retryable() bool { return e.Retry }

// Denied says that a login or a certificate was refused.
func (e *Error) Denied() bool { return e.Deny }

// Usage says that the operator has to put something right.
func (e *Error) Usage() bool { return e.Wrong }

// Unwrap is the errno, or nil.
func (e *Error) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return e.Errno
}

// NewError takes from err what crosses. It is nil for nil.
func NewError(err error) *Error {
	if err == nil {
		return nil
	}
	e := &Error{Text: err.Error()}
	if r, ok := errors.AsType[interface {
		error
		Retryable() bool
	}](err); ok {
		e.Retry = r.Retryable()
	}
	if d, ok := errors.AsType[interface {
		error
		Denied() bool
	}](err); ok {
		e.Deny = d.Denied()
	}
	if u, ok := errors.AsType[interface {
		error
		Usage() bool
	}](err); ok {
		e.Wrong = u.Usage()
	}
	_ = errors.As(err, &e.Errno) // it has one or not
	return e
}

// ParseRequest reads a line.
func ParseRequest(line []byte) (*Request, error) {
	var r Request
	if err := parse(line, &r); err != nil {
		return nil, err
	}
	count := 0
	for _, is := range []bool{r.Start != nil, r.Open != nil, r.Close != nil, r.Ping != nil} {
		if is {
			count++
		}
	}
	if r.ID == 0 || count != 1 {
		return nil, fmt.Errorf("control: request %d asks for %d things", r.ID, count)
	}
	if r.Start != nil && r.Start.Version != Version {
		return nil, fmt.Errorf("control: version %d, this is version %d: the programs are of different releases", r.Start.Version, Version)
	}
	return &r, nil
}

// ParseMessage reads a line.
func ParseMessage(line []byte) (*Message, error) {
	var m Message
	if err := parse(line, &m); err != nil {
		return nil, err
	}
	if o := m.Opened; o != nil && (o.Export == "" || o.Size <= 0) {
		return nil, fmt.Errorf("control: opened %q with %d bytes", o.Export, o.Size)
	}
	if m.Failed != nil && m.Failed.Error == nil {
		return nil, errors.New("control: a failure without an error")
	}
	return &m, nil
}

// parse never quotes the line: there may be a password in it.
func parse(line []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return errors.New("control: not a line of this protocol")
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("control: more than one value in a line")
	}
	return nil
}

// Lines reads lines of at most MaxLine bytes.
func Lines(r io.Reader) *bufio.Scanner {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 4096), MaxLine)
	return s
}

// Writer writes lines; it may be used concurrently.
type Writer struct {
	mu sync.Mutex // one line at a time
	w  io.Writer
}

// NewWriter writes to w.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// Write writes a Request or a Message.
func (w *Writer) Write(line any) error {
	b, err := json.Marshal(line)
	if err == nil && len(b) >= MaxLine {
		err = fmt.Errorf("control: line of %d bytes", len(b))
	}
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	_, err = w.w.Write(append(b, '\n'))
	return err
}
