package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/haulback/haulback/cmd/haulback/exitcode"
	"github.com/haulback/haulback/hostctl/osd/osdtest"
)

type osdOptions struct {
	osdtest.Config
	files                   bool
	volumes, images, quirks []string
}

func openstorage() *cobra.Command {
	var o osdOptions
	cmd := &cobra.Command{
		Use: "openstorage --dir DIR", Short: "Serve one node of an OpenStorage cluster in the foreground", Args: cobra.NoArgs,
		Long: `Serve one node of an OpenStorage cluster in the foreground.

When it serves, it prints one line of JSON: endpoint, node, hostname, ca_file,
token_file, and volumes with name, id, size and image, the file with their bytes.
Volumes of an earlier run are there again, detached. SIGTERM ends it and detaches
its loop devices.

It attaches volumes as loop devices, which needs root, or with --files as the
image files themselves.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.serve(cmd.Context(), cmd.OutOrStdout()) },
	}
	f := cmd.Flags()
	f.StringVar(&o.Dir, "dir", "", "`DIR` for images, socket, certificate and tokens; made if it is not there")
	f.StringVar(&o.Listen, "listen", "unix", "`ADDRESS`: unix (a socket in DIR) or 127.0.0.1:PORT")
	f.BoolVar(&o.TLS, "tls", false, "TLS, with 127.0.0.1:PORT")
	f.BoolVar(&o.Auth, "auth", false, "tokens count; who has none is a guest")
	f.BoolVar(&o.files, "files", false, "attach image files, not loop devices")
	f.StringVar(&o.Node, "node", "", "`ID` of the node (default node-1)")
	f.StringVar(&o.Hostname, "hostname", "", "`NAME` of the node (default this machine's)")
	f.StringArrayVar(&o.volumes, "volume", nil, "`NAME=SIZE` of a volume of zeros to make if there is none of that name; again for more")
	f.StringArrayVar(&o.images, "image", nil, "`NAME=FILE`: the same, with a copy of the bytes of FILE; again for more")
	f.StringArrayVar(&o.quirks, "quirk", nil, "`MISBEHAVIOUR`, such as no-restore, async-restore=3, slow.Attach=2s; again for more")
	_ = cmd.MarkFlagRequired("dir") // it is there
	return cmd
}

// osdReady is what is printed when clients can come.
type osdReady struct {
	Endpoint  string      `json:"endpoint"`
	Node      string      `json:"node"`
	Hostname  string      `json:"hostname"`
	CAFile    string      `json:"ca_file,omitempty"`
	TokenFile string      `json:"token_file,omitempty"`
	Volumes   []osdVolume `json:"volumes"`
}

type osdVolume struct {
	Name  string `json:"name"`
	ID    string `json:"id"`
	Size  int64  `json:"size"`
	Image string `json:"image"`
}

func (o *osdOptions) serve(ctx context.Context, out io.Writer) (err error) {
	var quirks osdtest.Quirks
	for _, text := range o.quirks {
		if err := quirks.Parse(text); err != nil {
			return &exitcode.UsageError{Err: fmt.Errorf("--quirk: %w", err)}
		}
	}
	var adds []addition
	for _, one := range []struct {
		flag  string
		texts []string
		read  func(name, value string) (addition, error)
	}{{"--volume", o.volumes, zeros}, {"--image", o.images, copied}} {
		for _, text := range one.texts {
			name, value, _ := strings.Cut(text, "=")
			a, err := one.read(name, value)
			if err != nil {
				return &exitcode.UsageError{Err: fmt.Errorf("%s %s: %w", one.flag, text, err)}
			}
			adds = append(adds, a)
		}
	}
	if o.Dir, err = filepath.Abs(o.Dir); err != nil {
		return err
	}
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return err
	}
	if o.Loop = !o.files; o.Loop {
		if err := osdtest.HasLoop(); err != nil {
			return fmt.Errorf("%w; --files attaches image files", err)
		}
	}
	s, err := osdtest.New(o.Config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	s.Set(func(q *osdtest.Quirks) { *q = quirks })
	for _, a := range adds {
		if err := a.add(s); err != nil {
			return err
		}
	}
	if err := json.NewEncoder(out).Encode(o.ready(s)); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func (o *osdOptions) ready(s *osdtest.Server) osdReady {
	line := osdReady{
		Endpoint: s.Endpoint(), Node: s.Node(), Hostname: s.Hostname(),
		CAFile: s.CAFile(), TokenFile: s.TokenFile(), Volumes: []osdVolume{},
	}
	for _, v := range s.Volumes() {
		line.Volumes = append(line.Volumes, osdVolume{v.Name, v.ID, v.Size, s.Image(v.ID)})
	}
	return line
}

// addition is a volume to make if there is none of its name.
type addition struct {
	name, file string // file: "" for zeros
	size       int64
}

func zeros(name, text string) (addition, error) {
	n, err := bytes(text)
	if err == nil && (name == "" || n == 0) {
		err = errors.New("write NAME=SIZE, such as data=1GiB")
	}
	return addition{name: name, size: n}, err
}

func copied(name, file string) (addition, error) {
	if name == "" || file == "" {
		return addition{}, errors.New("write NAME=FILE")
	}
	st, err := os.Stat(file)
	if err != nil {
		return addition{}, err
	}
	return addition{name, file, st.Size()}, nil
}

func (a *addition) add(s *osdtest.Server) error {
	if slices.ContainsFunc(s.Volumes(), func(v osdtest.Info) bool { return v.Name == a.name }) {
		return nil
	}
	if a.file == "" {
		_, err := s.AddVolume(a.name, a.size, nil)
		return err
	}
	f, err := os.Open(a.file)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = s.AddVolume(a.name, a.size, f)
	return err
}
