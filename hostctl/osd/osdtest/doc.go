// Package osdtest is an OpenStorage server for tests and demonstrations: the SDK's
// gRPC over real image files and loop devices, as the reference server behaves, with
// each of its misbehaviours, and those that are known of others, behind a switch.
//
//	s, err := osdtest.New(osdtest.Config{Dir: t.TempDir(), Loop: true})
//	id, err := s.AddVolume("data", 1<<30, nil)
//	s.Set(func(q *osdtest.Quirks) { q.LoseReplies = map[string]int{"SnapshotCreate": 1} })
//
// Without a switch it does what the nfs driver of the reference server (v9.4.47) was
// seen to do, in its words and codes, except that a restore works, a snapshot is
// read-only, labels can be updated, attached_on has the node, and a Create of the name of
// an attached volume does not hang. Each of these exceptions has a switch.
//
// One server is one node, and has its directory alone. It is no store: a call waits
// while another one copies an image, and nothing is made durable before it is answered.
package osdtest
