package osd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// maxToken bounds a token in bytes: gRPC servers take 8 KiB of headers and more.
const maxToken = 64 << 10

// secret is a token. No verb of fmt and no log shows it.
type secret string

// Format implements fmt.Formatter.
func (secret) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, "[token]") }

// LogValue implements slog.LogValuer.
func (secret) LogValue() slog.Value { return slog.StringValue("[token]") }

// tokenFile is the token of a profile, read again when its file is another one:
// what rotates tokens replaces the file, or writes into it.
type tokenFile struct {
	path    string
	granted bool

	mu    sync.Mutex
	value secret
	seen  fs.FileInfo // when value was read
}

// get is the token as it is now; an empty path has none. With again the file is
// read even if it looks the same.
func (t *tokenFile) get(again bool) (secret, error) {
	if t.path == "" {
		return "", nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	now, err := os.Stat(t.path)
	if err != nil {
		return "", fmt.Errorf("token_file: %w", err)
	}
	if !again && t.seen != nil && os.SameFile(now, t.seen) && now.ModTime().Equal(t.seen.ModTime()) &&
		now.Size() == t.seen.Size() && now.Mode() == t.seen.Mode() {
		return t.value, nil
	}
	value, seen, err := readToken(t.path, t.granted)
	if err != nil {
		return "", err
	}
	t.value, t.seen = value, seen
	return value, nil
}

// readToken reads a token's file and refuses what cannot be one.
func readToken(path string, granted bool) (secret, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", nil, fmt.Errorf("token_file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", nil, fmt.Errorf("token_file: %w", err)
	}
	wrong := func(text string) (secret, fs.FileInfo, error) {
		return "", nil, fmt.Errorf("token_file %s: %s", path, text)
	}
	switch m := info.Mode(); {
	case !m.IsRegular():
		return wrong("it is no file; write the path of one that has the token")
	case m.Perm()&0o077 != 0 && !granted:
		return wrong(fmt.Sprintf("others may read or write it (%04o); give it mode 0600", m.Perm()))
	}
	b, err := io.ReadAll(io.LimitReader(f, maxToken+1))
	s := strings.TrimSpace(string(b))
	switch {
	case err != nil:
		return "", nil, fmt.Errorf("token_file: %w", err)
	case len(b) > maxToken:
		return wrong(fmt.Sprintf("it is longer than %d bytes; is it the right file?", maxToken))
	case s == "":
		return wrong("it is empty, and without a token the server takes us for a guest; put a token into it")
	case strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }):
		return wrong("what is in it is no token: it is more than one word")
	}
	return secret(s), info, nil
}

// bearer shows a token to gRPC, which keeps it from a connection that is not safe.
type bearer struct {
	token secret
	local bool // the connection does not leave this machine
}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (b bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	if b.token == "" {
		return nil, errors.New("token_file: the token is empty")
	}
	return map[string]string{"authorization": "bearer " + string(b.token)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (b bearer) RequireTransportSecurity() bool { return !b.local }
