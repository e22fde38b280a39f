package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"sync"

	"github.com/haulback/haulback/cmd/internal/config"
	"github.com/haulback/haulback/cmd/internal/osdisk"
	"github.com/haulback/haulback/cmd/internal/report"
	"github.com/haulback/haulback/hostctl/osd"
	"github.com/haulback/haulback/vddk"
)

// volumes opens osd:// disks. The configuration is read when the first one is opened,
// and what dead processes have left on a cluster is swept when the first one of its
// profile is: a cluster that is away keeps nobody from another.
type volumes struct {
	mu    sync.Mutex
	disks *osdisk.Disks
	err   error
	swept map[string]bool // by profile
}

// driver is what this program registers.
func (v *volumes) driver(g *global) vddk.Driver {
	return vddk.Driver{Parse: osdisk.Parse, Open: func(ctx context.Context, text string, opts vddk.Options) (vddk.Disk, error) {
		u, err := osd.ParseURI(text)
		if err != nil {
			return nil, err
		}
		disks, err := v.open(ctx, g, u.Profile, opts.Log)
		if err != nil {
			return nil, &osdisk.Error{URI: text, Err: err}
		}
		return disks.Open(ctx, text, opts)
	}}
}

func (v *volumes) open(ctx context.Context, g *global, profile string, log *slog.Logger) (*osdisk.Disks, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if log == nil { // what is left behind is told, whoever asked
		log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	if v.disks == nil && v.err == nil {
		v.disks, v.err = g.disks(log)
	}
	if v.err == nil && !v.swept[profile] {
		if v.swept == nil {
			v.swept = map[string]bool{}
		}
		v.swept[profile] = true
		v.disks.Sweep(ctx, log, profile)
	}
	return v.disks, v.err
}

// disks are those of the configuration's profiles.
func (g *global) disks(log *slog.Logger) (*osdisk.Disks, error) {
	profiles, err := g.profiles()
	if err != nil {
		return nil, &errProfiles{err}
	}
	s, err := g.site()
	if err != nil {
		return nil, err
	}
	return osdisk.New(profiles, config.Ledger(s), log), nil
}

// errProfiles is a mistake in the configuration, or that there is none.
type errProfiles struct{ error }

// Usage is true.
func (e *errProfiles) Usage() bool { return true }

// Unwrap is the mistake.
func (e *errProfiles) Unwrap() error { return e.error }

// profiles are those of the configuration that is named, or of the default one.
func (g *global) profiles() ([]osd.Config, error) {
	if g.config != "" {
		return config.Profiles(g.config)
	}
	profiles, err := config.Profiles(config.DefaultFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("its profile is an [[openstorage]] of a configuration, and there is no %s; name one with --config FILE", config.DefaultFile)
	}
	return profiles, err
}

// close ends what open has made.
func (v *volumes) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.disks == nil {
		return
	}
	if err := v.disks.Close(); err != nil {
		fmt.Fprintln(os.Stderr, "haulback: close: "+report.OneLine(err.Error()))
	}
}
