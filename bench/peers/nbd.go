package peers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/haulback/haulback/bench/measure"
	"github.com/haulback/haulback/bench/result"
)

// nbdcopy copies all that is allocated to an nbdkit with a file behind it. It is
// told that the target is empty, which makes it faster. It does not flush, but for
// one variant, which ends as haulback does: with all of it on the disk.
func nbdcopy() []Peer {
	tools := []string{"nbdcopy", "nbdkit"}
	return []Peer{
		{Name: "nbdcopy", Variant: "plain", Title: "nbdcopy to nbdkit, not encrypted, not flushed", Cases: full, tools: tools, plan: nbdcopyPlan(false, false)},
		{
			Name: "nbdcopy", Variant: "tls", Title: "nbdcopy to nbdkit, TLS 1.3 with certificates both ways, not flushed", Cases: full, Encrypted: true,
			tools: append(tools, "certtool", "nbdinfo"), prepare: certificates, plan: nbdcopyPlan(true, false),
		},
		{
			Name: "nbdcopy", Variant: "tls-flush", Title: "the same, flushed at its end", Cases: full, Encrypted: true,
			tools: append(tools, "certtool", "nbdinfo"), prepare: certificates, plan: nbdcopyPlan(true, true),
		},
	}
}

func nbdcopyPlan(tls, flush bool) func(*Kit, Job) (Plan, error) {
	return func(k *Kit, j Job) (Plan, error) {
		server := []string{"nbdkit", "-f", "-i", "127.0.0.1", "-p", fmt.Sprint(port), "--pidfile=" + filepath.Join(j.Dir, "nbdkit.pid")}
		uri := fmt.Sprintf("nbd://127.0.0.1:%d", port)
		if tls {
			server = append(server, "--tls=require", "--tls-verify-peer", "--tls-certificates="+k.certs("server"))
			uri = fmt.Sprintf("nbds://127.0.0.1:%d?tls-certificates=%s", port, k.certs("client"))
		}
		client := []string{"nbdcopy", "--destination-is-zero"}
		if flush {
			client = append(client, "--flush")
		}
		return Plan{
			Servers: []Server{{
				Command: measure.Command{End: result.Target, Args: append(server, "file", j.Disks[0].Target), Stderr: filepath.Join(j.Dir, "nbdkit.log")}, TCP: port,
			}},
			Clients: []measure.Command{{End: result.Source, Args: append(client, j.Disks[0].Source, uri), Stderr: filepath.Join(j.Dir, "nbdcopy.log")}},
		}, nil
	}
}

// qemu is qemu-img convert to qemu-nbd.
func qemu() []Peer {
	return []Peer{{
		Name: "qemu-img", Title: "qemu-img convert to qemu-nbd, 16 requests, not encrypted", Cases: full, tools: []string{"qemu-img", "qemu-nbd"},
		plan: func(_ *Kit, j Job) (Plan, error) {
			return Plan{
				Servers: []Server{{
					Command: measure.Command{
						End: result.Target, Stderr: filepath.Join(j.Dir, "qemu-nbd.log"),
						Args: []string{"qemu-nbd", "-t", "-f", "raw", "-e", "16", "-b", "127.0.0.1", "-p", fmt.Sprint(port), j.Disks[0].Target},
					}, TCP: port,
				}},
				Clients: []measure.Command{{
					End: result.Source, Stderr: filepath.Join(j.Dir, "qemu-img.log"),
					Args: []string{"qemu-img", "convert", "-n", "--target-is-zero", "-W", "-m", "16", "-f", "raw", "-O", "raw", j.Disks[0].Source, fmt.Sprintf("nbd://127.0.0.1:%d", port)},
				}},
			}, nil
		},
	}}
}

// certs is the directory with an end's certificates, by the names that nbdkit
// and libnbd look for.
func (k *Kit) certs(end string) string { return filepath.Join(k.dir, "x509", end) }

