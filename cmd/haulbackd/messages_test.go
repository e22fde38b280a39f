package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestMessages: what the manual says that a command or a log will say is what the
// programs say, word for word.
func TestMessages(t *testing.T) {
	doc, err := os.ReadFile("../../docs/operation.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, ok := strings.Cut(string(doc), "\nThe ten faults ")
	if !ok {
		t.Fatal("docs/operation.md has no list of faults")
	}
	text, _, _ = strings.Cut(text, "\n## ")
	if n := strings.Count(text, "\n### "); n != 10 {
		t.Errorf("the ten faults are %d", n)
	}
	// Of the kernel, by the names that Go gives them.
	said := "permission denied\x00operation not permitted\x00no space left on device\x00device or resource busy\x00" + literals(t)
	count := 0
	for _, p := range regexp.MustCompile(`(?s)(?:Command|Log|peer's log|comes|changes nothing): (.*?)(?:\n\n|\. Exit|, exit)`).FindAllStringSubmatch(text, -1) {
		for _, m := range regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(p[1], -1) {
			count++
			words := strings.Join(strings.Fields(m[1]), " ")
			for part := range strings.SplitSeq(words, " ... ") {
				if !strings.Contains(said, part) {
					t.Errorf("the manual quotes %q, which no program says", part)
				}
			}
		}
	}
	if count < 15 {
		t.Errorf("%d messages found in the manual, want 15 at least", count)
	}
}

// literals is every string constant of the programs.
func literals(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	for _, dir := range []string{"cmd", "mover", "wire", "vddk", "hostctl", "cbt"} {
		err := filepath.WalkDir("../../"+dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
					s, _ := strconv.Unquote(l.Value) // the parser has seen that it is one
					b.WriteString(s + "\x00")
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}
