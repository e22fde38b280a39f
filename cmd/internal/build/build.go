// Package build says which haulback this is.
package build

import (
	"runtime"
	"runtime/debug"
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
	v := Version{Version: "devel", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH, Protocol: protocol}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	if info.Main.Version != "" && info.Main.Version != "(devel)" {
		v.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			v.Revision = s.Value
		case "vcs.modified":
			v.Modified = s.Value == "true"
		}
	}
	return v
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