// certificates makes an authority and a certificate for each end, and looks
// which cipher the two programs agree on: a peer that is slow because of its
// cipher would flatter us.
func certificates(ctx context.Context, k *Kit) ([]string, error) {
	dir := filepath.Join(k.dir, "x509")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	ca, caKey := filepath.Join(dir, "ca-cert.pem"), filepath.Join(dir, "ca-key.pem")
	if err := certtool(ctx, dir, "cn = haulbench\nca\ncert_signing_key\nexpiration_days = 3650\n", caKey, "--generate-self-signed", "--load-privkey", caKey, "--outfile", ca); err != nil {
		return nil, err
	}
	for end, usage := range map[string]string{"server": "tls_www_server\nip_address = 127.0.0.1\ndns_name = 127.0.0.1\n", "client": "tls_www_client\n"} {
		if err := os.MkdirAll(k.certs(end), 0o700); err != nil {
			return nil, err
		}
		key, cert := filepath.Join(k.certs(end), end+"-key.pem"), filepath.Join(k.certs(end), end+"-cert.pem")
		template := "cn = " + end + "\norganization = haulbench\nsigning_key\nencryption_key\nexpiration_days = 3650\n" + usage
		if err := certtool(ctx, dir, template, key, "--generate-certificate", "--load-privkey", key, "--load-ca-certificate", ca, "--load-ca-privkey", caKey, "--outfile", cert); err != nil {
			return nil, err
		}
		pem, err := os.ReadFile(ca)
		if err == nil {
			err = os.WriteFile(filepath.Join(k.certs(end), "ca-cert.pem"), pem, 0o600)
		}
		if err != nil {
			return nil, err
		}
	}
	cipher, err := k.cipher(ctx)
	if err != nil {
		return nil, err
	}
	if !strings.Contains(cipher, "AES_256_GCM") {
		return nil, fmt.Errorf("nbdkit and libnbd agree on %s and not on AES-256-GCM: its speed would not be comparable", cipher)
	}
	return []string{"cipher negotiated: " + cipher}, nil
}

// certtool makes a key and with it a certificate by a template. It has up to
// 20 s: an RSA key of 3072 bits takes one.
func certtool(ctx context.Context, dir, template, key string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	file := filepath.Join(dir, "template")
	if err := os.WriteFile(file, []byte(template), 0o600); err != nil {
		return err
	}
	for _, a := range [][]string{{"--generate-privkey", "--key-type=ecdsa", "--curve=secp256r1", "--outfile", key}, append([]string{"--template", file}, args...)} {
		if out, err := exec.CommandContext(ctx, "certtool", a...).CombinedOutput(); err != nil {
			return fmt.Errorf("certtool %s: %w: %s", strings.Join(a, " "), err, out)
		}
	}
	return nil
}

// suite is what GnuTLS logs of a handshake.
var suite = regexp.MustCompile(`Selected cipher suite: (\S+)`)

// cipher lets nbdinfo look at an nbdkit, in a room of their own, with GnuTLS
// telling what it does.
func (k *Kit) cipher(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	room, err := measure.NewRoom("cipher", nil)
	if err != nil {
		return "", err
	}
	defer room.Close()
	log := filepath.Join(k.dir, "x509", "nbdinfo.log")
	server := []string{"nbdkit", "-f", "-i", "127.0.0.1", "-p", fmt.Sprint(port), "--tls=require", "--tls-verify-peer", "--tls-certificates=" + k.certs("server"), "null", "1M"}
	if _, err := room.Start(measure.Command{End: result.Target, Args: server}); err != nil {
		return "", err
	}
	if err := room.Listens(ctx, "tcp", port); err != nil {
		return "", err
	}
	uri := fmt.Sprintf("nbds://127.0.0.1:%d?tls-certificates=%s", port, k.certs("client"))
	client, err := room.Start(measure.Command{End: result.Source, Args: []string{"nbdinfo", "--size", uri}, Env: []string{"GNUTLS_DEBUG_LEVEL=4"}, Stderr: log})
	if err != nil {
		return "", err
	}
	_, exit, err := client.Wait(ctx)
	text, _ := os.ReadFile(log)
	if err != nil || exit != 0 {
		return "", errors.Join(err, fmt.Errorf("nbdinfo %s: exit code %d: %s", uri, exit, tail(string(text))))
	}
	m := suite.FindSubmatch(text)
	if m == nil {
		return "", fmt.Errorf("GnuTLS does not say which cipher it chose: %s", tail(string(text)))
	}
	return strings.TrimPrefix(string(m[1]), "GNUTLS_"), nil
}

// tail is the end of what a program said.
func tail(text string) string {
	text = strings.TrimSpace(text)
	return text[max(0, len(text)-400):]
}

// shell quotes a path for a script.
func shell(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
