// Package exitcode is the one table of exit codes, of haulback and haulbackd.
//
// The numbers stand in DESIGN.md section 8 and in docs/operation.md. A script
// may rely on them; what is not in the table is a failure. 2 is never ours: the
// Go runtime exits with it.
//
// What is not promised: that one condition keeps its code between a run that
// did not begin (13, nothing was changed) and one that did (3, the target waits
// for the rest).
package exitcode
