//go:build race

package packages

const race = true
