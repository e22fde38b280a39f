// Package control serves the control API: gRPC, gRPC-Web, Connect (JSON and
// binary), and for curl plain HTTP with events and health, all on one port.
//
//	listener    unix socket: peer credentials   TCP: TLS 1.3, client certificate
//	gate        whose request it is; Host and Origin; how many at once; deadlines
//	intercept   panics, audit, an ErrorInfo for every error
//	handlers    messages to jobs and back (package jobpb), nothing else
//
// Rules:
//   - Who calls is looked at for every request, against the access rules of
//     now: after Reload the streams of those who may no longer call have ended.
//   - Nothing is unbounded: connections, requests and streams at once, of one
//     caller and in all; bytes of a request; the time to send one, to answer
//     one, and to read an event.
//   - Every error has a code, a stable reason and a retry class (docs/api.md).
//
// Not promised: that a caller is told why his TLS handshake failed.
package control
