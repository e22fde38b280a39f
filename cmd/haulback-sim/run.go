package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/cmd/internal/build"
	"github.com/haulback/haulback/cmd/internal/manual"
	"github.com/haulback/haulback/hostctl/simvs"
)

type options struct {
	dir, listen, control, config string
}

// command is haulback-sim and its subcommands.
func command() *cobra.Command {
	root := &cobra.Command{
		Use: "haulback-sim", Short: "Serve a simulated vSphere or OpenStorage node whose disks have bytes",
		SilenceErrors: true, SilenceUsage: true, Args: cobra.NoArgs, RunE: exitcode.NoVerb,
	}
	var o options
	run := &cobra.Command{
		Use: "run --dir DIR", Short: "Serve one vCenter or ESXi in the foreground", Args: cobra.NoArgs,
		Long: `Serve one vCenter or ESXi in the foreground; run two for two sites.

When it serves, it prints one line of JSON: url, thumbprint (SHA-1, as VMware
writes it), ca_file, user, password_file, control and datastores. VMs whose .vmx
files stand in the datastores are registered, powered off. SIGTERM ends it.

The control port is a unix socket that speaks HTTP and JSON, for example:
  curl --unix-socket DIR/control.sock http://sim/v1/vms
  curl --unix-socket DIR/control.sock http://sim/v1/vms/web/power -d '{"to":"off"}'
Its requests stand in the documentation of package hostctl/simvs, type Control.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return serve(cmd.Context(), o, cmd.OutOrStdout()) },
	}
	run.Flags().StringVar(&o.dir, "dir", "", "`DIR` for datastores, password and certificate; made if it is not there")
	run.Flags().StringVar(&o.listen, "listen", "127.0.0.1:0", "`ADDRESS` on loopback")
	run.Flags().StringVar(&o.control, "control", "", "`PATH` of the control port's socket (default DIR/control.sock)")
	run.Flags().StringVar(&o.config, "config", "", "configuration `FILE`: kind, networks, datastores and VMs to begin with")
	_ = run.MarkFlagRequired("dir") // it is there
	version := &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), "haulback-sim", build.Current())
			return err
		},
	}
	root.AddCommand(run, openstorage(), version)
	root.AddCommand(manual.Command(root))
	exitcode.Mark(root)
	return root
}

// ready is what is printed when clients can come.
type ready struct {
	URL          string            `json:"url"`
	Thumbprint   string            `json:"thumbprint"`
	Thumbprint2  string            `json:"thumbprint_sha256"`
	CAFile       string            `json:"ca_file"`
	User         string            `json:"user"`
	PasswordFile string            `json:"password_file"`
	Control      string            `json:"control"`
	Datastores   map[string]string `json:"datastores"`
}

func serve(ctx context.Context, o options, out io.Writer) (err error) {
	dir, err := filepath.Abs(o.dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	cfg := simvs.Config{Dir: dir, Listen: o.listen, CertFile: filepath.Join(dir, "server.pem")}
	var vms []simvs.VM
	if o.config != "" {
		if vms, err = read(o.config, &cfg); err != nil {
			return &exitcode.UsageError{Err: err}
		}
	}
	secret := filepath.Join(dir, "password")
	if cfg.Password, err = password(secret); err != nil {
		return err
	}
	s, err := simvs.New(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	for _, vmx := range s.Skipped() {
		fmt.Fprintln(os.Stderr, "haulback-sim: left out:", vmx)
	}
	if err := addMissing(s, vms); err != nil {
		return err
	}
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, s.CAPEM(), 0o600); err != nil {
		return err
	}
	if o.control == "" {
		o.control = filepath.Join(dir, "control.sock")
	}
	stop, err := listen(s, o.control)
	if err != nil {
		return err
	}
	defer stop()
	line := ready{s.URL(), s.Thumbprint(), s.Thumbprint256(), ca, s.User(), secret, o.control, s.Datastores()}
	if err := json.NewEncoder(out).Encode(line); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

// password is that of the file, which is made at the first start.
func password(path string) (string, error) {
	text, err := os.ReadFile(path)
	if err == nil {
		if p := strings.TrimSpace(string(text)); p != "" {
			return p, nil
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	p := rand.Text()
	return p, os.WriteFile(path, []byte(p+"\n"), 0o600)
}

// addMissing makes the VMs of the configuration that an earlier run did not.
func addMissing(s *simvs.Server, vms []simvs.VM) error {
	for i := range vms {
		if _, err := s.Guest(vms[i].Name); err == nil {
			if vms[i].On {
				err = s.PowerOn(vms[i].Name)
			}
			if err != nil {
				return err
			}
			continue
		}
		if _, err := s.AddVM(&vms[i]); err != nil {
			return err
		}
	}
	return nil
}

// listen opens the control port.
func listen(s *simvs.Server, path string) (stop func(), err error) {
	if c, err := net.Dial("unix", path); err == nil {
		c.Close()
		return nil, fmt.Errorf("%s: another haulback-sim listens there; give this one another --dir or --control", path)
	}
	_ = os.Remove(path) // of a run that was killed
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	control := simvs.NewControl(s)
	server := &http.Server{Handler: control, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l) // ends with ErrServerClosed
	}()
	return func() {
		server.Close()
		<-done
		control.Close()
	}, nil
}
