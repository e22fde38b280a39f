//go:build !race

package e2e

// defaultKills is how often each side is killed, half of it over a file and
// half over a loop device.
const defaultKills = 100
