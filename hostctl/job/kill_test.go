package job

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/haulback/haulback/hostctl/store/bolt"
)

const childVar = "HAULBACK_JOB_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childVar); dir != "" {
		child(dir)
	}
	os.Exit(m.Run())
}

// child is a daemon that takes jobs, tells what it has answered, and is killed.
func child(dir string) {
	fail := func(err error) {
		if err != nil {
			fmt.Println("FAIL", err)
			os.Exit(1)
		}
	}
	db, err := bolt.Open(bolt.Config{Path: filepath.Join(dir, "jobs.db"), Deliveries: 1000})
	fail(err)
	ctx := context.Background()
	e, err := Open(ctx, Config{
		Store: db, Queue: db, Lease: db, Log: quiet, Transfer: onDisk(dir),
		MaxActive: 40, MaxEnded: 100000, Persist: 3 * time.Millisecond, Heartbeat: 10 * time.Millisecond,
	})
	fail(err)
	go func() { fail(e.Run(ctx)) }()
	say := func(what, id string, err error) {
		if err == nil {
			fmt.Println(what, id)
		}
	}
	var ids []string
	fmt.Println("READY")
	for i := 0; ; i++ {
		id := fmt.Sprintf("p%d-%d", os.Getpid(), i)
		_, _, err := e.Submit(ctx, id, "o", two(), nil)
		say("SUBMITTED", id, err)
		ids = append(ids, id)
		id = ids[rand.IntN(len(ids))]
		switch rand.IntN(5) {
		case 0:
			_, err := e.Pause(ctx, id)
			say("PAUSED", id, err)
		case 1:
			_, err := e.Resume(ctx, id)
			say("RESUMED", id, err)
		case 2:
			if rand.IntN(3) == 0 {
				_, err := e.Cancel(ctx, id)
				say("CANCELED", id, err)
			}
		}
		time.Sleep(time.Duration(rand.IntN(3)) * time.Millisecond)
	}
}

// onDisk is a transfer whose doings outlive the process: a lock that is held
// while it runs, and a file that says Verified.
func onDisk(dir string) Transfer {
	return func(ctx context.Context, k *Task) (Outcome, error) {
		f, err := os.OpenFile(filepath.Join(dir, "lock."+k.Run), os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return Outcome{}, err
		}
		defer f.Close()
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			return Outcome{}, os.WriteFile(filepath.Join(dir, "TWICE"), []byte(k.Job), 0o600)
		}
		k.Moving()
		for i := range int64(rand.IntN(6)) {
			select {
			case <-time.After(time.Millisecond):
				k.Progress(Counters{Scanned: i})
			case <-ctx.Done():
				return Outcome{}, ctx.Err()
			}
		}
		return Outcome{Verified: true}, os.WriteFile(filepath.Join(dir, "verified."+k.Run), nil, 0o600)
	}
}

// TestKill kills a daemon in the middle of its work, again and again, and then
// holds what it had answered against what became of it.
func TestKill(t *testing.T) {
	t.Parallel()
	rounds := 50
	if testing.Short() {
		rounds = 10
	}
	dir := scratch(t)
	said := map[string][]string{} // by job
	begun := 0
	for round := range rounds {
		lines := killed(t, dir, time.Duration(rand.IntN(120))*time.Millisecond)
		for _, line := range lines {
			what, id, _ := strings.Cut(line, " ")
			switch what {
			case "SUBMITTED", "PAUSED", "RESUMED", "CANCELED":
				said[id] = append(said[id], what)
			case "READY":
				begun++
			default:
				t.Fatalf("round %d: %s", round, line)
			}
		}
	}
	if begun != rounds || len(said) < rounds {
		t.Errorf("%d of %d daemons began, %d jobs: nothing was tested", begun, rounds, len(said))
	}
	db, err := bolt.Open(bolt.Config{Path: filepath.Join(dir, "jobs.db")})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, db: db, path: filepath.Join(dir, "jobs.db"), conf: Config{Transfer: onDisk(dir), MaxEnded: 100000}}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	r.open()
	t.Cleanup(func() { r.close() })
	r.run()
	count := map[Phase]int{}
	for id, what := range said {
		if what[0] != "SUBMITTED" {
			continue // its answer was cut off; what followed was about it
		}
		j := r.until(id, "the end", func(j Job) bool {
			if j.Phase == Paused {
				_, _ = r.e.Resume(context.Background(), id)
			}
			return j.Phase.Ended()
		})
		count[j.Phase]++
		for _, d := range j.Disks {
			_, err := os.Stat(filepath.Join(dir, "verified."+d.Run))
			if d.Phase == Completed && (err != nil || !d.Outcome.Verified) {
				t.Errorf("job %s disk %s is Completed and was never Verified", id, d.Name)
			}
		}
		asked := strings.Contains(strings.Join(what, " "), "CANCELED")
		switch {
		case j.Phase == Failed:
			t.Errorf("job %s failed: %v", id, j.Failure)
		case j.Phase == Completed && asked && (j.Disks[0].Phase != Completed || j.Disks[1].Phase != Completed):
			t.Errorf("job %s: the cancel was lost", id)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "TWICE")); err == nil {
		t.Error("a run ran twice at once")
	}
	t.Logf("%d jobs over %d kills: %v", len(said), rounds, count)
	if count[Completed] == 0 || count[Canceled] == 0 && !testing.Short() { // few are asked to
		t.Errorf("%v: nothing was tested", count)
	}
}

// killed runs a daemon for a while after it is ready, kills it, and answers what
// it has said.
func killed(t *testing.T, dir string, after time.Duration) (lines []string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childVar+"="+dir)
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	for s := bufio.NewScanner(out); s.Scan(); {
		lines = append(lines, s.Text())
		once.Do(func() {
			time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		})
	}
	_ = cmd.Wait() // killed
	return lines
}
