//go:build race

package nbd

const raceEnabled = true // sync.Pool drops on purpose
