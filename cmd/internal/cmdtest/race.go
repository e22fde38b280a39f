//go:build race

package cmdtest

// buildFlags make the programs what the test is.
var buildFlags = []string{"-race"}
