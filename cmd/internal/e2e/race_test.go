//go:build race

package e2e

// defaultKills is small because the programs are built with the race detector
// too, and every copy takes many times as long.
const defaultKills = 8
