// Package control is what the VDDK worker and its supervisor say to each other:
// lines of JSON over the worker's standard input (requests) and output
// (messages). It is the only way by which credentials reach the worker.
//
//	=> {"id":1,"start":{"version":1,"server":"vc","vm":"vm-42",...,"password":"..."}}
//	<= {"id":1,"started":{"library":"8","modes":"file:nbdssl:nbd","socket":"/run/x/nbd.sock"}}
//	=> {"id":2,"open":{"path":"[ds] vm/vm.vmdk","transports":"nbdssl:nbd","read_only":true}}
//	<= {"id":2,"opened":{"export":"disk-1","size":1073741824,"mode":"nbdssl"}}
//	=> {"id":3,"ping":{}}
//	<= {"id":3}
//	<= {"log":{"level":1,"text":"a line of the library"}}
//	<= {"failed":{"export":"disk-1","off":4096,"len":512,"error":{"text":"...","retryable":true}}}
//	=> {"id":4,"close":{"export":"disk-1"}}
//	<= {"id":4,"error":{"text":"...","retryable":true,"errno":5}}
//
// A request has exactly one of start (once, and first), open, close and ping, and
// is answered by one message with its id, in any order. Messages without an id
// are log lines, what the library said when a request over NBD failed (written
// before NBD's own answer), and the last words of a worker that kills itself.
// When its standard input ends the worker closes everything and ends.
//
// Both ends are of one build: an unknown field, another version or a line of more
// than MaxLine bytes ends the conversation.
package control
