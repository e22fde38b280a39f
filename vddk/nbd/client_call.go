package nbd

import (
	"sync"
	"sync/atomic"

	"github.com/haulback/haulback/cbt"
)

// clientCall is one call of a method of Client: the requests it was cut into,
// and the first of them, in the order of the disk, that failed.
type clientCall struct {
	pending atomic.Int64
	done    chan struct{} // capacity 1: the last request never waits
	failed  atomic.Bool

	mu     sync.Mutex
	extent cbt.Extent // of the failure with the lowest offset
	start  int64      // of the request that failed so: all before it is done
	err    error
	text   string

	status *clientStatus // where BLOCK_STATUS puts its answer
}

// newCall is a call with one request pending: the caller, until wait.
func (c *Client) newCall() *clientCall {
	call, ok := c.calls.Get().(*clientCall)
	if !ok {
		call = &clientCall{done: make(chan struct{}, 1)}
	}
	call.pending.Store(1)
	call.failed.Store(false)
	call.err, call.status = nil, nil
	return call
}

func (call *clientCall) begin() { call.pending.Add(1) }

// end takes in one request.
func (call *clientCall) end(start int64, e cbt.Extent, err error, text string) {
	if err != nil {
		call.failFrom(start, e, err, text)
	}
	if call.pending.Add(-1) == 0 {
		call.done <- struct{}{}
	}
}

func (call *clientCall) fail(e cbt.Extent, err error, text string) {
	call.failFrom(e.Off, e, err, text)
}

func (call *clientCall) failFrom(start int64, e cbt.Extent, err error, text string) {
	call.mu.Lock()
	defer call.mu.Unlock()
	if call.err == nil || e.Off < call.extent.Off {
		call.start, call.extent, call.err, call.text = start, e, err, text
	}
	call.failed.Store(true)
}

// wait returns when every request has ended, and gives the call back. The
// failure, if there is one, is wrapped with op.
func (c *Client) wait(call *clientCall, op string) *Error {
	if call.pending.Add(-1) != 0 {
		<-call.done
	}
	var failure *Error
	if call.failed.Load() {
		failure = &Error{Op: op, Extent: call.extent, Err: c.verdict(call.err), Text: call.text, start: call.start}
	}
	c.calls.Put(call)
	return failure
}
