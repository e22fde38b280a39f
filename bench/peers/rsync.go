package peers

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/haulback/haulback/bench/measure"
	"github.com/haulback/haulback/bench/result"
)

// rsync is the daemon of rsync, without ssh: no encryption that would cost it
// time. -I: it may not look at size and time only.
func rsync() []Peer {
	with := func(args ...string) func(*Kit, Job) (Plan, error) {
		return func(_ *Kit, j Job) (Plan, error) { return rsyncPlan(j, args) }
	}
	tools := []string{"rsync"}
	return []Peer{
		{
			Name: "rsync", Variant: "delta", Title: "rsync daemon, delta with blocks of 64 KiB", Cases: deltas, tools: tools,
			plan: with("-I", "--inplace", "--no-whole-file", "--block-size=65536"),
		},
		{
			Name: "rsync", Variant: "whole", Title: "rsync daemon, whole file", Cases: full, tools: tools,
			plan: with("-I", "--inplace", "--whole-file"),
		},
	}
}

func rsyncPlan(j Job, args []string) (Plan, error) {
	dir, name := filepath.Split(j.Disks[0].Target)
	config := filepath.Join(j.Dir, "rsyncd.conf")
	text := fmt.Sprintf("use chroot = no\nuid = %d\ngid = %d\n[disk]\npath = %s\nread only = no\n", os.Getuid(), os.Getgid(), dir)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return Plan{}, err
	}
	client := append([]string{"rsync"}, args...)
	client = append(client, j.Disks[0].Source, fmt.Sprintf("rsync://127.0.0.1:%d/disk/%s", port, name))
	return Plan{
		Servers: []Server{{
			Command: measure.Command{
				End: result.Target, Stderr: filepath.Join(j.Dir, "rsyncd.log"),
				Args: []string{"rsync", "--daemon", "--no-detach", "--address=127.0.0.1", fmt.Sprintf("--port=%d", port), "--config=" + config, "--log-file=/dev/stderr"},
			}, TCP: port,
		}},
		Clients: []measure.Command{{End: result.Source, Args: client, Stderr: filepath.Join(j.Dir, "rsync.log")}},
	}, nil
}

// bdsync compares hashes over a socket and makes a patch, which is applied in a
// second step: both are timed, in a pipe, as its manual shows.
func bdsync() []Peer {
	return []Peer{{
		Name: "bdsync", Variant: "sha256", Title: "bdsync over socat, sha256 of 64 KiB, patch in a pipe", Cases: deltas,
		tools: []string{"bdsync", "socat"}, plan: bdsyncPlan,
	}}
}

func bdsyncPlan(_ *Kit, j Job) (Plan, error) {
	const patch = port + 1
	log := func(name string) string { return filepath.Join(j.Dir, name) }
	// A shell waits for both ends of its pipe: a socat that runs the patch itself does not wait for it.
	apply := fmt.Sprintf("set -o pipefail; socat -u TCP-LISTEN:%d,bind=127.0.0.1,reuseaddr - | bdsync --patch=%s", patch, shell(j.Disks[0].Target))
	script := fmt.Sprintf("set -o pipefail; bdsync -b 65536 -h sha256 'socat - TCP:127.0.0.1:%d' %s %s | socat -u - TCP:127.0.0.1:%d", port, shell(j.Disks[0].Source), shell(j.Disks[0].Target), patch)
	return Plan{
		Servers: []Server{
			{Command: measure.Command{
				End: result.Target, Stderr: log("server.log"),
				Args: []string{"socat", fmt.Sprintf("TCP-LISTEN:%d,bind=127.0.0.1,reuseaddr", port), "EXEC:bdsync --server"},
			}, TCP: port},
			{Command: measure.Command{
				End: result.Target, Stderr: log("patch.log"),
				Args: []string{"bash", "-c", apply},
			}, TCP: patch, Finish: true},
		},
		Clients: []measure.Command{{End: result.Source, Args: []string{"bash", "-c", script}, Stderr: log("bdsync.log")}},
	}, nil
}
