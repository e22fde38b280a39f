package job

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// crash is a rig on a copy of r's file, as kill -9 would leave it; r knows
// nothing of it and may go on.
func crash(t testing.TB, r *rig, c Config) *rig {
	t.Helper()
	n := &rig{t: t, path: filepath.Join(scratch(t), "jobs.db"), conf: c}
	f, err := os.OpenFile(n.path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		err = errors.Join(r.db.Copy(f), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	n.open()
	t.Cleanup(n.close)
	return n
}
