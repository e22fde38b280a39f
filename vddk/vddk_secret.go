package vddk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/haulback/haulback/vddk/worker/control"
)

// maxSecret bounds a file in bytes: a cookie has a few hundred.
const maxSecret = 16 << 10

// readSecret reads a file that nobody else may read. A line feed at its end is
// not part of the secret.
func readSecret(what, path string) (control.Secret, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe must not hold it up
	if err != nil {
		return "", fmt.Errorf("%s file: %w", what, err)
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return "", fmt.Errorf("%s file %s: %w", what, path, err)
	}
	if err := mayTrust(&st); err != nil {
		return "", fmt.Errorf("%s file %s: %w", what, path, err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return "", fmt.Errorf("%s file: %w", what, err)
	}
	s := strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r")
	switch {
	case len(b) > maxSecret:
		return "", fmt.Errorf("%s file %s: more than %d bytes", what, path, maxSecret)
	case s == "" || strings.ContainsAny(s, "\x00\n"):
		return "", fmt.Errorf("%s file %s: not one line of text", what, path)
	}
	return control.Secret(s), nil
}

func mayTrust(st *unix.Stat_t) error {
	switch uid := uint32(os.Geteuid()); {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return errors.New("not a file")
	case st.Mode&0o077 != 0:
		return fmt.Errorf("mode %04o lets others read it; chmod 600 it", st.Mode&0o7777)
	case st.Uid != uid && st.Uid != 0:
		return fmt.Errorf("it belongs to user %d, not to %d or root; chown it", st.Uid, uid)
	}
	return nil
}
