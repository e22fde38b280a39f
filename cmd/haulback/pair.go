package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/build"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/hostctl/audit"
	"github.com/haulback/haulback/wire"
)

func peerInviteCommand(g *global) *cobra.Command {
	var name, address string
	life := site.DefaultInviteLife
	cmd := &cobra.Command{
		Use: "invite --name NAME [--address HOST:PORT] [--ttl 15m]", Short: "Print a code with which the other site can pair itself with this one, once", Args: cobra.NoArgs,
		Long: `Print a code with which the other site can pair itself with this one, once.

The daemon of this site has to run. At the other: haulback peer join --name THIS-SITE
Who has the code is let in under NAME: hand it over as you would a password. It is
shown once; what is kept of it is a hash.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if name == "" {
				return usage("peer invite: --name is missing; give the other site a name, as in --name dr")
			}
			var err error
			if address != "" {
				if address, err = site.Address(address); err != nil {
					return &exitcode.UsageError{Err: err}
				}
			}
			s, err := g.site()
			if err != nil {
				return err
			}
			var code wire.PairCode
			now := time.Now()
			until := now.Add(life).Round(time.Second)
			err = recorded(cmd.Context(), s, audit.Entry{Action: "peer.invited", Object: name, Details: map[string]string{"until": until.UTC().Format(time.RFC3339)}}, func() (err error) {
				code, err = s.Invite(name, address, life, now)
				return err
			})
			if err != nil {
				return peersError(err)
			}
			if !g.json { // the code alone is standard output
				fmt.Fprintf(cmd.ErrOrStderr(), "good once, until %s; at the other site run: haulback peer join --name NAME-OF-THIS-SITE, which asks for the code\n",
					until.Local().Format(time.TimeOnly))
			}
			return g.print(cmd, map[string]string{"code": code.Reveal(), "until": until.UTC().Format(time.RFC3339)}, code.Reveal())
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "`NAME` for the site that joins")
	cmd.Flags().StringVar(&address, "address", "", "`HOST:PORT` where the other site reaches this one's daemon; it becomes a part of the code")
	cmd.Flags().DurationVar(&life, "ttl", life, "how long the code is good, at most 1h")
	return cmd
}

func peerJoinCommand(g *global) *cobra.Command {
	var name, address, at, file, transport string
	cmd := &cobra.Command{
		Use: "join --name NAME [--address HOST:PORT] [--at HOST:PORT] [--code-file FILE]", Short: "Pair this site with the one that printed the code", Args: cobra.NoArgs,
		Long: `Pair this site with the one that printed the code.

The code is read from the terminal, from standard input, or from a file; never
from an argument, which everybody on this machine can see.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := site.CheckName("peer", name); err != nil {
				return &exitcode.UsageError{Err: fmt.Errorf("peer join: --name: %w", err)}
			}
			s, err := g.site()
			if err != nil {
				return err
			}
			code, err := readCode(cmd.InOrStdin(), cmd.ErrOrStderr(), file)
			if err != nil {
				return err
			}
			p := site.Peer{Name: name, Address: code.Address}
			if at != "" {
				p.Address = at
			}
			if p.Address == "" {
				return usage("peer join: the code names no address; say where the other daemon is, as in --at dr-proxy:7420")
			}
			if p.Address, err = site.Address(p.Address); err == nil && address != "" {
				address, err = site.Address(address)
			}
			if err == nil {
				err = site.CheckTransport(transport)
			}
			if err != nil {
				return &exitcode.UsageError{Err: err}
			}
			return joinPeer(g, cmd, s, p, code, address, transport)
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "`NAME` for the other site")
	cmd.Flags().StringVar(&address, "address", "", "`HOST:PORT` where the other site reaches this one's daemon; none for a site that only dials")
	cmd.Flags().StringVar(&at, "at", "", "`HOST:PORT` of the other daemon (default: the one in the code)")
	cmd.Flags().StringVar(&file, "code-file", "", "`FILE` that the code is in (default: ask, or standard input)")
	cmd.Flags().StringVar(&transport, "transport", site.Auto, "auto, quic or tls")
	return cmd
}

// maxCodeText is more than any code with its address.
const maxCodeText = 1024

