//go:build race

package vix_test

const raceEnabled = true
