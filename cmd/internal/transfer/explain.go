package transfer

import (
	"errors"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

// explain says what the other side said in whose name, and how to go on.
func (t *Transfer) explain(err error) error {
	if err == nil {
		return nil
	}
	text := err.Error()
	if e, ok := errors.AsType[*wire.Error](err); ok && e.Remote {
		text = e.Text
		if who := t.speaker(); who != "" {
			text = who + ": " + text
		}
	}
	if e, ok := errors.AsType[*wire.Error](err); ok && e.Remote && e.Code == wire.CodeOpen && t.speaker() == "" {
		err = &exitcode.UsageError{Err: err} // the target half of this very process
	}
	inc, incomplete := errors.AsType[*mover.IncompleteError](err)
	switch {
	case incomplete && errors.Is(inc.Err, exitcode.ErrCanceled):
		text = "stopped by a signal"
	case incomplete && t.Mode == wire.ModeVerify:
		text = "not compared to the end: " + text
	}
	if incomplete && t.Mode == wire.ModeCopy {
		text += "; the target is not verified and nothing is lost: to go on, " + t.GoOn
	}
	return &exitcode.Told{Text: text, Err: err}
}

// speaker is the daemon that this process talks to, or nothing.
func (t *Transfer) speaker() string {
	switch {
	case t.src.Remote():
		return t.src.Text
	case t.dst.Remote():
		return t.dst.Text
	}
	return ""
}
