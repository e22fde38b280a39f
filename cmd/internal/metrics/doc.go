// Package metrics serves what a daemon counts to Prometheus.
//
//	families.go   every metric: name, kind, labels, meaning; docs/operation.md has the same table
//	collect.go    asks the engines when somebody scrapes, and at no other time
//	listen.go     the port of [metrics], beside GET /metrics of the control API
//
// Rules:
//   - A scrape costs the data path nothing: it reads atomics of the sessions, and
//     takes no lock that is held over a disk, a host or the network.
//   - Labels are bounded: words of this program, names of the configuration, job
//     IDs of jobs that run, VMs of failbacks that are open. What comes from a
//     caller is cut, and made valid UTF-8; the library escapes it.
//   - A counter never falls while the daemon lives.
//   - The registry is our own: nothing that a library registers comes along.
//
// Not promised: that two metrics of one scrape are of one instant.
package metrics
