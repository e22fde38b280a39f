package peers

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/haulback/haulback/bench/measure"
	"github.com/haulback/haulback/bench/result"
)

// haulback is the command at the source and the daemon at the target, in all
// ways worth a comparison. Journal, flush and read-back are on in each.
func haulback() []Peer {
	with := func(variant, title string, cases []result.Case, args ...string) Peer {
		p := Peer{Name: "haulback", Variant: variant, Title: "haulback, " + title, Cases: cases, Encrypted: true, prepare: pair}
		p.plan = func(k *Kit, j Job) (Plan, error) {
			return k.Haulback(j, "file://"+j.Disks[0].Target, j.Disks[0].Source, args, nil)
		}
		return p
	}
	few := []result.Case{result.OnePercent, result.TenPercent}
	all := []Peer{
		with("quic", "QUIC", every, "--transport", "quic"),
		with("tls", "TLS 1.3 over TCP", every, "--transport", "tls"),
		needs(with("auto", "transport chosen by measurement", every, "--transport", "auto"), hasAuto),
		needs(with("quic-refine", "QUIC, differences refined to 4 KiB", few, "--transport", "quic", "--refine", "on"), hasRefine),
		asked(needs(with("quic-norefine", "QUIC, whole grains", few, "--transport", "quic", "--refine", "off"), hasRefine)),
		needs(with("quic-lz4", "QUIC, LZ4 always", full, "--transport", "quic", "--compress", "on"), hasCompress),
		asked(needs(with("quic-raw", "QUIC, never LZ4", full, "--transport", "quic", "--compress", "off"), hasCompress)),
		asked(needs(with("tls-lz4", "TLS 1.3 over TCP, LZ4 always", full, "--transport", "tls", "--compress", "on"), hasCompress)),
		asked(needs(with("tls-raw", "TLS 1.3 over TCP, never LZ4", full, "--transport", "tls", "--compress", "off"), hasCompress)),
		needs(with("auto-lz4", "transport chosen by measurement, LZ4 always", full, "--transport", "auto", "--compress", "on"), hasAuto, hasCompress),
	}
	stock := with("quic-stock", "QUIC with the UDP socket of quic-go", full)
	stock.strings = []string{stockSocket}
	stock.plan = func(k *Kit, j Job) (Plan, error) {
		return k.Haulback(j, "file://"+j.Disks[0].Target, j.Disks[0].Source, []string{"--transport", "quic"}, []string{stockSocket + "=stock"})
	}
	return append(all, stock)
}

// What the help says where a flag, or a value of it, is there.
const (
	hasAuto     = `--transport NAME.*\bauto\b`
	hasRefine   = `--refine `
	hasCompress = `--compress `
)

// stockSocket is the environment variable that, as "stock", has haulback use
// quic-go's own UDP socket.
const stockSocket = "HAULBACK_QUIC"

// needs makes a peer one that needs something of haulback copy's help.
func needs(p Peer, flags ...string) Peer {
	p.flags = flags
	return p
}

// asked makes a peer one that runs only when it is asked for: make bench has
// less than an hour, and these tell why another one is as it is.
func asked(p Peer) Peer {
	p.Asked = true
	return p
}

// pair makes two sites with keys that know each other, once for all runs.
func pair(ctx context.Context, k *Kit) ([]string, error) {
	source, target := k.site("source"), k.site("target")
	if _, err := os.Stat(filepath.Join(target, "peers.toml")); err == nil {
		return nil, nil
	}
	id := map[string]string{}
	for _, site := range []string{source, target} {
		out, err := k.run(ctx, "--state-dir", site, "peer", "id")
		if err != nil {
			return nil, err
		}
		id[site] = strings.TrimSpace(out)
	}
	if _, err := k.run(ctx, "--state-dir", source, "peer", "add", id[target], "--name", "target", "--address", k.listen()); err != nil {
		return nil, err
	}
	_, err := k.run(ctx, "--state-dir", target, "peer", "add", id[source], "--name", "source")
	return nil, err
}

func (k *Kit) site(end string) string { return filepath.Join(k.dir, "haulback", end) }

func (k *Kit) listen() string { return fmt.Sprintf("127.0.0.1:%d", port) }

