package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/haulback/haulback/bench/result"
)

// Reasons say why targets were missed, by target ("P7") or by target and text of
// a condition ("P7: full copy, ..."); of another place than the disk, with the
// place behind the target ("P7 in memory", "P7 in memory: full copy, ...").
type Reasons map[string]string

// ReadReasons reads a file of reasons; one that is not there has none.
func ReadReasons(path string) (Reasons, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reasons: %w", err)
	}
	defer f.Close()
	r, err := parseReasons(f)
	if err != nil {
		return nil, fmt.Errorf("reasons: %s: %w", path, err)
	}
	return r, nil
}

var isTarget = regexp.MustCompile(`^P[1-9][0-9]?( in memory| cold)?(: .+)?$`)

func parseReasons(in io.Reader) (Reasons, error) {
	var r Reasons
	d := json.NewDecoder(in)
	if err := d.Decode(&r); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, errors.New("something follows the object")
	}
	for key := range r {
		if !isTarget.MatchString(key) {
			return nil, fmt.Errorf("%q is no target: P1, P1 in memory or P1 cold, or one of these and a condition after a colon", key)
		}
	}
	return r, nil
}

// of is the reason for a check at a place, or nothing. What limits a disk is no
// reason in memory: each place has its own. That nobody gave one is said.
func (r Reasons) of(c *result.Check, p result.Place) string {
	target, where := c.Target, ""
	if p != result.OnDisk {
		target, where = target+" "+p.String(), p.String()+": "
	}
	switch {
	case c.Verdict == result.NotMeasured && p == result.OnDisk:
		return c.Why
	case c.Verdict != result.Missed:
		return ""
	}
	for _, key := range []string{target + ": " + c.Text, target} {
		if text, ok := r[key]; ok {
			return where + text
		}
	}
	return where + "not explained"
}

// Write puts page and pictures into dir, which it makes. Pictures of an earlier
// report that have no successor are removed.
func Write(dir string, r *result.Results, reasons Reasons) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	var drawn []string
	for _, p := range pictures {
		figure, err := p.draw(r)
		if err != nil {
			return fmt.Errorf("report: %s: %w", p.name, err)
		}
		if figure != nil {
			drawn = append(drawn, p.name)
		}
		if err := figure.save(filepath.Join(dir, p.name)); err != nil {
			return fmt.Errorf("report: %w", err)
		}
	}
	var page bytes.Buffer
	Markdown(&page, r, reasons, drawn)
	if err := os.WriteFile(filepath.Join(dir, "README.md"), page.Bytes(), 0o644); err != nil {
		return fmt.Errorf("report: %w", err)
	}
	return nil
}
