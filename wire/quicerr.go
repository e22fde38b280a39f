package wire

import (
	"context"
	"errors"
	"math"
	"net"
	"os"

	"github.com/quic-go/quic-go"
)

// explainQUIC turns an error of quic-go on the connection between self and
// addr into one that says what happened in our words and has a Code, so that
// the caller can tell what is worth a retry.
func explainQUIC(err error, addr net.Addr, self ID) error {
	if own, ok := errors.AsType[*Error](err); ok {
		return own // made by our own verify
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case isType[*quic.IdleTimeoutError](err):
		return Errorf(CodeTimeout, "nothing heard from the peer at %s for %v: %w", addr, idleTimeout, err)
	case isType[*quic.HandshakeTimeoutError](err):
		return Errorf(CodeUnreachable, "no answer from %s over UDP: %w", addr, err)
	case isType[*quic.StatelessResetError](err):
		return Errorf(CodeUnreachable, "the peer at %s has restarted: %w", addr, err)
	case isType[*quic.VersionNegotiationError](err):
		return Errorf(CodeVersion, "%w: the peer at %s speaks another QUIC", ErrVersion, addr)
	case isType[*quic.StreamError](err):
		return Errorf(CodeFrame, "the peer at %s broke a stream off: %w", addr, err)
	}
	if app, ok := errors.AsType[*quic.ApplicationError](err); ok {
		return explainClose(app)
	}
	if tr, ok := errors.AsType[*quic.TransportError](err); ok {
		return explainTransport(tr, addr, self)
	}
	return Errorf(CodeUnreachable, "connection to %s lost: %w", addr, err)
}

func isType[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}

// explainClose is the CloseWithError of one of the two ends.
func explainClose(app *quic.ApplicationError) error {
	code := CodeInternal
	if app.ErrorCode <= math.MaxUint16 {
		code = Code(app.ErrorCode)
	}
	if !app.Remote {
		return closedHere(code, app.ErrorMessage)
	}
	return &Error{Code: code, Text: clean(app.ErrorMessage), Remote: true}
}

// cryptoAlert is where QUIC puts TLS alerts (RFC 9001 4.8).
const cryptoAlert quic.TransportErrorCode = 0x100

func explainTransport(tr *quic.TransportError, addr net.Addr, self ID) error {
	switch {
	case tr.Remote && tr.ErrorCode&^0xff == cryptoAlert:
		return refused(uint8(tr.ErrorCode), addr, self)
	case tr.ErrorCode == cryptoAlert+alertNoALPN:
		return Errorf(CodeVersion, "%w: the other end at %s does not speak %s", ErrVersion, addr, alpn)
	case tr.Remote && tr.ErrorCode == quic.ConnectionRefused:
		return Errorf(CodeUnreachable, "the peer at %s takes no connections now: %w", addr, tr)
	}
	return Errorf(CodeFrame, "connection to %s: %w", addr, tr)
}
