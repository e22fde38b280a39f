package sbom

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"github.com/CycloneDX/cyclonedx-go"
	"github.com/santhosh-tekuri/jsonschema/v6"
)

func built() *debug.BuildInfo {
	return &debug.BuildInfo{
		GoVersion: "go1.26.8 X:jsonv2", Path: "github.com/haulback/haulback/cmd/haulbackd",
		Main: debug.Module{Path: "github.com/haulback/haulback", Version: "v0.1.1-0.20261125000000-0000000000aa+dirty"},
		Deps: []*debug.Module{
			{Path: "github.com/CycloneDX/cyclonedx-go", Version: "v0.12.0", Sum: "h1:abc="},
			{Path: "example.org/old", Version: "v1.0.0", Sum: "h1:old=", Replace: &debug.Module{Path: "example.org/new", Version: "v2.0.0+incompatible"}},
		},
		Settings: []debug.BuildSetting{{Key: "GOARCH", Value: "arm64"}, {Key: "vcs.time", Value: "2026-11-25T00:00:00Z"}},
	}
}

func write(t *testing.T, info *debug.BuildInfo) (*cyclonedx.BOM, []byte) {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, info); err != nil {
		t.Fatal(err)
	}
	var bom cyclonedx.BOM
	if err := cyclonedx.NewBOMDecoder(bytes.NewReader(b.Bytes()), cyclonedx.BOMFileFormatJSON).Decode(&bom); err != nil {
		t.Fatalf("%v\n%s", err, b.Bytes())
	}
	return &bom, b.Bytes()
}

func TestWrite(t *testing.T) {
	bom, text := write(t, built())
	if bom.SpecVersion != cyclonedx.SpecVersion1_6 || bom.Metadata.Timestamp != "2026-11-25T00:00:00Z" {
		t.Errorf("specification %v, time %q", bom.SpecVersion, bom.Metadata.Timestamp)
	}
	p := bom.Metadata.Component
	if want := "pkg:golang/github.com/haulback/haulback@v0.1.1-0.20261125000000-0000000000aa%2Bdirty#cmd/haulbackd"; p.PackageURL != want {
		t.Errorf("program is %s, want %s", p.PackageURL, want)
	}
	if want := "0.1.0+git20261125000000.0000000000aa+dirty"; p.Name != "haulbackd" || p.Version != want {
		t.Errorf("program %s %s, want haulbackd %s", p.Name, p.Version, want)
	}
	var got []string
	for _, c := range *bom.Components {
		sum := ""
		if c.Properties != nil {
			sum = " " + (*c.Properties)[0].Value
		}
		got = append(got, c.PackageURL+sum)
	}
	if want := []string{"pkg:golang/stdlib@1.26.8", "pkg:golang/github.com/cyclonedx/cyclonedx-go@v0.12.0 h1:abc=", "pkg:golang/example.org/new@v2.0.0%2Bincompatible"}; !slices.Equal(got, want) {
		t.Errorf("parts %q, want %q", got, want)
	}
	if _, again := write(t, built()); !bytes.Equal(text, again) {
		t.Errorf("two documents of one build differ:\n%s\n%s", text, again)
	}
	other := built()
	other.Deps[0].Version = "v0.12.1"
	if o, _ := write(t, other); o.SerialNumber == bom.SerialNumber || len(o.SerialNumber) != len("urn:uuid:")+36 {
		t.Errorf("serial number %q of another build, and %q", o.SerialNumber, bom.SerialNumber)
	}
}

// TestSchema holds the document against the specification's own schema, which the
// library's module brings along.
func TestSchema(t *testing.T) {
	module, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/CycloneDX/cyclonedx-go").Output()
	if err != nil {
		t.Fatal(err)
	}
	compiler := jsonschema.NewCompiler()
	for url, file := range map[string]string{
		"bom-1.6.schema.json": "bom-1.6.schema.json", "spdx.schema.json": "spdx.schema.json", "jsf-0.82.schema.json": "jsf-0.82.schemax.json",
	} {
		f, err := os.Open(filepath.Join(strings.TrimSpace(string(module)), "schema", file))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		doc, err := jsonschema.UnmarshalJSON(f)
		if err != nil {
			t.Fatal(err)
		}
		if err := compiler.AddResource("http://cyclonedx.org/schema/"+url, doc); err != nil {
			t.Fatal(err)
		}
	}
	schema, err := compiler.Compile("http://cyclonedx.org/schema/bom-1.6.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	_, text := write(t, built())
	for name, doc := range map[string][]byte{"ours": text, "broken": bytes.Replace(text, []byte(`"library"`), []byte(`"part"`), 1)} {
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(doc))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(v); (err == nil) != (name == "ours") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
