package control

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	controlv1 "github.com/haulback/haulback/wire/control/v1"
)

// TestPython drives a job with a client that Debian's tools made of the .proto.
func TestPython(t *testing.T) {
	r, _ := newController(t, nil)
	gen := t.TempDir()
	source, err := filepath.Abs("../../../wire/control/v1")
	if err != nil {
		t.Fatal(err)
	}
	plugin, err := exec.LookPath("grpc_python_plugin")
	if err != nil {
		t.Fatalf("%v; install it with apt-get install protobuf-compiler protobuf-compiler-grpc libprotobuf-dev python3-grpcio", err)
	}
	out, err := exec.CommandContext(t.Context(), "protoc", "-I", source, "--python_out="+gen, "--plugin=protoc-gen-grpc_python="+plugin,
		"--grpc_python_out="+gen, "haulback.proto").CombinedOutput()
	if err != nil {
		t.Fatalf("protoc: %v\n%s", err, out)
	}
	// not the python3 of the PATH: Debian's has Debian's modules
	cmd := exec.CommandContext(t.Context(), "/usr/bin/python3", "testdata/client.py", r.socket)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+gen, "PYTHONDONTWRITEBYTECODE=1")
	if out, err = cmd.CombinedOutput(); err != nil || !strings.HasSuffix(string(out), "version v0.0.0-test\ndone\n") {
		t.Fatalf("%v\n%s", err, out)
	}
	if e := r.audited("/haulback.v1.Jobs/Submit", "ALREADY_EXISTS"); e.Object != "python-1" || e.Code != "already_exists" {
		t.Errorf("audit: %+v", e)
	}
}

// httpClient speaks HTTP/1.1 on the socket.
func (r *rig) httpClient() *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", r.socket)
	}}}
}

// TestGRPCWeb speaks gRPC-Web by hand: frames of a flag byte, four bytes of
// length and a message; the trailers are the last frame.
func TestGRPCWeb(t *testing.T) {
	r := newRig(t, nil)
	for _, c := range []struct {
		name, id, status string
	}{
		{"not found", "absent", "5"},
		{"found", "web-1", "0"},
	} {
		if c.status == "0" {
			r.call("Jobs/Submit", spec(c.id, "vm"))
		}
		msg, err := proto.Marshal(&controlv1.GetRequest{Id: c.id})
		if err != nil {
			t.Fatal(err)
		}
		frame := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(msg))), msg...)
		resp, err := r.httpClient().Post("http://haulback/haulback.v1.Jobs/Get", "application/grpc-web+proto", bytes.NewReader(frame))
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/grpc-web+proto" {
			t.Fatalf("%s: %v %v %v", c.name, err, resp.Status, resp.Header)
		}
		status := resp.Header.Get("Grpc-Status") // an answer of trailers only has them there
		var got controlv1.GetResponse
		for len(body) >= 5 {
			n := binary.BigEndian.Uint32(body[1:])
			part := body[5 : 5+n]
			if body[0]&0x80 != 0 {
				_, rest, _ := strings.Cut(strings.ToLower(string(part)), "grpc-status:")
				status = strings.TrimSpace(strings.SplitN(rest, "\r\n", 2)[0])
			} else if err := proto.Unmarshal(part, &got); err != nil {
				t.Fatal(err)
			}
			body = body[5+n:]
		}
		if status != c.status || (c.status == "0") != (got.Job.GetId() == c.id) {
			t.Errorf("%s: status %q, job %v", c.name, status, got.Job)
		}
	}
}
