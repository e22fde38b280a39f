// Package failbackpb translates between failbacks and the messages of the
// control API, both ways, for the daemon that serves it and for programs that
// call it.
//
// From* functions make messages and never fail; text that is not UTF-8, which a
// host may say, is mended. To* functions read messages: a value of a spec that
// they do not know is a *job.Failure with reason INVALID that names the field; a
// state, an activity or a power that they do not know is left empty. Nothing is
// checked beyond what the translation needs and what bounds it; the engine does
// that.
package failbackpb
