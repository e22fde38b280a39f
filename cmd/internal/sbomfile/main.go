// Command sbomfile prints the CycloneDX document of a program's file, as "haulback
// version --sbom" does of itself: for programs of another architecture, and for
// those without that flag.
//
//	sbomfile PROGRAM
package main

import (
	"debug/buildinfo"
	"fmt"
	"os"

	"github.com/haulback/haulback/cmd/internal/sbom"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "sbomfile:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%d arguments; the one that it takes is the file of a program", len(args))
	}
	info, err := buildinfo.ReadFile(args[0])
	if err != nil {
		return err
	}
	return sbom.Write(os.Stdout, info)
}
