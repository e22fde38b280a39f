package peers

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/haulback/haulback/bench/measure"
	"github.com/haulback/haulback/bench/payload"
	"github.com/haulback/haulback/bench/result"
)

// links send bytes through an encrypted link, from haulbench to haulbench.
func links() []Peer {
	one := func(name, variant, title, transport string) Peer {
		return Peer{
			Name: name, Variant: variant, Title: "payload only: " + title, Encrypted: true, Reads: true, Cases: []result.Case{result.Payload}, prepare: pair,
			plan: func(k *Kit, j Job) (Plan, error) { return k.payload(j, transport) },
		}
	}
	return []Peer{
		one("crypto/tls", "", "crypto/tls over TCP, as Go has it", payload.Raw),
		one("haulback", "quic", "QUIC of package wire", payload.QUIC),
		one("haulback", "tls", "TLS over TCP of package wire", payload.TLS),
		one("haulback", "quic-stock", "QUIC with the UDP socket of quic-go", payload.Stock),
	}
}

// payload plans to send as many bytes as the disks have.
func (k *Kit) payload(j Job, transport string) (Plan, error) {
	self, err := os.Executable()
	if err != nil {
		return Plan{}, err
	}
	out := filepath.Join(j.Dir, "payload.json")
	common := []string{"--transport", transport, "--address", k.listen(), "--source-key", filepath.Join(k.site("source"), "identity.key"), "--target-key", filepath.Join(k.site("target"), "identity.key")}
	return Plan{
		Servers: []Server{{
			Command: measure.Command{End: result.Target, Args: append([]string{self, "payload", "receive"}, common...), Stderr: filepath.Join(j.Dir, "receive.log")},
			Log:     PayloadReady,
		}},
		Clients: []measure.Command{{
			End: result.Source, Args: append([]string{self, "payload", "send", "--bytes", fmt.Sprint(j.Size)}, common...),
			Stdout: out, Stderr: filepath.Join(j.Dir, "send.log"),
		}},
		Read: func() (map[string]float64, string, error) {
			text, err := os.ReadFile(out)
			if err != nil {
				return nil, "", err
			}
			var r payload.Result
			if err := json.Unmarshal(text, &r); err != nil || r.Seconds <= 0 {
				return nil, "", fmt.Errorf("the sender printed %q: %w", text, err)
			}
			extra := map[string]float64{result.ExtraRate: float64(r.Bytes) / r.Seconds, result.ExtraSent: float64(r.Bytes)}
			if r.Sent > 0 {
				extra[result.ExtraLost] = float64(r.Lost)
			}
			return extra, fmt.Sprintf("%.0f MiB/s, %d connections, %d of %d packets lost", float64(r.Bytes)/r.Seconds/(1<<20), r.Conns, r.Lost, r.Sent), nil
		},
	}, nil
}

// PayloadReady is what "haulbench payload receive" writes where errors go when it listens.
const PayloadReady = "payload: ready"
