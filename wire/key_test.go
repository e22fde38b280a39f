package wire_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/haulback/haulback/wire"
)

func TestKeyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	key, err := wire.CreateKey(path)
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	loaded, err := wire.LoadKey(path)
	if err != nil || loaded.ID() != key.ID() {
		t.Fatalf("loaded another key, or %v", err)
	}
	before, _ := os.ReadFile(path)
	if _, err := wire.CreateKey(path); !errors.Is(err, os.ErrExist) {
		t.Errorf("second CreateKey: %v", err)
	}
	if after, _ := os.ReadFile(path); string(after) != string(before) {
		t.Error("CreateKey replaced a key")
	}
}

func TestKeyModes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	if _, err := wire.CreateKey(path); err != nil {
		t.Fatal(err)
	}
	for mode := os.FileMode(0o400); mode <= 0o777; mode++ {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		_, err := wire.LoadKey(path)
		if exposed := mode&0o077 != 0; exposed != errors.Is(err, wire.ErrKeyExposed) {
			t.Fatalf("mode %04o: %v", mode, err)
		} else if exposed && !strings.Contains(err.Error(), "chmod 600 "+path) {
			t.Fatalf("no remedy in %q", err)
		}
	}
}

func TestKeyBadFiles(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(other)
	if err != nil {
		t.Fatal(err)
	}
	paths := map[string]string{"directory": dir, "fifo": fifo}
	for name, text := range map[string]string{
		"empty":   "",
		"text":    "secret words",
		"garbage": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret words")})),
		"cert":    string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		"ecdsa":   string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	} {
		paths[name] = filepath.Join(dir, name)
		if err := os.WriteFile(paths[name], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, path := range paths {
		_, err := wire.LoadKey(path)
		if !errors.Is(err, wire.ErrBadKey) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v, want ErrBadKey that quotes nothing", name, err)
		}
	}
	if _, err := wire.LoadKey(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// TestKeyRedacted prints a key in every way and looks for its bytes.
func TestKeyRedacted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	key, err := wire.CreateKey(path)
	if err != nil {
		t.Fatal(err)
	}
	text, _ := os.ReadFile(path)
	block, _ := pem.Decode(text)
	seed := block.Bytes[len(block.Bytes)-32:]
	var out strings.Builder
	slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "key", key)
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "key", key)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		fmt.Fprintf(&out, verb+"\n", key)
	}
	for _, secret := range []string{string(seed), fmt.Sprintf("%x", seed[:8]), fmt.Sprintf("%X", seed[:8]), fmt.Sprint(seed[:8])[1:20]} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("the key shows in:\n%s", out.String())
		}
	}
	if !strings.Contains(out.String(), key.ID().String()) {
		t.Errorf("the ID does not show in:\n%s", out.String())
	}
}
