// Package hooks calls what a site wants called around the steps of a failback,
// and what stops and starts the replication of a VM: programs, without a shell,
// and addresses, by POST. It implements failback.Hooks and failback.Replication;
// docs/operation.md has what they get, for those who write them.
//
//	program   its own process group, a fixed environment, JSON at its standard
//	          input; works when it exits with 0. After the time-out, and when the
//	          caller's context is done, the group gets SIGTERM, and SIGKILL when
//	          it does not end; what it leaves running when it ends gets SIGKILL
//	address   the same JSON; works when it answers 2xx. https, http to this
//	          machine alone; no redirects, no proxies. A server that is not
//	          there, or busy, is asked again until the time is over
//
// A call may be made twice: a step that was not done when the controller died
// begins anew. Idempotency-Key is the same both times. A program dies with the
// controller that has started it, its children may not: what a hook does has to
// stand being done by two at once.
//
// What a program writes is kept to its last bytes and reaches errors without
// control characters. Secrets are read from their files at each call; none is an
// argument or a variable.
//
// Not promised: that a hook runs as anybody else, or is kept from anything. It is
// as trusted as the daemon whose configuration names it.
package hooks
