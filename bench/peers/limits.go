package peers

import (
	"fmt"
	"path/filepath"

	"github.com/haulback/haulback/bench/measure"
	"github.com/haulback/haulback/bench/result"
)

// readers are the calls that the limit of the disk has under way at once, as many
// as a target of haulback's.
const readers = 8

// limits are what no comparison of two disks can be faster than: reading both,
// and reading and hashing both, each on the core of its end; and, for one that
// does not believe the page cache, reading the target past it.
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
		{Name: "fio", Variant: "direct", Title: "limit: read the target with O_DIRECT, 8 calls of 1 MiB at once", Reads: true, Cases: same, tools: []string{"fio"}, plan: direct},
	}
}

func direct(_ *Kit, j Job) (Plan, error) {
	part := fmt.Sprint((j.Size/readers + 1<<20 - 1) &^ (1<<20 - 1))
	return Plan{Clients: []measure.Command{{End: result.Target, Stderr: filepath.Join(j.Dir, "fio.log"), Args: []string{
		"fio", "--name=read", "--readonly", "--rw=read", "--direct=1", "--ioengine=psync", "--bs=1M", "--numjobs=" + fmt.Sprint(readers), "--thread",
		"--size=" + part, "--offset_increment=" + part, "--filename=" + j.Disks[0].Target, "--output=" + filepath.Join(j.Dir, "fio.out"),
	}}}}, nil
}
