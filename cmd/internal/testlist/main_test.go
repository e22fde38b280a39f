package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const stream = `{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:3: needs root\n"}
{"Action":"output","Package":"p","Test":"TestA","Output":"--- SKIP: TestA (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:9: got 1, want 2\n"}
{"Action":"RESULT","Package":"p","Test":"TestB"}
{"Action":"pass","Package":"p","Test":"TestC"}
`

func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFollow(t *testing.T) {
	tests := map[string]struct{ stream, out, err string }{
		"passed":      {strings.Replace(stream, "RESULT", "pass", 1), "2 tests passed", ""},
		"failed":      {strings.Replace(stream, "RESULT", "fail", 1), "got 1, want 2", "failed: p TestB"},
		"nothing run": {"", "", "no test was run"},
		"go's words":  {"go: cannot find main module\n", "cannot find main module", "no test was run"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			err := follow(strings.NewReader(tt.stream), &out, "")
			if text := errText(err); !strings.Contains(out.String(), tt.out) || !strings.Contains(text, tt.err) || tt.err == "" && text != "" {
				t.Errorf("printed %q, error %q; want %q and %q", out.String(), text, tt.out, tt.err)
			}
		})
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestJudge(t *testing.T) {
	record := filepath.Join(t.TempDir(), "record")
	if err := follow(strings.NewReader(strings.Replace(stream, "RESULT", "pass", 1)), &strings.Builder{}, record); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct{ allowed, second, out, err string }{
		"not allowed":      {"# nothing\n", "", "NOT IN ORDER p TestA: a_test.go:3: needs root", "1 tests were skipped"},
		"allowed":          {"^p TestA: .*needs root\n", "", "in order     p TestA", ""},
		"allowed for less": {"^p TestA: .*no disk\n", "", "NOT IN ORDER", "1 tests were skipped"},
		"run elsewhere":    {"", "pass\tp TestA\t\n", "0 skipped", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			err := judge(&out, file(t, "allowed", tt.allowed), []string{record, file(t, "second", tt.second)})
			if text := errText(err); !strings.Contains(out.String(), tt.out) || !strings.Contains(text, tt.err) || tt.err == "" && text != "" {
				t.Errorf("printed %q, error %q; want %q and %q", out.String(), text, tt.out, tt.err)
			}
		})
	}
}
