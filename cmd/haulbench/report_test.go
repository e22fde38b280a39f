package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
)

// execute runs haulbench.
func execute(t *testing.T, args ...string) (out string, code exitcode.Code) {
	t.Helper()
	var b bytes.Buffer
	cmd := command()
	cmd.SetArgs(args)
	cmd.SetOut(&b)
	cmd.SetErr(&b)
	err := cmd.ExecuteContext(t.Context())
	if err != nil {
		b.WriteString(err.Error())
	}
	return b.String(), exitcode.Of(err)
}

func TestReportMerges(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"results.jsonl": `{"setup":{"commit":"first"}}` + "\n" + `{"left_out":{"name":"rsync","why":"it is not there"}}` + "\n",
		"wan.jsonl":     `{"setup":{"commit":"second"}}` + "\n" + `{"left_out":{"name":"bdsync","why":"nor is this"}}` + "\n",
		"reasons.json":  `{"P1": "because"}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, code := execute(t, "report", "--out", dir); code != exitcode.Done {
		t.Fatalf("code %d: %s", code, out)
	}
	page, err := os.ReadFile(filepath.Join(dir, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]bool{"haulback first": true, "haulback second": false, "it is not there": true, "nor is this": true} {
		if strings.Contains(string(page), text) != want {
			t.Errorf("the page has %q: %v, want %v", text, !want, want)
		}
	}
}

func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	for _, args := range [][]string{
		{"report", "--out", dir},
		{"report", "--out", dir, filepath.Join(dir, "none.jsonl")},
		{"wan", "--bin", dir},
		{"wan", "--losses", "x"},
		{"wan", "--runs", "0"},
		{"wan", "--size", "1MiB"},
		{"wan", "extra"},
	} {
		if len(args) > 1 && args[1] != "--bin" && args[0] == "wan" {
			bin := t.TempDir()
			for _, program := range []string{"haulback", "haulbackd"} {
				if err := os.WriteFile(filepath.Join(bin, program), nil, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			args = append(args, "--bin", bin)
		}
		if out, code := execute(t, args...); code != exitcode.Usage {
			t.Errorf("%q: exit code %d, want %d: %s", args, code, exitcode.Usage, out)
		}
	}
}
