package vsphere

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"reflect"
	"strings"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/haulback/haulback/hostctl"
)

// callError is what a host answers, or why it does not.
type callError struct {
	host, what, text string
	retry            bool
	err              error
}

// Error implements error. The text of err is not in it: it was cleaned.
func (e *callError) Error() string {
	return fmt.Sprintf("host %s: %s: %s", e.host, e.what, e.text)
}

// Unwrap gives what it was made from.
func (e *callError) Unwrap() error { return e.err }

// Retryable reports whether the same may work later. What was asked may or may
// not have happened.
func (e *callError) Retryable() bool { return e.retry }

// refuse is a final error of our own.
func (c *Client) refuse(format string, args ...any) error {
	return fmt.Errorf("host %s: %s", c.cfg.Name, fmt.Sprintf(format, args...))
}

// later is an error of our own after which a retry may help.
func (c *Client) later(what, format string, args ...any) error {
	return &callError{host: c.cfg.Name, what: what, text: fmt.Sprintf(format, args...), retry: true}
}

// has finds a fault of type F anywhere in err.
func has[F types.BaseMethodFault](err error) (F, bool) {
	var f F
	if err == nil {
		return f, false
	}
	_, ok := fault.As(err, &f)
	return f, ok
}

func is[F types.BaseMethodFault](err error) bool {
	_, ok := has[F](err)
	return ok
}

// isLogout reports whether the session has ended: the call was not executed.
func isLogout(err error) bool { return is[*types.NotAuthenticated](err) }

// isGone reports whether the object of a call does not exist.
func isGone(err error) bool {
	return errors.Is(err, hostctl.ErrNotFound) || is[*types.ManagedObjectNotFound](err)
}

// wrap makes an error of package hostctl from err. The context's own end stays
// what it is.
func (c *Client) wrap(ctx context.Context, what string, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("host %s: %s: %w", c.cfg.Name, what, context.Cause(ctx))
	case ours(err):
		return err
	}
	if f, ok := has[*types.NoPermission](err); ok {
		return c.noPermission(what, f)
	}
	if is[*types.InvalidLogin](err) {
		return c.refuse("the login of %s is refused; look at user and password_file %s", c.cfg.User, c.cfg.PasswordFile)
	}
	if pin, ok := errors.AsType[*PinError](err); ok {
		return pin
	}
	e := &callError{host: c.cfg.Name, what: what, err: err}
	e.text, e.retry = describe(err)
	if isGone(err) || is[*types.FileNotFound](err) || is[*types.NotFound](err) {
		e.err = errors.Join(hostctl.ErrNotFound, err)
	}
	if is[*types.NoDiskSpace](err) {
		e.err = errors.Join(hostctl.ErrNoSpace, err)
	}
	return e
}

// ours reports whether err has been made here already.
func ours(err error) bool {
	if _, ok := errors.AsType[*callError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*hostctl.AmbiguousError](err); ok {
		return true
	}
	if _, ok := errors.AsType[*hostctl.PrivilegeError](err); ok {
		return true
	}
	return errors.Is(err, hostctl.ErrNotFound)
}

// noPermission names the privilege.
func (c *Client) noPermission(what string, f *types.NoPermission) error {
	missing := []string{clean(f.PrivilegeId)}
	for _, m := range f.MissingPrivileges {
		for _, id := range m.PrivilegeIds {
			missing = append(missing, clean(id))
		}
	}
	missing = tidy(missing)
	if len(missing) == 0 {
		missing = []string{"a privilege that the host does not name (to " + what + ")"}
	}
	object := "the host"
	if f.Object != nil {
		object = clean(f.Object.Value)
	}
	return &hostctl.PrivilegeError{Host: c.cfg.Name, User: c.cfg.User, Object: object, Missing: missing}
}

// describe is the host's text of an error, and whether a retry may help.
func describe(err error) (text string, retry bool) {
	f, found := has[types.BaseMethodFault](err)
	if found {
		name := strings.TrimPrefix(reflect.TypeOf(f).String(), "*types.")
		return faultText(name, err, f), retryable(f)
	}
	if soap.IsSoapFault(err) {
		return clean(err.Error()), false
	}
	return network(err)
}

// faultText is the fault's name with what the host says of it.
func faultText(name string, err error, f types.BaseMethodFault) string {
	said := clean(err.Error())
	if p, ok := f.(*types.InvalidArgument); ok && p.InvalidProperty != "" {
		said += " (" + clean(p.InvalidProperty) + ")"
	}
	for _, m := range f.GetMethodFault().FaultMessage {
		if t := clean(m.Message); t != "" && !strings.Contains(said, t) {
			said += "; " + t
		}
	}
	if said == "" || said == name {
		return name
	}
	return name + ": " + cut(said)
}

// class is how a call ended, in a word.
func class(ctx context.Context, err error) string {
	f, fault := has[types.BaseMethodFault](err)
	_, pin := errors.AsType[*PinError](err)
	switch {
	case err == nil:
		return "ok"
	case ctx.Err() != nil:
		return "ended"
	case isLogout(err):
		return "session"
	case is[*types.InvalidLogin](err) || is[*types.NoPermission](err):
		return "authentication"
	case fault && retryable(f):
		return "busy"
	case fault || soap.IsSoapFault(err):
		return "refused"
	case pin || Untrusted(err):
		return "certificate"
	}
	return "away"
}

// retryable tells the faults of a moment: the object is busy, or its server is
// away.
func retryable(f types.BaseMethodFault) bool {
	switch f.(type) {
	case *types.NotAuthenticated, *types.HostNotConnected, *types.HostNotReachable, *types.HostCommunication,
		*types.HostConnectFault, *types.Timedout, *types.TaskInProgress, *types.ResourceInUse, *types.ConcurrentAccess,
		*types.FileLocked, *types.RequestCanceled:
		return true
	}
	return false
}

// network judges an error that no SOAP fault explains. A certificate that is not
// the right one stays wrong; everything else of a network may be better later.
func network(err error) (text string, retry bool) {
	if u, ok := errors.AsType[*url.Error](err); ok {
		if status, ok := u.Err.(interface{ Temporary() bool }); ok {
			if _, isNet := u.Err.(net.Error); !isNet {
				return httpStatus(clean(u.Err.Error()), status.Temporary())
			}
		}
	}
	switch {
	case Untrusted(err):
		return "its certificate is not trusted: " + clean(innermost(err).Error()) + "; configure its thumbprint or the ca_file of its authority", false
	case errors.Is(err, errSlow), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		return clean(innermost(err).Error()), true
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return clean(innermost(err).Error()), true
	}
	if _, ok := errors.AsType[*xml.SyntaxError](err); ok {
		return "its reply was cut or is not XML: " + clean(err.Error()), true
	}
	return clean(err.Error()), false
}

// httpStatus judges an HTTP status: a proxy or a service that is starting.
func httpStatus(status string, temporary bool) (string, bool) {
	code, _, _ := strings.Cut(status, " ")
	switch code {
	case "429", "502", "503", "504":
		temporary = true
	}
	return "it answers " + status, temporary
}

// Untrusted reports whether the certificate authorities, or the name, refuse the
// host's certificate. A pin that does not fit is a *PinError.
func Untrusted(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return true
	}
	_, ok := errors.AsType[x509.HostnameError](err)
	return ok
}

// innermost is the last cause of err: an URL error repeats the whole address.
func innermost(err error) error {
	for {
		u, ok := errors.AsType[*url.Error](err)
		if !ok || u.Err == nil {
			return err
		}
		err = u.Err
	}
}