// readCode reads the code without showing it.
func readCode(in io.Reader, prompt io.Writer, file string) (code wire.PairCode, err error) {
	var text []byte
	f, isFile := in.(*os.File)
	switch {
	case file != "":
		if f, err = os.Open(file); err != nil {
			return code, &exitcode.UsageError{Err: err}
		}
		defer f.Close() // only read
		text, err = io.ReadAll(io.LimitReader(f, maxCodeText))
	case isFile && term.IsTerminal(int(f.Fd())):
		fmt.Fprint(prompt, "pairing code: ")
		text, err = term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(prompt)
	default:
		var line string
		if line, err = bufio.NewReader(io.LimitReader(in, maxCodeText)).ReadString('\n'); errors.Is(err, io.EOF) {
			err = nil
		}
		text = []byte(line)
	}
	if err != nil {
		return code, fmt.Errorf("read the pairing code: %w", err)
	}
	if code, err = wire.ParsePairCode(strings.TrimSpace(string(text))); err != nil {
		return code, &exitcode.UsageError{Err: fmt.Errorf("peer join: %w; copy what \"haulback peer invite\" printed", err)}
	}
	return code, nil
}

// joinPeer pairs both sites: the other adds this one before it answers.
func joinPeer(g *global, cmd *cobra.Command, s *site.Site, p site.Peer, code wire.PairCode, address, transport string) error {
	ctx := cmd.Context()
	key, err := s.Key()
	if err != nil {
		return err
	}
	if code.Invites(key.ID()) {
		return usage("peer join: this site itself made the code; use it at the other")
	}
	peers, err := s.Peers()
	if err != nil {
		return peersError(err)
	}
	if old, ok := peers.Named(p.Name); ok && !code.Invites(old.ID) {
		return usage("peer %q: the name is taken; choose another or run: haulback peer remove %s", p.Name, p.Name)
	}
	err = recorded(ctx, s, audit.Entry{Action: "peer.join", Object: p.Name, Details: map[string]string{"at": p.Address}}, func() (err error) {
		p.ID, err = site.Pair(ctx, transport, p.Address, key, code, address, build.Agent("haulback"))
		return err
	})
	if err != nil {
		return err
	}
	err = recorded(ctx, s, audit.Entry{Action: "peer.added", Object: p.Name, Details: map[string]string{"id": p.ID.String(), "address": p.Address}},
		func() error { return s.AddPeer(p) })
	if err != nil {
		return fmt.Errorf("the other site has added this one, but here: %w; join again within a minute, or run: haulback peer add %s --name %s", peersError(err), p.ID, p.Name)
	}
	return g.print(cmd, jsonPeer(p), "paired with "+p.Name+" "+p.ID.String())
}

func peerRotateCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "rotate", Short: "Change the key of this site without an interruption", Args: cobra.NoArgs,
		Long: `Change the key of this site without an interruption.

  here        haulback peer rotate prepare              prints the next ID
  each peer   haulback peer add NEXTID --name ME --next  lets both in
  here        haulback peer rotate switch               and restart the daemon
  each peer   haulback peer promote ME                  lets only the new one in`,
	}
	step := func(use, short, action string, run func(*site.Site) (*wire.Key, error), text string) *cobra.Command {
		return &cobra.Command{Use: use, Short: short, Args: cobra.NoArgs, RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := g.site()
			if err != nil {
				return err
			}
			var key *wire.Key
			err = recorded(cmd.Context(), s, audit.Entry{Action: action}, func() (err error) {
				key, err = run(s)
				return err
			})
			if err != nil {
				return err
			}
			return g.print(cmd, map[string]string{"id": key.ID().String()}, key.ID().String()+text)
		}}
	}
	cmd.AddCommand(
		step("prepare", "Make the next key and print its ID", "key.prepared", (*site.Site).PrepareKey, ""),
		step("switch", "Use the next key from now on; a running daemon needs a restart", "key.switched", (*site.Site).SwitchKey, " is the ID of this site now; restart its daemon"),
	)
	return cmd
}

func peerPromoteCommand(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "promote NAME", Short: "Let a peer in with its next ID only, after it has changed its key", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := g.site()
			if err != nil {
				return err
			}
			err = revoked(cmd.Context(), s, audit.Entry{Action: "peer.rotated", Object: args[0]}, func() error { return s.Promote(args[0]) })
			if err != nil {
				return peersError(err)
			}
			return g.print(cmd, map[string]string{"promoted": args[0]}, args[0]+" is let in with its new ID only")
		},
	}
}

// addNext gives a paired site a second ID.
func addNext(g *global, cmd *cobra.Command, s *site.Site, e site.PeerEntry) error {
	id, err := wire.ParseID(e.ID)
	if err != nil {
		return &exitcode.UsageError{Err: err}
	}
	err = recorded(context.WithoutCancel(cmd.Context()), s, audit.Entry{Action: "peer.added", Object: e.Name, Details: map[string]string{"next_id": id.String()}},
		func() error { return s.AddNext(e.Name, id) })
	if err != nil {
		return peersError(err)
	}
	return g.print(cmd, map[string]string{"name": e.Name, "next_id": id.String()}, e.Name+" is let in with "+id.String()+" too")
}
