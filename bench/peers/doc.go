// Package peers knows how haulback and the programs that it is compared with
// are run for a piece of work: which processes, with which arguments, and what
// their output says.
//
// Every peer copies one disk image to the other end of a network of lo only, by
// two sets of processes, one for each end. Servers are started, paired and
// ready before the clock runs; clients are what is timed. A peer that needs a
// program, or a flag of haulback, that is not there is left out, and [Kit.Why]
// says why: never in silence.
//
// None of the others does what haulback does at the same time (encryption,
// proof by reading back, a journal, a flush). No peer is given a flush or a
// cache drop that its users would not have; haulback keeps all of its promises.
package peers
