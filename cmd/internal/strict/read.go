package strict

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// What Read says of a file beside the errors of package os. The caller names the file.
var (
	ErrNotFile = errors.New("not a file")
	ErrTooLong = errors.New("too long")
)

// Read is what stands in a file of at most so many bytes that a running daemon
// depends on. What stands there in its place must not hold it up, as a pipe does, nor
// fill its memory. Flags are more of those of open(2).
func Read(path string, most int64, flags int) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|flags, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, ErrNotFile
	}
	b, err := io.ReadAll(io.LimitReader(f, most+1))
	if err == nil && int64(len(b)) > most {
		err = ErrTooLong
	}
	return b, err
}
