package peers

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/haulback/haulback/bench/measure"
	"github.com/haulback/haulback/bench/result"
)

// special are haulback's ways for cases that other programs have no answer to.
func special() []Peer {
	const variant = "quic"
	transport := []string{"--transport", "quic"}
	return []Peer{
		{
			Name: "haulback", Variant: variant, Title: "haulback, QUIC, with change tracking: qemu-nbd with a dirty bitmap as the source", Encrypted: true,
			Cases: []result.Case{result.Hint, result.HintSmall, result.HintLarge}, tools: []string{"qemu-img", "qemu-io", "qemu-nbd"}, prepare: pair,
			plan: func(k *Kit, j Job) (Plan, error) { return k.hinted(j, transport) },
		},
		{
			Name: "haulback", Variant: variant, Title: "haulback, QUIC, sparse disk of 1 TiB", Encrypted: true, Cases: []result.Case{result.Huge}, prepare: pair,
			plan: func(k *Kit, j Job) (Plan, error) {
				return k.Haulback(j, "file://"+j.Disks[0].Target, j.Disks[0].Source, transport, nil)
			},
		},
		{
			Name: "haulback", Variant: variant, Title: "haulback, QUIC, a job of all disks between two daemons", Encrypted: true,
			Cases: []result.Case{result.ManyDisks, result.OneDisk}, prepare: pair, plan: jobPlan,
		},
	}
}

// hinted plans a copy whose source is served by qemu-nbd with a dirty bitmap;
// it belongs to the source's end.
func (k *Kit) hinted(j Job, args []string) (Plan, error) {
	socket := filepath.Join(j.Dir, "nbd.sock")
	p, err := k.Haulback(j, "file://"+j.Disks[0].Target, "nbd+unix:///?socket="+socket, append(args[:len(args):len(args)], "--cbt", "bitmap:"+Bitmap, "--strict"), nil)
	if err != nil {
		return p, err
	}
	p.Servers = append(p.Servers, Server{
		Command: measure.Command{
			End: result.Source, Stderr: filepath.Join(j.Dir, "qemu-nbd.log"),
			Args: []string{"qemu-nbd", "-r", "-t", "-e", "16", "-f", "qcow2", "-B", Bitmap, "-A", "-k", socket, j.Disks[0].Tracked},
		}, Unix: socket,
	})
	return p, nil
}

// jobSpec is a job as docs/api.md has it.
type jobSpec struct {
	Mode      string    `json:"mode"`
	Disks     []jobDisk `json:"disks"`
	Transport string    `json:"transport"`
}

type jobDisk struct {
	Name   string `json:"name"`
	Source string `json:"source"`
	Target string `json:"target"`
}

// jobPlan is a job of all disks, from the daemon at the source to that at the target.
func jobPlan(k *Kit, j Job) (Plan, error) {
	p, err := k.Haulback(j, "file://"+j.Disks[0].Target, j.Disks[0].Source, nil, nil)
	if err != nil {
		return p, err
	}
	spec := jobSpec{Mode: "MODE_COPY", Transport: "quic"}
	exports := fmt.Sprintf("listen = %q\nstate_dir = %q\n", k.listen(), filepath.Join(j.Dir, "target"))
	for i, d := range j.Disks {
		name := fmt.Sprintf("disk%02d", i)
		exports += fmt.Sprintf("\n[[export]]\nname = %q\nuri = %q\nrole = \"target\"\npeers = [\"source\"]\n", name, "file://"+d.Target)
		spec.Disks = append(spec.Disks, jobDisk{name, d.Source, "haulback://" + k.listen() + "/" + name + "?peer=target"})
	}
	text, err := json.Marshal(spec)
	if err != nil {
		return p, err
	}
	source := filepath.Join(j.Dir, "source.toml")
	for file, content := range map[string]string{
		filepath.Join(j.Dir, "haulbackd.toml"): exports,
		filepath.Join(j.Dir, "job.json"):       string(text),
		source:                                 fmt.Sprintf("listen = \"127.0.0.1:%d\"\nstate_dir = %q\n", port+1, filepath.Join(j.Dir, "source")),
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			return p, err
		}
	}
	p.Servers = append(p.Servers, Server{
		Command: measure.Command{End: result.Source, Args: []string{filepath.Join(k.bin, "haulbackd"), "run", "--config", source}, Stderr: filepath.Join(j.Dir, "source.log")},
		Log:     readyLine,
	})
	p.Clients[0].Args = []string{filepath.Join(k.bin, "haulback"), "--state-dir", filepath.Join(j.Dir, "source"), "job", "submit", "--spec", filepath.Join(j.Dir, "job.json"), "--wait"}
	p.Read = nil // the exit code says whether all are Verified
	return p, nil
}
