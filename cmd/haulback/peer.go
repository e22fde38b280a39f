package main

import (
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/cmd/internal/site"
	"github.com/haulback/haulback/hostctl/audit"
	"github.com/haulback/haulback/wire"
)

const pairingHelp = `Two sites are paired when each has added the other's ID. Compare the IDs over a
channel that you trust: whoever holds the key of an ID may use the exports that
name it. A running daemon notices within a second.

Or let a code do it: "haulback peer invite" at one site prints one, "haulback peer
join" at the other takes it, and both are paired.`

func peerCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{Use: "peer", Short: "Show this site's ID, pair it with others", Long: "Show this site's ID, pair it with others.\n\n" + pairingHelp, Args: cobra.NoArgs}
	cmd.AddCommand(peerIDCommand(g), peerAddCommand(g), peerListCommand(g), peerRemoveCommand(g), peerInviteCommand(g), peerJoinCommand(g), peerRotateCommand(g), peerPromoteCommand(g))
	return cmd
}

func peerIDCommand(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "id", Short: "Print the ID of this site; its key is made when there is none", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := g.site()
			if err != nil {
				return err
			}
			key, err := s.Key()
			if err != nil {
				return err
			}
			return g.print(cmd, map[string]string{"id": key.ID().String()}, key.ID().String())
		},
	}
}

func peerAddCommand(g *global) *cobra.Command {
	var e site.PeerEntry
	var next bool
	cmd := &cobra.Command{
		Use: "add ID --name NAME [--address HOST:PORT] [--next]", Short: "Pair this site with the one that has the ID", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			e.ID = args[0]
			if e.Name == "" {
				return usage("peer add: --name is missing; give the site a name, as in --name dr")
			}
			s, err := g.site()
			if err != nil {
				return err
			}
			if next {
				return addNext(g, cmd, s, e)
			}
			return addPeer(g, cmd, s, e)
		},
	}
	cmd.Flags().StringVar(&e.Name, "name", "", "`NAME` for it, used in configurations and messages")
	cmd.Flags().StringVar(&e.Address, "address", "", "`HOST:PORT` of its daemon; none for a site that only dials")
	cmd.Flags().BoolVar(&next, "next", false, "the ID that the peer NAME is about to change to; both are let in until \"haulback peer promote\"")
	return cmd
}

func addPeer(g *global, cmd *cobra.Command, s *site.Site, e site.PeerEntry) error {
	p, _, err := e.Peer()
	if err != nil {
		return &exitcode.UsageError{Err: err}
	}
	if key, err := s.Key(); err == nil && key.ID() == p.ID {
		return usage("peer %q: that is the ID of this site itself; add the one that \"haulback peer id\" prints at the other", p.Name)
	}
	err = recorded(cmd.Context(), s, audit.Entry{Action: "peer.added", Object: p.Name, Details: map[string]string{"id": p.ID.String(), "address": p.Address}},
		func() error { return s.AddPeer(p) })
	if err != nil {
		return peersError(err)
	}
	return g.print(cmd, jsonPeer(p), "paired with "+p.Name+" "+p.ID.String())
}

// peersError keeps what the file system says; everything else is a mistake in
// the list.
func peersError(err error) error {
	if _, ok := errors.AsType[interface {
		error
		Timeout() bool // of fs.PathError and its like
	}](err); ok {
		return err
	}
	return &exitcode.UsageError{Err: err}
}

func peerListCommand(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the paired sites", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := g.site()
			if err != nil {
				return err
			}
			peers, err := s.Peers()
			if err != nil {
				return peersError(err)
			}
			return listPeers(g, cmd, peers)
		},
	}
}

func listPeers(g *global, cmd *cobra.Command, peers site.Peers) error {
	if g.json {
		for _, p := range peers {
			if err := report.WriteLine(cmd.OutOrStdout(), report.TypePeer, jsonPeer(p)); err != nil {
				return err
			}
		}
		return nil
	}
	w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tADDRESS\tID")
	for _, p := range peers {
		address := p.Address
		if address == "" {
			address = "-"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", p.Name, address, p.ID)
		if !p.Next.IsZero() {
			fmt.Fprintf(w, "\tnext:\t%s\n", p.Next)
		}
	}
	return w.Flush()
}

func peerRemoveCommand(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "remove NAME", Short: "End the pairing with a site", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := g.site()
			if err != nil {
				return err
			}
			err = revoked(cmd.Context(), s, audit.Entry{Action: "peer.removed", Object: args[0]}, func() error { return s.RemovePeer(args[0]) })
			if err != nil {
				return peersError(err)
			}
			return g.print(cmd, map[string]string{"removed": args[0]}, "no longer paired with "+args[0]+"; a running daemon ends its sessions within a second, unless a [[peer]] of its configuration has the ID too")
		},
	}
}

type peerJSON struct {
	Name    string  `json:"name"`
	ID      wire.ID `json:"id"`
	Address string  `json:"address,omitempty"`
	Next    string  `json:"next_id,omitempty"`
}

func jsonPeer(p site.Peer) peerJSON {
	j := peerJSON{Name: p.Name, ID: p.ID, Address: p.Address}
	if !p.Next.IsZero() {
		j.Next = p.Next.String()
	}
	return j
}

// print writes v as a summary in JSON, or text.
func (g *global) print(cmd *cobra.Command, v any, text string) error {
	if g.json {
		return report.WriteLine(cmd.OutOrStdout(), report.TypeSummary, v)
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), text)
	return err
}
