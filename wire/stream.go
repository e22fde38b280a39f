package wire

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// The two halves of a stream, as the transports have them.
type (
	readHalf interface {
		io.Reader
		SetReadDeadline(time.Time) error
	}
	writeHalf interface {
		io.Writer
		CloseWrite() error
		SetWriteDeadline(time.Time) error
	}
)

// errOneWay is the answer to a call for the direction that a stream lacks.
var errOneWay = fmt.Errorf("wire: one-way stream: %w", errors.ErrUnsupported)

// stream implements Stream for all transports: it refuses the direction that
// is not there, and replaces errors by the reason for which the link ended.
type stream struct {
	in      readHalf  // nil: for writing only
	out     writeHalf // nil: for reading only
	explain func(error) error
}

func (s *stream) Read(p []byte) (int, error) {
	if s.in == nil {
		return 0, errOneWay
	}
	n, err := s.in.Read(p)
	if err != nil && err != io.EOF {
		err = s.explain(err)
	}
	return n, err
}

func (s *stream) Write(p []byte) (int, error) {
	if s.out == nil {
		return 0, errOneWay
	}
	n, err := s.out.Write(p)
	if err != nil {
		err = s.explain(err)
	}
	return n, err
}

func (s *stream) CloseWrite() error {
	if s.out == nil {
		return errOneWay
	}
	if err := s.out.CloseWrite(); err != nil {
		return s.explain(err)
	}
	return nil
}

func (s *stream) SetReadDeadline(t time.Time) error {
	if s.in == nil {
		return errOneWay
	}
	return s.in.SetReadDeadline(t)
}

func (s *stream) SetWriteDeadline(t time.Time) error {
	if s.out == nil {
		return errOneWay
	}
	return s.out.SetWriteDeadline(t)
}
