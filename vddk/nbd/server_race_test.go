//go:build race

package nbd

const serverRace = true
