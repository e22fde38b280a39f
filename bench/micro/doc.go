// Package micro has the benchmarks of single parts of the data path: what a core
// does with a grain, a frame or a map, a whole pass in memory, and payload over
// loopback. It has benchmarks only. Run them with
//
//	make bench-micro
//
// which writes the standard format; benchstat compares two such files. Names have
// the form Name/param=value and do not change, so that results of months ago can
// be compared with; a benchmark that measures something else gets another name.
//
// The contents are the Go distribution's own sources and binaries, in an order
// that is always the same, and seeded random bytes. Sources change with the
// release of Go: compare LZ4 figures of one release only.
package micro
