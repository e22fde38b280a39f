// Package result holds what a benchmark has measured: the types, the file that
// keeps them, the medians over repeated runs, and the targets they are held
// against. It measures nothing and prints nothing.
//
// A file of results is JSON lines. Each line is a [Line], of which exactly one
// field is set. Lines are appended while the benchmark runs, so that an
// interrupted one leaves what it had. The first line is the [Setup]; peers and
// images follow before the runs that use them.
//
//	{"setup":{"began":...,"machine":{...},"versions":{...},"cores":{...}}}
//	{"peer":{"name":"rsync","variant":"delta","commands":["taskset -c 1 rsync --daemon ..."]}}
//	{"left_out":{"name":"bdsync","variant":"sha256","why":"bdsync is not in PATH"}}
//	{"image":{"case":"1pct","bytes":4294967296,"changed":42000384}}
//	{"left_out":{"place":"memory","why":"9.1 GiB are needed, and ..."}}
//	{"run":{"case":"1pct","peer":"rsync","variant":"delta","n":1,"wall":5.99,...}}
//
// A run without a "place" is one on disk. Units are seconds and bytes. Readers ignore fields they do not know.
//
// The numbers of two files are not comparable with each other, only the ratios
// inside one: machines differ, and the load beside the benchmark does.
package result
