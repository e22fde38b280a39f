package main

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/haulback/haulback/bench/payload"
	"github.com/haulback/haulback/bench/peers"
	"github.com/haulback/haulback/wire"
)

// payloadCommand is what the case "payload" runs at both ends. It is not for people.
func payloadCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "payload", Short: "One end of the case payload", Hidden: true}
	var transport, address, source, target string
	var bytes int64
	keys := func() (s, t *wire.Key, err error) {
		if s, err = wire.LoadKey(source); err != nil {
			return nil, nil, err
		}
		t, err = wire.LoadKey(target)
		return s, t, err
	}
	receive := &cobra.Command{
		Use: "receive", Short: "Receive and throw away", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, t, err := keys()
			if err != nil {
				return err
			}
			return payload.Receive(cmd.Context(), transport, address, t, s.ID(), func() { fmt.Fprintln(cmd.ErrOrStderr(), peers.PayloadReady) })
		},
	}
	send := &cobra.Command{
		Use: "send", Short: "Send random bytes", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, t, err := keys()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), 10*time.Minute)
			defer cancel()
			r, err := payload.Send(ctx, transport, address, s, t.ID(), bytes)
			if err != nil {
				return err
			}
			return json.NewEncoder(cmd.OutOrStdout()).Encode(r)
		},
	}
	for _, c := range []*cobra.Command{receive, send} {
		c.Flags().StringVar(&transport, "transport", payload.QUIC, "`NAME` of the transport: quic, quic-stock, tls, crypto/tls")
		c.Flags().StringVar(&address, "address", "127.0.0.1:17420", "`ADDRESS` of the receiver")
		c.Flags().StringVar(&source, "source-key", "", "`FILE` with the sender's key")
		c.Flags().StringVar(&target, "target-key", "", "`FILE` with the receiver's key")
	}
	send.Flags().Int64Var(&bytes, "bytes", 1<<30, "`N` bytes to send")
	cmd.AddCommand(receive, send)
	return cmd
}
