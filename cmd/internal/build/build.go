// Package build says which haulback this is.
//
// A version is written as packages need it, so that "haulback version" and the
// package manager say the same, and dpkg and rpm sort it as semantic versions are:
//
//	0.0.0~git20261123141248.2f4038b2e2d6  a commit, and no tag before it
//	1.2.0~rc.1                            tag v1.2.0-rc.1
//	1.2.0                                 tag v1.2.0
//	1.2.0+git20261201090000.0a1b2c3d4e5f  a commit after v1.2.0
//	1.2.0+dirty                           files that are in no commit
//	devel                                 the toolchain was not told: go run, go test, no git
//
// The time is that of the commit, in UTC.
package build

import (
	"runtime"
	"runtime/debug"
	"strings"

	"golang.org/x/mod/module"
)

// Version is what "version" prints.
type Version struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Modified bool   `json:"modified,omitempty"` // built from files that are in no commit
	Go       string `json:"go"`
	Platform string `json:"platform"`
	Protocol string `json:"protocol"`
}

// protocol is the ALPN of package wire.
const protocol = "haulback/1"

// Current reads what the toolchain recorded. Nothing is set by linker flags,
// so "go install" and the packages tell the same.
func Current() Version {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = &debug.BuildInfo{}
	}
	return Of(info)
}

// Of is the version of the program that info was read from. Platform and toolchain
// are those of this one where it does not say.
func Of(info *debug.BuildInfo) Version {
	v := Version{Version: number(info.Main.Version), Go: runtime.Version(), Protocol: protocol}
	if info.GoVersion != "" {
		v.Go = info.GoVersion
	}
	system, arch := runtime.GOOS, runtime.GOARCH
	for _, s := range info.Settings {
		switch s.Key {
		case "GOOS":
			system = s.Value
		case "GOARCH":
			arch = s.Value
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	v.Platform = system + "/" + arch
	return v
}

// number rewrites a version of the main module for packages. What comes before a
// release follows a tilde, which both dpkg and rpm sort before the end; what comes
// after one follows a plus. A hyphen is neither's to have.
func number(version string) string {
	if version == "" || version == "(devel)" {
		return "devel"
	}
	version, meta, _ := strings.Cut(version, "+")
	base, commit := version, ""
	if module.IsPseudoVersion(version) {
		// These fail for what is no pseudo-version only.
		base, _ = module.PseudoVersionBase(version)
		at, _ := module.PseudoVersionTime(version)
		revision, _ := module.PseudoVersionRev(version)
		commit = "git" + at.Format("20060102150405") + "." + revision
	}
	s := strings.TrimPrefix(base, "v")
	s = strings.ReplaceAll(strings.Replace(s, "-", "~", 1), "-", ".")
	switch {
	case base == "":
		s = "0.0.0~" + commit
	case commit != "":
		s += "+" + commit
	}
	if meta != "" {
		s += "+" + meta
	}
	return s
}

// String is the version in one line, for people.
func (v Version) String() string {
	s := v.Version
	if v.Revision != "" {
		s += " (" + v.Revision[:min(12, len(v.Revision))] + ")"
	}
	return s + " " + v.Go + " " + v.Platform + " " + v.Protocol
}

// Agent is what peers are told, for their logs.
func Agent(program string) string { return program + "/" + Current().Version }
