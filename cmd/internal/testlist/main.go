// Command testlist reads "go test -json" and tells it to people: a line when a
// package is done, everything a failed test printed, and in the end which tests
// were skipped and why.
//
//	go test -json ./... | testlist -record out/race.tests
//	testlist -skips deploy/ci/skips.txt out/*.tests
//
// The first form exits with 1 when a test failed or nothing was run. The second
// looks at what several runs have recorded: a test counts as skipped when it
// passed in none of them. Each skip has to match a line of the file of skips
// that are in order, else the exit code is 1: a test that is skipped in silence
// proves nothing.
//
// Not promised: that the list of allowed skips is minimal.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
)

func main() {
	record := flag.String("record", "", "`FILE` for the result of each test")
	skips := flag.String("skips", "", "`FILE` of skips that are in order; judge the recorded files that are named")
	flag.Parse()
	var err error
	if *skips != "" {
		err = judge(os.Stdout, *skips, flag.Args())
	} else {
		err = follow(os.Stdin, os.Stdout, *record)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testlist:", err)
		os.Exit(1)
	}
}

// event is a line of "go test -json".
type event struct {
	Action  string
	Package string
	Test    string
	Elapsed float64
	Output  string
}

func (e *event) name() string {
	return strings.TrimPrefix(e.Package, "github.com/haulback/haulback/") + " " + e.Test
}

// results are what one run came to.
type results struct {
	printed map[string][]string // by test, until it has passed
	lines   []string            // for the record
	passed  int
	failed  []string
}

// follow tells the run on in, and records it.
func follow(in io.Reader, out io.Writer, record string) error {
	r := results{printed: map[string][]string{}}
	s := bufio.NewScanner(in)
	s.Buffer(nil, 16<<20) // a test may print a long line
	for s.Scan() {
		var e event
		if json.Unmarshal(s.Bytes(), &e) != nil || e.Action == "" {
			fmt.Fprintln(out, s.Text()) // what go itself says
			continue
		}
		r.take(&e, out)
	}
	if err := s.Err(); err != nil {
		return err
	}
	if record != "" {
		if err := os.WriteFile(record, []byte(strings.Join(r.lines, "")), 0o644); err != nil {
			return err
		}
	}
	if len(r.failed) > 0 {
		return fmt.Errorf("failed: %s", strings.Join(r.failed, ", "))
	}
	if r.passed == 0 {
		return fmt.Errorf("no test was run")
	}
	fmt.Fprintf(out, "   %d tests passed\n", r.passed)
	return nil
}

func (r *results) take(e *event, out io.Writer) {
	name := e.name()
	switch e.Action {
	case "output", "build-output":
		r.printed[name] = append(r.printed[name], e.Output)
		return
	case "pass", "skip", "fail", "build-fail":
	default:
		return
	}
	if e.Action == "fail" || e.Action == "build-fail" {
		r.failed = append(r.failed, strings.TrimSpace(name))
		fmt.Fprint(out, strings.Join(r.printed[name], ""))
	}
	if e.Test == "" {
		if e.Action != "skip" { // no test files
			fmt.Fprintf(out, "   %-4s %s (%.1f s)\n", e.Action, strings.TrimSpace(name), e.Elapsed)
		}
	} else {
		if e.Action == "pass" {
			r.passed++
			fmt.Fprint(out, figures(r.printed[name]))
		}
		r.lines = append(r.lines, e.Action+"\t"+name+"\t"+reason(r.printed[name])+"\n")
	}
	delete(r.printed, name)
}

// figures are the lines in which a test that passed says what it has measured.
func figures(printed []string) (text string) {
	for _, line := range printed {
		if _, figure, ok := strings.Cut(line, "figure: "); ok {
			text += "   " + strings.TrimSpace(figure) + "\n"
		}
	}
	return text
}

// frame matches what the testing package prints around a test's own words.
var frame = regexp.MustCompile(`^\s*(=== |--- )`)

// reason is what a test said last.
func reason(printed []string) (text string) {
	for _, line := range printed {
		if !frame.MatchString(line) && strings.TrimSpace(line) != "" {
			text = strings.TrimSpace(line)
		}
	}
	return text
}

// judge lists the tests that passed in no recorded run.
func judge(out io.Writer, allowedFile string, records []string) error {
	allowed, err := patterns(allowedFile)
	if err != nil {
		return err
	}
	passed, skipped := map[string]bool{}, map[string]string{}
	for _, file := range records {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(text)) {
			f := strings.SplitN(strings.TrimSuffix(line, "\n"), "\t", 3)
			switch {
			case len(f) == 3 && f[0] == "pass":
				passed[f[1]] = true
			case len(f) == 3 && f[0] == "skip":
				skipped[f[1]] = f[2]
			}
		}
	}
	for name := range passed {
		delete(skipped, name)
	}
	return tell(out, skipped, allowed)
}

func tell(out io.Writer, skipped map[string]string, allowed []*regexp.Regexp) error {
	var names []string
	for name := range skipped {
		names = append(names, name)
	}
	slices.Sort(names)
	wrong := 0
	for _, name := range names {
		line := name + ": " + skipped[name]
		mark := "in order"
		if !slices.ContainsFunc(allowed, func(re *regexp.Regexp) bool { return re.MatchString(line) }) {
			mark, wrong = "NOT IN ORDER", wrong+1
		}
		fmt.Fprintf(out, "   %-12s %s\n", mark, line)
	}
	fmt.Fprintf(out, "   %d skipped\n", len(names))
	if wrong > 0 {
		return fmt.Errorf("%d tests were skipped that this machine could have run", wrong)
	}
	return nil
}

// patterns reads one regular expression a line; # begins a comment.
func patterns(file string) (list []*regexp.Regexp, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		re, err := regexp.Compile(line)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		list = append(list, re)
	}
	return list, nil
}
