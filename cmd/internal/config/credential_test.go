package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTokenCredential: a token of systemd is taken although its mode shows a group,
// any other such file is not, and who is no service is told and not stopped.
func TestTokenCredential(t *testing.T) {
	dir := t.TempDir()
	token, file := filepath.Join(dir, "px"), filepath.Join(dir, "haulbackd.toml")
	load := func(name string) (*Config, error) {
		t.Helper()
		text := "state_dir = \"" + dir + "\"\n[[openstorage]]\nname = \"px\"\nendpoint = \"px.example.org:9020\"\ntoken_file = \"" + name + "\"\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return Load(file)
	}
	if err := os.WriteFile(token, []byte("word"), 0o440); err != nil {
		t.Fatal(err)
	}
	t.Setenv(credential, "")
	if _, err := load(token); err == nil || !strings.Contains(err.Error(), "0440") {
		t.Errorf("a file that a group may read: %v, want a refusal", err)
	}
	cfg, err := load("px")
	if err != nil || !strings.Contains(strings.Join(cfg.Warnings, "\n"), "LoadCredential=px:") {
		t.Errorf("a credential where there are none: %v, want a warning with the line of the unit", err)
	}
	t.Setenv(credential, dir)
	if cfg, err = load("px"); err != nil || cfg.OpenStorage[0].TokenFile != token {
		t.Errorf("a credential: %v", err)
	}
	if _, err := load("py"); err == nil {
		t.Error("a credential that was not loaded goes through")
	}
}
