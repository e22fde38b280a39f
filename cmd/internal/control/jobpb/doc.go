// Package jobpb translates between jobs and the messages of the control API,
// both ways, for the daemon that serves it and for programs that call it.
//
// From* functions make messages of jobs and never fail. To* functions read
// messages that a caller sent: a value that they do not know is a *job.Failure
// with reason INVALID that names the field. Nothing is checked beyond what the
// translation needs; the engine does that.
package jobpb
