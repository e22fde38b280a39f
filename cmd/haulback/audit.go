package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/hostctl/audit"
	"github.com/haulback/haulback/wire"
)

func auditCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{Use: "audit", Short: "Show and check the record of who was let in, and who was not", Args: cobra.NoArgs}
	cmd.AddCommand(auditVerifyCommand(g), auditShowCommand(g))
	return cmd
}

func auditVerifyCommand(g *global) *cobra.Command {
	var heads []string
	var any bool
	cmd := &cobra.Command{
		Use: "verify [FILE|DIR]", Short: "Check that nobody has changed the record", Args: cobra.MaximumNArgs(1),
		Long: `Check that nobody has changed the record: each line, its chain, the signatures, and
its end. Print the head. Keep heads on another machine and name them with --head:
then a record that was cut or written anew is found even if the key was used for it.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := g.site()
			if err != nil {
				return err
			}
			path := s.AuditDir()
			if len(args) > 0 {
				path = args[0]
			}
			c := audit.Check{Trusted: s.Signs}
			if any {
				c.Trusted = nil
			}
			for _, text := range heads {
				var h audit.Hash
				if err := h.UnmarshalText([]byte(text)); err != nil {
					return &exitcode.UsageError{Err: err}
				}
				c.Heads = append(c.Heads, h)
			}
			res, err := audit.Verify(path, c)
			if err != nil {
				return noRecord(err, path)
			}
			return g.verdict(cmd, &res)
		},
	}
	cmd.Flags().StringArrayVar(&heads, "head", nil, "a `HASH` that an earlier verify printed; it has to be in the record. May be repeated")
	cmd.Flags().BoolVar(&any, "any-key", false, "the record is of another site: do not ask whose signatures they are")
	return cmd
}

// noRecord says of a record that is not there what that means.
func noRecord(err error, path string) error {
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return usage("audit: there is no record at %s: the first pairing, or start of the daemon, begins it, and where there was one somebody took it away; for another site name its directory, or --state-dir", path)
}

// verdict prints what a check found.
func (g *global) verdict(cmd *cobra.Command, res *audit.Result) error {
	out, places, notes := cmd.OutOrStdout(), []string{}, []string{}
	for _, p := range res.Problems {
		places = append(places, p.String())
	}
	for _, n := range res.Notes {
		notes = append(notes, n.String())
	}
	if !g.json {
		for _, p := range res.Problems {
			fmt.Fprintln(out, "CHANGED", p)
		}
		for _, n := range res.Notes {
			fmt.Fprintln(out, "note   ", n)
		}
	}
	word := "unchanged"
	if len(places) > 0 {
		word = "CHANGED"
	}
	err := g.print(cmd, map[string]any{"records": res.Records, "first": res.First, "last": res.Last, "head": res.Head.String(), "signed": res.Signed, "problems": places, "notes": notes},
		fmt.Sprintf("%s: %d records, %d to %d, signed up to %d\nhead %v", word, res.Records, res.First, res.Last, res.Signed, res.Head))
	if err == nil && len(places) > 0 {
		// With the exit code of a disk that is not proved.
		err = wire.Errorf(wire.CodeVerify, "the record was changed by somebody, or is not whole")
	}
	return err
}

func auditShowCommand(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "show [FILE|DIR]", Short: "Print the record", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := g.site()
			if err != nil {
				return err
			}
			path := s.AuditDir()
			if len(args) > 0 {
				path = args[0]
			}
			var failed error
			res, err := audit.Verify(path, audit.Check{Each: func(r audit.Record) {
				text := fmt.Sprintf("%6d %s  %-18s %-16s %s %s", r.Seq, r.Time.Format(time.RFC3339), plain(r.Actor), plain(r.Action), plain(r.Object), plain(r.Outcome))
				for _, k := range sortedKeys(r.Details) {
					if r.Action != "audit.head" {
						text += fmt.Sprintf(" %s=%q", plain(k), r.Details[k])
					}
				}
				if failed == nil {
					failed = g.printRecord(cmd, &r, text)
				}
			}})
			if err := errors.Join(err, failed); err != nil {
				return noRecord(err, path)
			}
			return g.endRecords(cmd, path, &res)
		},
	}
}

// recordLine is a record in JSON: time is that of the line, in every line.
type recordLine struct {
	Seq     uint64            `json:"seq"`
	At      time.Time         `json:"at"`
	Actor   string            `json:"actor"`
	Action  string            `json:"action"`
	Object  string            `json:"object"`
	Outcome string            `json:"outcome"`
	Details map[string]string `json:"details,omitempty"`
	Hash    string            `json:"hash"`
}

func (g *global) printRecord(cmd *cobra.Command, r *audit.Record, text string) error {
	if !g.json {
		return g.print(cmd, nil, text)
	}
	return report.WriteLine(cmd.OutOrStdout(), report.TypeRecord, recordLine{r.Seq, r.Time, r.Actor, r.Action, r.Object, r.Outcome, r.Details, r.Hash.String()})
}

// endRecords says that a list is complete, and whether to believe it.
func (g *global) endRecords(cmd *cobra.Command, path string, res *audit.Result) error {
	if len(res.Problems) > 0 {
		text := fmt.Sprintf("%s was changed by somebody, or is not whole, as in %v; see haulback audit verify %s", path, res.Problems[0], path)
		if !g.json {
			fmt.Fprintln(cmd.ErrOrStderr(), "WARNING:", text)
		} else if err := report.WriteLine(cmd.OutOrStdout(), report.TypeWarning, report.Text{Text: text}); err != nil {
			return err
		}
	}
	if !g.json {
		return nil
	}
	return report.WriteLine(cmd.OutOrStdout(), report.TypeSummary, map[string]any{"records": res.Records, "head": res.Head.String()})
}

// plain is a text of strangers on one line of a terminal: the path of a call that
// was refused, the name in a certificate.
func plain(text string) string {
	if strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) || !utf8.ValidString(text) {
		return strconv.Quote(text)
	}
	return text
}
