//go:build !race

package vddk_test

const raceEnabled = false
