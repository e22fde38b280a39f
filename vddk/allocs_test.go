package vddk_test

import "testing"

// leastAllocs is testing.AllocsPerRun of the quietest of a few tries: goroutines
// that other tests have left, servers and workers on their way to their end, allocate too.
func leastAllocs(runs int, f func()) float64 {
	least := testing.AllocsPerRun(runs, f)
	for try := 1; try < 10 && least > 0; try++ {
		least = min(least, testing.AllocsPerRun(runs, f))
	}
	return least
}
