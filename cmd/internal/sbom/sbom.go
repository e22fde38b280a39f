// Package sbom lists what a program was built from, as a CycloneDX document: the
// modules, the Go toolchain and the commit that the toolchain has recorded in it.
//
// Two documents of one build are equal: the time is that of the commit, the serial
// number is made of the rest. The h1 of go.sum, which is a hash of hashes and of no
// file, is a property of a module and not one of its hashes.
//
// Not listed is what is in no program: the C library and VMware's, which
// haulback-vddk loads when it runs, and which module needs which.
package sbom

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"path"
	"runtime/debug"
	"strings"

	"github.com/CycloneDX/cyclonedx-go"
	"github.com/google/uuid"

	"github.com/haulback/haulback/cmd/internal/build"
)

// specification is what scanners read today; the library writes newer ones too.
const specification = cyclonedx.SpecVersion1_6

// Own writes the document of this program.
func Own(w io.Writer) error {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return errors.New("sbom: nothing was recorded in this program when it was built")
	}
	return Write(w, info)
}

// Write writes the document of the program that info was read from.
func Write(w io.Writer, info *debug.BuildInfo) error {
	bom := cyclonedx.NewBOM()
	bom.Metadata = &cyclonedx.Metadata{Component: program(info)}
	parts := []cyclonedx.Component{toolchain(info.GoVersion)}
	for _, m := range info.Deps {
		parts = append(parts, part(m))
	}
	bom.Components = &parts
	for _, s := range info.Settings {
		if s.Key == "vcs.time" {
			bom.Metadata.Timestamp = s.Value
		}
	}
	var b bytes.Buffer
	if err := encode(&b, bom); err != nil {
		return err
	}
	bom.SerialNumber = uuid.NewSHA1(uuid.NameSpaceURL, b.Bytes()).URN()
	return encode(w, bom)
}

func encode(w io.Writer, bom *cyclonedx.BOM) error {
	e := cyclonedx.NewBOMEncoder(w, cyclonedx.BOMFileFormatJSON).SetPretty(true).SetEscapeHTML(false)
	if err := e.EncodeVersion(bom, specification); err != nil {
		return fmt.Errorf("sbom: %w", err)
	}
	return nil
}

// program is the main module, as the one program that was made of it.
func program(info *debug.BuildInfo) *cyclonedx.Component {
	name := path.Base(info.Path)
	url := purl(info.Main.Path, info.Main.Version) + "#cmd/" + name
	c := &cyclonedx.Component{
		BOMRef: url, Type: cyclonedx.ComponentTypeApplication, Name: name, Version: build.Of(info).Version, PackageURL: url,
		Licenses:   &cyclonedx.Licenses{{License: &cyclonedx.License{ID: "Apache-2.0"}}},
		Properties: &[]cyclonedx.Property{},
	}
	for _, s := range info.Settings {
		*c.Properties = append(*c.Properties, cyclonedx.Property{Name: "go:build:" + s.Key, Value: s.Value})
	}
	return c
}

// toolchain is the standard library, under the name that advisories have it.
func toolchain(version string) cyclonedx.Component {
	number, _, _ := strings.Cut(strings.TrimPrefix(version, "go"), " ") // " X:..." are experiments
	url := purl("stdlib", number)
	return cyclonedx.Component{BOMRef: url, Type: cyclonedx.ComponentTypeLibrary, Name: "stdlib", Version: number, PackageURL: url}
}

func part(m *debug.Module) cyclonedx.Component {
	if m.Replace != nil {
		m = m.Replace
	}
	url := purl(m.Path, m.Version)
	c := cyclonedx.Component{BOMRef: url, Type: cyclonedx.ComponentTypeLibrary, Name: m.Path, Version: m.Version, PackageURL: url}
	if m.Sum != "" {
		c.Properties = &[]cyclonedx.Property{{Name: "go:sum", Value: m.Sum}}
	}
	return c
}

// purl names a module as scanners do; the type golang is in lower case.
func purl(module, version string) string {
	url := "pkg:golang/" + strings.ToLower(module)
	if version != "" && version != "(devel)" {
		url += "@" + strings.ReplaceAll(version, "+", "%2B")
	}
	return url
}
