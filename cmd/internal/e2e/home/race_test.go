//go:build race

package home

// race says that the programs have the race detector, which makes them slow.
const race = true
