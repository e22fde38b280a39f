package peers

import (
	"github.com/haulback/haulback/bench/measure"
	"github.com/haulback/haulback/bench/result"
)

// limits are what no comparison of two disks can be faster than: reading both,
// and reading and hashing both, each on the core of its end.
func limits() []Peer {
	both := func(args ...string) func(*Kit, Job) (Plan, error) {
		return func(_ *Kit, j Job) (Plan, error) {
			return Plan{Clients: []measure.Command{
				{End: result.Source, Args: append(args[:len(args):len(args)], j.Disks[0].Source)},
				{End: result.Target, Args: append(args[:len(args):len(args)], j.Disks[0].Target)},
			}}, nil
		}
	}
	same := []result.Case{result.Same}
	return []Peer{
		{Name: "cat", Title: "limit: read both files", Reads: true, Cases: same, plan: both("cat")},
		{Name: "b3sum", Title: "limit: read and BLAKE3 both files, one thread each", Reads: true, Cases: same, tools: []string{"b3sum"}, plan: both("b3sum", "--num-threads", "1")},
	}
}
