// Package wiretest tests links and what runs on them: NewNet is a network with
// planned faults for a synctest bubble, TestLink the conformance suite of
// wire.Link, and the rest small fixtures.
package wiretest
