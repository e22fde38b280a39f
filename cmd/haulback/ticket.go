package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/hostctl/audit"
	"github.com/haulback/haulback/mover"
	"github.com/haulback/haulback/wire"
)

func ticketCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "ticket", Short: "Issue and show tickets, which open exports that want them", Args: cobra.NoArgs,
		Long: `Issue and show tickets, which open exports that want them.

A ticket lets two peers do one thing with one disk for at most 15 minutes. It is
signed with the key of this site, which the export names as a controller. It is no
secret: it is good only for the peers that it names.`,
	}
	cmd.AddCommand(ticketIssueCommand(g), ticketShowCommand(g))
	return cmd
}

// ticketFlags is what is asked for.
type ticketFlags struct {
	export, op, source, target, run, identity string
	size                                      int64
	pass                                      uint32
	epoch                                     uint64
	life                                      time.Duration
}

func ticketIssueCommand(g *global) *cobra.Command {
	var f ticketFlags
	cmd := &cobra.Command{
		Use: "issue --export NAME --op read|write|verify --source-peer PEER --target-peer PEER --run ID --device IDENTITY --size BYTES", Short: "Print a ticket signed with the key of this site", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := g.site()
			if err != nil {
				return err
			}
			key, err := s.Key()
			if err != nil {
				return err
			}
			peers, err := s.Peers()
			if err != nil {
				return peersError(err)
			}
			t, err := f.ticket(peers, key.ID())
			if err != nil {
				return &exitcode.UsageError{Err: err}
			}
			var b []byte
			err = recorded(cmd.Context(), s, audit.Entry{Action: "ticket.issued", Object: t.Export, Details: map[string]string{
				"op": t.Op.String(), "run": t.Run.String(), "source": f.source, "target": f.target, "epoch": fmt.Sprint(t.Epoch), "ttl": t.Life.String(),
			}}, func() (err error) {
				b, err = t.Sign(key, time.Now())
				return err
			})
			if errors.Is(err, wire.ErrBadTicket) {
				return &exitcode.UsageError{Err: err}
			}
			if err != nil {
				return err
			}
			text := wire.EncodeTicket(b)
			return g.print(cmd, map[string]string{"ticket": string(text)}, strings.TrimSuffix(string(text), "\n"))
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.export, "export", "", "`NAME` of the export that it opens")
	flags.StringVar(&f.op, "op", "", "read, write or verify")
	flags.StringVar(&f.source, "source-peer", "", "`PEER`, by name or ID, that reads its disk; \"self\" is this site")
	flags.StringVar(&f.target, "target-peer", "", "`PEER`, by name or ID, whose disk is written or compared; \"self\" is this site")
	flags.StringVar(&f.run, "run", "", "`ID` of the run, a UUID")
	flags.StringVar(&f.identity, "device", "", "`IDENTITY` of the disk, as \"haulback probe\" prints it")
	flags.Int64Var(&f.size, "size", 0, "size of the disk in `BYTES`")
	flags.Uint32Var(&f.pass, "pass", 0, "the only `PASS` it is for; 0: any")
	flags.Uint64Var(&f.epoch, "epoch", 1, "fence: a `NUMBER` that the disk has seen a higher one of is refused")
	flags.DurationVar(&f.life, "ttl", wire.MaxTicketLife, "how long it is good, at most 15m")
	for _, name := range []string{"export", "op", "source-peer", "target-peer", "run", "device", "size"} {
		_ = cmd.MarkFlagRequired(name) // the flag is there
	}
	return cmd
}

func (f *ticketFlags) ticket(peers site.Peers, self wire.ID) (*wire.Ticket, error) {
	run, err := uuid.Parse(f.run)
	if err != nil {
		return nil, fmt.Errorf("--run %q: %w", f.run, err)
	}
	t := &wire.Ticket{Run: wire.RunID(run), Pass: f.pass, Epoch: f.epoch, Life: f.life, Size: f.size, Export: f.export, Identity: f.identity}
	if t.Op, err = wire.ParseTicketOp(f.op); err != nil {
		return nil, err
	}
	if t.Source, err = peerNamed(peers, self, f.source); err == nil {
		t.Target, err = peerNamed(peers, self, f.target)
	}
	return t, err
}

func peerNamed(peers site.Peers, self wire.ID, name string) (wire.ID, error) {
	if name == "self" {
		return self, nil
	}
	if p, ok := peers.Named(name); ok {
		return p.ID, nil
	}
	id, err := wire.ParseID(name)
	if err != nil {
		return id, fmt.Errorf("no peer is called %q, and it is no ID; see: haulback peer list", name)
	}
	return id, nil
}

func ticketShowCommand(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "show FILE", Short: "Show what a ticket says and check its signature; - is standard input", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := readTicket(cmd.InOrStdin(), args[0])
			if err != nil {
				return err
			}
			t, err := wire.ParseTicket(b)
			if err != nil {
				return &exitcode.UsageError{Err: err}
			}
			good := "yes"
			if _, err := t.Good(time.Now()); err != nil {
				good = "no: " + err.Error()
			}
			signer := t.Signer().String()
			said := map[string]any{
				"export": t.Export, "op": t.Op.String(), "run": t.Run.String(), "pass": t.Pass, "epoch": t.Epoch, "source": t.Source.String(), "target": t.Target.String(),
				"device": t.Identity, "size": t.Size, "issued": t.Issued.UTC().Format(time.RFC3339), "ttl_seconds": int64(t.Life / time.Second),
				"nonce": hex.EncodeToString(t.Nonce[:]), "signer": signer, "good": good,
			}
			return g.print(cmd, said, fmt.Sprintf("export  %s\nop      %v\nrun     %v\npass    %d\nepoch   %d\nsource  %v\ntarget  %v\ndevice  %s\nsize    %d\nissued  %s for %v\nsigner  %s\ngood    %s",
				t.Export, t.Op, t.Run, t.Pass, t.Epoch, t.Source, t.Target, t.Identity, t.Size, t.Issued.UTC().Format(time.RFC3339), t.Life, signer, good))
		},
	}
}

// maxTicketText is more than the text of any ticket.
const maxTicketText = 4 << 10

// readTicket reads the ticket in a file.
func readTicket(stdin io.Reader, path string) ([]byte, error) {
	in := stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, &exitcode.UsageError{Err: fmt.Errorf("ticket: %w", err)}
		}
		defer f.Close() // only read
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxTicketText))
	if err != nil {
		return nil, fmt.Errorf("ticket: %w", err)
	}
	b, err := wire.DecodeTicket(text)
	if err != nil {
		return nil, &exitcode.UsageError{Err: fmt.Errorf("ticket %s: %w", path, err)}
	}
	return b, nil
}

// ticketFrom gives the ticket in the file at path whenever it is asked for; nil
// without a path.
func ticketFrom(path string) (mover.TicketFunc, error) {
	if path == "" {
		return nil, nil
	}
	if path == "-" {
		return nil, usage("a ticket is read again at every try, so it has to be in a file")
	}
	if _, err := readTicket(nil, path); err != nil {
		return nil, err
	}
	return func(context.Context) ([]byte, error) { return readTicket(nil, path) }, nil
}
