// Package report makes pages and pictures of benchmark results: Markdown tables
// of all runs and targets, bars of throughput and CPU time, and the curve of the
// emulated long link. It measures nothing; the same results give the same page.
//
// [Write] puts everything into one directory:
//
//	README.md             machine, targets, a table for each place and case
//	throughput.svg .png   GiB of disk a second, for each case and peer, on disk
//	memory.svg .png       the same in memory, if it was measured
//	cpu.svg .png          CPU seconds of both ends for each GiB of disk, on disk
//	wan.svg .png          payload rate by loss and transport, if it was measured
//
// A picture is left out when there is nothing to show in it. Bars are medians,
// whiskers the smallest and the largest run. Colours are of the set of Okabe and Ito,
// which colour-blind readers can tell apart; haulback's bars are blue, those of
// peers that encrypt are dark grey, those of others light grey.
//
// # Reasons
//
// Why a target was missed is something only people can say. They say it in a file
// of JSON, one object, whose keys are targets ("P7") or one condition of one
// ("P7: full copy, QUIC: ..."); the text stands beside the target. Those keys are
// of results on disk; "P7 in memory" and "P7 cold" are of the other places. A reason
// for what is met is not shown; of what is missed without one, that is said.
package report