// run runs haulback to its end, which it has 20 s for.
func (k *Kit) run(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, filepath.Join(k.bin, "haulback"), args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("haulback %s: %w: %s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

// fps is how often haulback tells where it is: the tail is known to 50 ms.
const fps = "HAULBACK_PROGRESS_FPS=20"

// Haulback plans a copy from a disk of the command to a disk of the daemon,
// both by any URI, with fresh state directories: no journal of an earlier run.
func (k *Kit) Haulback(j Job, target, source string, args, env []string) (Plan, error) {
	for _, end := range []string{"source", "target"} {
		if err := clone(filepath.Join(j.Dir, end), k.site(end)); err != nil {
			return Plan{}, err
		}
	}
	config := filepath.Join(j.Dir, "haulbackd.toml")
	text := fmt.Sprintf("listen = %q\nstate_dir = %q\n\n[[export]]\nname = \"disk\"\nuri = %q\nrole = \"target\"\npeers = [\"source\"]\n", k.listen(), filepath.Join(j.Dir, "target"), target)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return Plan{}, err
	}
	out, errors := filepath.Join(j.Dir, "haulback.json"), filepath.Join(j.Dir, "haulback.log")
	client := append([]string{filepath.Join(k.bin, "haulback"), "--state-dir", filepath.Join(j.Dir, "source"), "--json", "copy", source, "haulback://" + k.listen() + "/disk?peer=target"}, args...)
	return Plan{
		Servers: []Server{{
			Command: measure.Command{
				End: result.Target, Args: []string{filepath.Join(k.bin, "haulbackd"), "run", "--config", config},
				Env: env, Stderr: filepath.Join(j.Dir, "haulbackd.log"),
			}, Log: readyLine,
		}},
		Clients: []measure.Command{{End: result.Source, Args: client, Env: append(env[:len(env):len(env)], fps), Stdout: out, Stderr: errors}},
		Read: func() (map[string]float64, string, error) {
			f, err := os.Open(out)
			if err != nil {
				return nil, "", err
			}
			defer f.Close()
			return parseReport(f)
		},
	}, nil
}

// readyLine is in the log of a daemon that listens.
const readyLine = `"msg":"haulbackd ready"`

// clone copies the files of a state directory, which are few and small.
func clone(to, from string) error {
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	for _, name := range []string{"identity.key", "peers.toml"} {
		b, err := os.ReadFile(filepath.Join(from, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), b, 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// reportLine is what is read of a JSON line of haulback copy.
type reportLine struct {
	Type      string    `json:"message_type"`
	Time      time.Time `json:"time"`
	State     string    `json:"state"`
	Sent      int64     `json:"sent"`
	SentWire  int64     `json:"sent_wire"`
	Compared  int64     `json:"compared"`
	ReadBack  int64     `json:"read_back"`
	Transport string    `json:"actual_transport"`
	Why       string    `json:"transport_reason"`
	Lost      *int64    `json:"packets_lost"`
	Phases    []struct {
		Name   string `json:"name"`
		Millis int64  `json:"duration_ms"`
	} `json:"phases"`
	Text string `json:"text"`
}

// parseReport reads what haulback copy --json printed. The tail runs from the
// first line that tells that everything was sent to the summary.
func parseReport(in io.Reader) (map[string]float64, string, error) {
	var last, status reportLine
	var grew time.Time // when more had been sent than before, the last time
	b := bufio.NewScanner(in)
	b.Buffer(nil, 1<<20)
	for b.Scan() {
		var l reportLine
		if err := json.Unmarshal(b.Bytes(), &l); err != nil {
			return nil, "", fmt.Errorf("haulback printed %q: %w", b.Text(), err)
		}
		switch l.Type {
		case "status":
			if l.Sent > status.Sent || grew.IsZero() {
				grew = l.Time
			}
			status = l
		case "summary":
			last = l
		case "exit_error":
			return nil, "", errors.New(l.Text)
		}
	}
	if err := b.Err(); err != nil {
		return nil, "", err
	}
	if last.Type == "" || !strings.HasPrefix(last.State, "Verified") {
		return nil, "", fmt.Errorf("haulback ended without Verified: state %q", last.State)
	}
	extra := map[string]float64{
		result.ExtraSent: float64(last.Sent), result.ExtraSentWire: float64(last.SentWire),
		result.ExtraCompared: float64(last.Compared), result.ExtraReadBack: float64(last.ReadBack),
	}
	switch {
	case grew.IsZero(): // it was over before it could tell anything
	case status.Sent == last.Sent:
		extra[result.ExtraTail] = last.Time.Sub(grew).Seconds()
	default: // it ended while it was sending: at most what is left since the last word
		extra[result.ExtraTail] = last.Time.Sub(status.Time).Seconds()
	}
	if last.Lost != nil {
		extra[result.ExtraLost] = float64(*last.Lost)
	}
	for _, p := range last.Phases {
		extra[result.ExtraCopy] += float64(p.Millis) / 1000
	}
	note := last.Transport
	if last.Why != "" {
		note += ": " + last.Why
	}
	return extra, note, nil
}
