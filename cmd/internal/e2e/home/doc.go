// Package home holds tests of whole failbacks with the real programs, and no
// code: two daemons that are paired, each beside a simulated vSphere that it
// reaches over TLS, and whose disks it opens by their files.
//
//	go test -v ./cmd/internal/e2e/home
//
// Whether a VM came home is judged by comparing flat files, which shares no code
// with haulback.
package home
