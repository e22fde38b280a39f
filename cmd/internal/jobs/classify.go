package jobs

import (
	"context"
	"errors"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/hostctl/job"
	"github.com/haulback/haulback/vddk"
	"github.com/haulback/haulback/wire"
)

// class is what a caller branches on.
type class struct {
	reason string
	retry  job.RetryClass
}

// Short names for the rows below.
const (
	never    = job.RetryNever
	later    = job.RetryBackoff
	somebody = job.RetryAfterReconcile // has to look first
)

// byCode has every code that crosses the wire.
var byCode = map[wire.Code]class{
	wire.CodeInternal:     {job.ReasonInternal, never},
	wire.CodeVersion:      {job.ReasonEndpoint, somebody},
	wire.CodeFrame:        {job.ReasonInternal, never},
	wire.CodeLimit:        {job.ReasonQuota, later},
	wire.CodeTimeout:      {job.ReasonUnavailable, later},
	wire.CodeDraining:     {job.ReasonUnavailable, later},
	wire.CodeCanceled:     {job.ReasonCanceled, later},
	wire.CodeExport:       {job.ReasonAuth, somebody},
	wire.CodeRole:         {job.ReasonEndpoint, somebody},
	wire.CodeBusy:         {job.ReasonBusy, later},
	wire.CodeFenced:       {job.ReasonFenced, somebody},
	wire.CodeTooSmall:     {job.ReasonTooSmall, somebody},
	wire.CodeExtent:       {job.ReasonInternal, never},
	wire.CodeBinding:      {job.ReasonInternal, never},
	wire.CodeDigest:       {job.ReasonChecksum, later},
	wire.CodeDecompress:   {job.ReasonChecksum, later},
	wire.CodeRead:         {job.ReasonStorage, somebody},
	wire.CodeWrite:        {job.ReasonStorage, somebody},
	wire.CodeFlush:        {job.ReasonStorage, somebody},
	wire.CodeNoSpace:      {job.ReasonNoSpace, somebody},
	wire.CodeDiskChanged:  {job.ReasonSource, somebody},
	wire.CodeJournal:      {job.ReasonStorage, somebody},
	wire.CodePoisoned:     {job.ReasonStorage, somebody},
	wire.CodeVerify:       {job.ReasonChecksum, somebody},
	wire.CodeUnreadable:   {job.ReasonStorage, somebody},
	wire.CodeOpen:         {job.ReasonUnavailable, later},
	wire.CodeUnauthorized: {job.ReasonAuth, somebody},
	wire.CodeUnreachable:  {job.ReasonUnavailable, later},
	wire.CodeSuperseded:   {job.ReasonFenced, somebody},
	wire.CodeHint:         {job.ReasonCBT, somebody},
	wire.CodeDistrust:     {job.ReasonCBT, later},
	wire.CodeDiskLost:     {job.ReasonUnavailable, later},
	wire.CodeTicket:       {job.ReasonAuth, somebody},
	wire.CodeSwitch:       {job.ReasonUnavailable, later},
}

// byExit has the conditions of this process, by the exit code that the command
// line has for them.
var byExit = map[exitcode.Code]class{
	exitcode.Failed:      {job.ReasonInternal, somebody},
	exitcode.Incomplete:  {job.ReasonIncomplete, later},
	exitcode.Verify:      {job.ReasonChecksum, somebody},
	exitcode.Usage:       {job.ReasonEndpoint, somebody}, // what is wrong with the request itself is refused before
	exitcode.Locked:      {job.ReasonBusy, later},
	exitcode.Auth:        {job.ReasonAuth, somebody},
	exitcode.Unavailable: {job.ReasonUnavailable, later},
	exitcode.Tracking:    {job.ReasonCBT, somebody},
	exitcode.Canceled:    {job.ReasonCanceled, later},
}

// Classify tells reason, retry class and exit code of an error of this package,
// of transfer, or of the engine. Nil is nil.
func Classify(err error) *job.Failure {
	if err == nil {
		return nil
	}
	if f, ok := errors.AsType[*job.Failure](err); ok {
		return f
	}
	c := classOf(err)
	return &job.Failure{Reason: c.reason, Text: report.OneLine(err.Error()), Retry: c.retry, Exit: int(exitcode.Of(err))}
}

// classOf: what became of a run says more than what it came by; what is wrong
// with a disk of this machine says more than the code that it got on its way up,
// and shows in an exit code that is not the code's own.
func classOf(err error) class {
	exit := exitcode.Of(err)
	we, coded := errors.AsType[*wire.Error](err)
	switch {
	case errors.Is(err, context.Canceled), coded && we.Code == wire.CodeCanceled:
		return byCode[wire.CodeCanceled]
	case exit == exitcode.Incomplete && coded && we.Code == wire.CodeNoSpace:
		return byCode[wire.CodeNoSpace]
	case errors.Is(err, vddk.ErrChanged):
		return byCode[wire.CodeDiskChanged]
	case errors.Is(err, vddk.ErrTrack):
		return byCode[wire.CodeHint]
	case coded && exit == exitcode.Of(&wire.Error{Code: we.Code, Remote: we.Remote}):
		if c, ok := byCode[we.Code]; ok {
			return c
		}
	}
	if c, ok := byExit[exit]; ok {
		return c
	}
	return byExit[exitcode.Failed]
}
