package main

import (
	"github.com/spf13/cobra"

	"github.com/haulback/haulback/cmd/internal/transfer"
)

const nbdServeHelp = `Export a disk over NBD, for nbdinfo, nbdcopy, qemu and everything else that
speaks it, until a signal ends it: then the requests in work return, the disk is
flushed and closed, and the exit code is 0. A disk that cannot be flushed or
closed is exit code 1: what was written since the last good flush of a client
may be lost. When what is behind the disk is gone for five seconds (an NBD
server, a VDDK worker), the exit code is 13.

The export is read-only unless --writable is given.

By default clients come through a unix socket that only this user can open. A
TCP port needs TLS, and the certificates of clients to know who may come:

  haulback nbd serve DISK --listen 0.0.0.0:10809 \
    --tls-cert server-cert.pem --tls-key server-key.pem --tls-ca clients-ca.pem

Sockets that systemd (or nbdinfo and nbdcopy, with [ haulback nbd serve DISK ])
passes are used instead of a new one.`

// nbdFlags are those of nbd serve, as typed.
type nbdFlags struct {
	socket, listen           string
	tlsCert, tlsKey, tlsCA   string
	name                     string
	anyClient, plain         bool
	readOnly, writable, once bool
}

func nbdCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{Use: "nbd", Short: "Export disks to programs that speak NBD", Args: cobra.NoArgs}
	cmd.AddCommand(nbdServeCommand(g))
	return cmd
}

func nbdServeCommand(g *global) *cobra.Command {
	var f nbdFlags
	cmd := &cobra.Command{
		Use: "serve DISK", Short: "Export a disk over NBD until a signal ends it", Args: cobra.ExactArgs(1),
		Long:    nbdServeHelp + "\n\n" + transfer.Help,
		Example: "  haulback nbd serve /srv/a.img\n  haulback nbd serve block:///dev/vg/a --writable --socket /run/a.sock --once",
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := newNBDServe(g, &f, args[0])
			if err != nil {
				return err
			}
			return s.run(cmd)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.socket, "socket", "", "`PATH` of the unix socket (default a new one in $XDG_RUNTIME_DIR or the directory for temporary files)")
	flags.StringVar(&f.listen, "listen", "", "`HOST:PORT` of a TCP port instead of a socket; needs --tls-cert and --tls-key")
	flags.StringVar(&f.tlsCert, "tls-cert", "", "`FILE` with the server's certificate and what leads to its authority, PEM")
	flags.StringVar(&f.tlsKey, "tls-key", "", "`FILE` with the key of --tls-cert, PEM")
	flags.StringVar(&f.tlsCA, "tls-ca", "", "`FILE` with the authorities of the clients' certificates, PEM; others are refused")
	flags.BoolVar(&f.anyClient, "any-client", false, "let in everybody who reaches the TCP port, without a certificate")
	flags.BoolVar(&f.plain, "insecure-loopback", false, "no TLS on --listen; a loopback address only, and every user of this machine gets in")
	flags.StringVar(&f.name, "name", "", "`EXPORT` to call the disk (default the empty name, which clients ask for that name none)")
	flags.BoolVar(&f.readOnly, "read-only", false, "refuse every change; the default")
	flags.BoolVar(&f.writable, "writable", false, "let clients overwrite the disk")
	flags.BoolVar(&f.once, "once", false, "end when the last client has left")
	return cmd
}
