// Package controlv1 is the control API of haulback: messages, clients and
// handlers, generated from haulback.proto ("make proto").
//
// The API is a contract: additions only. The descriptors of the API as it was
// last released are in testdata/v1.binpb, and a test refuses whatever a caller
// of that API could notice: see Breaking in the test. "make proto-accept"
// records additions; it refuses anything else.
//
// Package cmd/internal/control serves the API; docs/api.md is its manual.
package controlv1
