package config

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/haulback/haulback/cmd/internal/strict"
)

var update = flag.Bool("update", false, "write the golden file anew")

// mistake is a configuration with one, at a line.
type mistake struct {
	name, text string
	line       int
	want       []string
}

// secretMistakes are secrets where a file has no place for them: hunter2 is one.
func secretMistakes() []mistake {
	export := "[[export]]\nname = \"x\"\nrole = \"source\"\n"
	return []mistake{
		{"password of a host", controllerLine + hostText + "password = \"hunter2\"\n", 7, []string{"unknown key host.password;", "password_file = \"/PATH\""}},
		{"password in the place of its file", controllerLine + strings.Replace(hostText, "/dev/null", "hunter2!", 1), 6, []string{"if it is the secret itself"}},
		{"password under a wrong name", controllerLine + hostText + "passwordfile = \"hunter2\"\n", 7, []string{"did you mean password_file?"}},
		{"token of a hook", controllerLine + hookText + "token = \"hunter2\"\n", 6, []string{"token_file = \"/PATH\""}},
		{"token of a profile", profileText + "auth_token = 'hunter2'\n", 5, []string{"token_file"}},
		{"private key", "private_key = \"\"\"\nhunter2\n\"\"\"\n", 1, []string{"key_file"}},
		{"password without quotes", controllerLine + hostText + "password = hunter2\n", 7, []string{"not TOML"}},
		{"password of two lines", "[control]\nsecret = \"\"\"\nhunter2\\q\n\"\"\"\n", 3, []string{"not TOML"}},
		{"login of a host", controllerLine + strings.Replace(hostText, "vc.", "u:hunter2@vc.", 1), 4, []string{"user", "password_file"}},
		{"login of a hook", controllerLine + hookText + "url = \"https://u:hunter2@h/\"\n", 6, []string{"token_file"}},
		{"token in the address of a hook", controllerLine + hookText + "url = \"https://h/?token=hunter2\"\n", 6, []string{"token_file"}},
		{"login of replication", controllerLine + "[replication]\nurl = \"https://u:hunter2@h/\"\n", 3, []string{"token_file"}},
		{"login of an NBD server", export + "uri = \"nbd://u:hunter2@h/x\"\n", 4, []string{"tls-certificates"}},
		{"login of a vCenter", export + "uri = \"vddk://u:hunter2@vc/vm-1?disk=a\"\n", 4, []string{"password-file=/PATH"}},
		{"password of a vCenter", export + "uri = \"vddk://vc/vm-1?disk=a&password=hunter2\"\n", 4, []string{"password-file=/PATH"}},
		{"login of an unknown scheme", export + "uri = \"s3://u:hunter2@h/x\"\n", 4, []string{"secret"}},
		{"login of the disks of a host", "[[export]]\nname = \"x\"\nrole = \"host\"\nvddk = \"vddk://vc?user=u&password=hunter2\"\n", 4, []string{"password-file=/PATH"}},
		{"login of what jobs may open", "[jobs]\nallow = [\"nbd://u:hunter2@h/*\"]\n", 2, []string{"take it out"}},
		{"login of a profile", strings.Replace(profileText, "unix:///run", "https://u:hunter2@h", 1), 3, []string{"token_file"}},
		{"argument of a program", controllerLine + hookText + "command = [\"/bin/true\", \"--password=hunter2\"]\n", 6, []string{"arguments of programs"}},
		{"argument after its name", controllerLine + hookText + "command = [\"/bin/true\", \"--password\", \"hunter2\"]\n", 6, []string{"--password (redacted)", "arguments of programs"}},
	}
}

// TestMistakes: each is told with file, line, column, key, the value, what may be
// and what to do, and with the line of the file; none repeats a secret. The texts
// are kept, so that somebody reads them when they change.
func TestMistakes(t *testing.T) {
	t.Setenv(credential, "")
	ids := regexp.MustCompile(`([A-Z0-9]{7}-)+[A-Z0-9]{7}`)
	var golden strings.Builder
	for _, c := range slices.Concat(fileMistakes(t), controllerMistakes(), openstorageMistakes(), secretMistakes()) {
		t.Run(c.name, func(t *testing.T) {
			text, line := c.text, c.line
			if !strings.Contains(text, "state_dir") { // nor shall this machine's own be read
				text, line = "state_dir = \"STATE\"\n"+text, line+1
			}
			file, dir := write(t, text)
			_, err := Load(file)
			if err == nil {
				t.Fatalf("Load took\n%s", c.text)
			}
			for _, w := range append(c.want, fmt.Sprintf("%s:%d:", file, line)) {
				if !strings.Contains(err.Error(), w) {
					t.Errorf("%q is not in\n%v", w, err)
				}
			}
			for _, m := range strict.Mistakes(err) {
				if m.Line == 0 || m.Column == 0 || m.Place == "" && !strings.Contains(c.text, `"""`) {
					t.Errorf("a mistake without its place: %v", m)
				}
				last := strict.Bare(m.Key[strings.LastIndexByte(m.Key, '.')+1:])
				if !strings.Contains(m.Err.Error(), last) && !strings.Contains(m.Place, last) {
					t.Errorf("a mistake without its key %s: %v", last, m)
				}
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("a secret is repeated:\n%v", err)
			}
			told := strings.ReplaceAll(strings.ReplaceAll(err.Error(), file, "FILE"), dir, "DIR")
			fmt.Fprintf(&golden, "=== %s\n%s\n", c.name, ids.ReplaceAllString(told, "ID"))
		})
	}
	const name = "testdata/mistakes.txt"
	if *update {
		if err := os.WriteFile(name, []byte(golden.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(filepath.FromSlash(name))
	if err != nil {
		t.Fatal(err)
	}
	was := strings.Split(string(want), "\n=== ")
	for i, is := range strings.Split(golden.String(), "\n=== ") {
		if i >= len(was) || was[i] != is {
			t.Fatalf("not what is in %s; read it, and run go test -update\n%s", name, is)
		}
	}
}
