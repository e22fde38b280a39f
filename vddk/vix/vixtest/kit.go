package vixtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

// Kit builds what tests need once: the library as each release, and the worker.
// It is meant to be a variable of a test package, whose TestMain calls Remove.
type Kit struct {
	mu    sync.Mutex // one build at a time
	dir   string
	built map[string]error
}

// Remove removes what was built.
func (k *Kit) Remove() {
	if k.dir != "" {
		os.RemoveAll(k.dir)
	}
}

// once runs build the first time that name is asked for, and returns its error
// each time.
func (k *Kit) once(t testing.TB, name string, build func(dir string) error) string {
	t.Helper()
	if _, err := exec.LookPath("gcc"); err != nil || runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		t.Skip("no gcc on linux/amd64: nothing of the VDDK can be built")
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.dir == "" {
		dir, err := os.MkdirTemp("", "vixtest-")
		if err != nil {
			t.Fatal(err)
		}
		k.dir, k.built = dir, map[string]error{}
	}
	dir := filepath.Join(k.dir, name)
	if _, done := k.built[name]; !done {
		k.built[name] = errors.Join(os.Mkdir(dir, 0o700), build(dir))
	}
	if err := k.built[name]; err != nil {
		t.Fatal(err)
	}
	return dir
}

// Worker is the path of haulback-vddk, with the race detector when raced.
func (k *Kit) Worker(t testing.TB, raced bool) string {
	t.Helper()
	dir := k.once(t, "worker", func(dir string) error {
		args := []string{"build", "-o", dir + "/"}
		if raced {
			args = append(args, "-race")
		}
		cmd := exec.Command("go", append(args, "github.com/haulback/haulback/cmd/haulback-vddk")...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=1")
		return run(cmd)
	})
	return filepath.Join(dir, "haulback-vddk")
}

// majors are the numbers in the file name that the releases have.
var majors = map[int]int{65: 6, 67: 6, 70: 7, 80: 8}

// Library is the library as release version: 65, 67, 70 or 80, for 6.5 to 8.0,
// in a folder of its own.
func (k *Kit) Library(t testing.TB, version int) *Library {
	t.Helper()
	dir := k.once(t, fmt.Sprint(version), func(dir string) error { return buildLibrary(dir, version) })
	l := &Library{Dir: t.TempDir(), t: t}
	l.mkdir("lib64")
	l.mkdir("test")
	files, err := filepath.Glob(dir + "/*")
	for _, f := range files {
		err = errors.Join(err, os.Link(f, l.path("lib64", filepath.Base(f))))
	}
	if err != nil {
		t.Fatal(err)
	}
	l.Set("user=root\npassword=secret-of-the-test\nthumbprint=" + Thumbprint)
	return l
}

func buildLibrary(dir string, version int) error {
	sources, err := source("vixdisklib/*.c")
	if err != nil {
		return err
	}
	beside, err := source("beside.c")
	if err != nil {
		return err
	}
	name := fmt.Sprintf("libvixDiskLib.so.%d", majors[version])
	// A library beside it, as the real one has many: found by LD_LIBRARY_PATH only.
	lib := filepath.Join(dir, "libvixtestbeside.so")
	if err := cc(lib, "-shared", "-fPIC", "-Wl,-soname,libvixtestbeside.so", beside[0]); err != nil {
		return err
	}
	return cc(filepath.Join(dir, name), append([]string{
		"-shared", "-fPIC", "-fvisibility=hidden", "-Wl,-Bsymbolic", "-Wl,-soname," + name,
		fmt.Sprintf("-DVERSION=%d", version), "-Wl,--no-as-needed", lib, "-lpthread",
	}, sources...)...)
}

// CC compiles out with gcc from files of vddk/vix/testdata, named in args.
func (k *Kit) CC(t testing.TB, name, file string, args ...string) string {
	t.Helper()
	return filepath.Join(k.once(t, name, func(dir string) error {
		from, err := source(file)
		if err != nil {
			return err
		}
		return cc(filepath.Join(dir, name), append(from, args...)...)
	}), name)
}

func cc(out string, args ...string) error {
	return run(exec.Command("gcc", append([]string{"-O1", "-g", "-Wall", "-Wextra", "-Werror", "-o", out}, args...)...))
}

func run(cmd *exec.Cmd) error {
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w\n%s", cmd, err, text)
	}
	return nil
}

// source finds files in vddk/vix/testdata.
func source(pattern string) ([]string, error) {
	dir, err := exec.Command("go", "list", "-f", "{{.Dir}}", "github.com/haulback/haulback/vddk/vix").Output()
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(string(dir[:max(0, len(dir)-1)]), "testdata", pattern))
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("no %s in the testdata of vddk/vix", pattern)
	}
	return files, err
}
