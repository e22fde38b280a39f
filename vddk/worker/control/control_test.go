package control

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"
)

var requests = []Request{
	{ID: 1, Start: &Start{
		Version: 1, Server: "vc", Port: 443, VM: "vm-42", Thumbprint: "AA:BB", User: "root", Password: "p\"w\n", Dir: "/run/x",
		Guard: true, StateDir: "/var/lib/x", CallLimit: time.Minute, IOLimit: time.Second,
	}},
	{ID: 2, Open: &Open{Path: "[ds] a/b.vmdk", Snapshot: "snapshot-7", Transports: "nbd", ReadOnly: true, MaxRequest: 1 << 21}},
	{ID: 3, Close: &Close{Export: "disk-1"}},
	{ID: 4, Ping: &struct{}{}},
}

var messages = []Message{
	{ID: 1, Started: &Started{Library: "8", Modes: "nbd", Socket: "/run/x/nbd.sock"}},
	{ID: 2, Opened: &Opened{Export: "disk-1", Size: 512, Mode: "nbdssl"}},
	{ID: 3, Error: &Error{Text: "no", Retry: true, Errno: syscall.EBUSY}},
	{Log: &Log{Level: 1, Text: "line"}},
	{Failed: &Failed{Export: "disk-1", Off: 512, Len: 1024, Error: &Error{Text: "no"}}},
	{Failed: &Failed{Export: "disk-1", Flush: true, Error: &Error{Text: "no"}}},
	{Fatal: "it hangs"},
}

func TestThereAndBack(t *testing.T) {
	var buf bytes.Buffer
	w := NewWriter(&buf)
	for _, r := range requests {
		if err := w.Write(r); err != nil {
			t.Fatal(err)
		}
	}
	lines := Lines(&buf)
	for i := 0; lines.Scan(); i++ {
		got, err := ParseRequest(lines.Bytes())
		if err != nil || !reflect.DeepEqual(*got, requests[i]) {
			t.Errorf("%s: got %+v, %v", lines.Bytes(), got, err)
		}
	}
	for _, m := range messages {
		b, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseMessage(b)
		if err != nil || !reflect.DeepEqual(*got, m) {
			t.Errorf("%s: got %+v, %v", b, got, err)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, line := range []string{
		"", "{}", "null", "[]", `{"id":1}`, `{"id":0,"ping":{}}`, `{"id":1,"ping":{},"close":{"export":"x"}}`, `{"id":1,"ping":{}}{}`,
		`{"id":1,"pong":{}}`, `{"id":-1,"ping":{}}`, `{"id":1,"start":{"version":2}}`, `{"id":1,"start":{"version":1,"password":"hunter22","x":1}}`,
		`{"id":1,"start":{"version":1,"password":"hunter22"`, `{"id":1,"start":{"version":1,"password":"hunter22","port":70000}}`,
	} {
		r, err := ParseRequest([]byte(line))
		if err == nil {
			t.Errorf("%s: got %+v, want an error", line, r)
		} else if strings.Contains(err.Error(), "hunter22") {
			t.Errorf("%s: the error has the password in it: %v", line, err)
		}
	}
	for _, line := range []string{"", "x", `{"opened":{"export":"","size":1}}`, `{"opened":{"export":"a","size":-1}}`, `{"id":"1"}`} {
		if m, err := ParseMessage([]byte(line)); err == nil {
			t.Errorf("%s: got %+v, want an error", line, m)
		}
	}
	if lines := Lines(strings.NewReader(strings.Repeat("x", MaxLine+1))); lines.Scan() || lines.Err() == nil {
		t.Error("a line of more than MaxLine bytes was read")
	}
	if NewWriter(&bytes.Buffer{}).Write(Message{Fatal: strings.Repeat("x", MaxLine)}) == nil {
		t.Error("a line of more than MaxLine bytes was written")
	}
}

func TestSecretIsHidden(t *testing.T) {
	s := Start{Password: "hunter22", Cookie: "hunter23"}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("start", "password", s.Password, "start", s)
	for _, text := range []string{fmt.Sprintf("%v %+v %#v %s", s, s, s, s.Password), log.String()} {
		if strings.Contains(text, "hunter") {
			t.Errorf("a secret in %s", text)
		}
	}
}

func TestError(t *testing.T) {
	if NewError(nil) != nil {
		t.Error("an error of nil")
	}
	e := NewError(fmt.Errorf("open: %w", &Error{Text: "x", Retry: true, Errno: syscall.EBUSY}))
	if e.Text != "open: x" || !e.Retryable() || !errors.Is(e, syscall.EBUSY) {
		t.Errorf("got %+v", e)
	}
	if e := NewError(errors.New("x")); e.Retryable() || errors.Unwrap(e) != nil {
		t.Errorf("got %+v", e)
	}
}

func FuzzParse(f *testing.F) {
	for _, r := range requests {
		b, _ := json.Marshal(r)
		f.Add(b)
	}
	for _, m := range messages {
		b, _ := json.Marshal(m)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		if r, err := ParseRequest(line); err == nil {
			again, err := json.Marshal(r)
			if err != nil {
				t.Fatal(err)
			}
			if s, err := ParseRequest(again); err != nil || !reflect.DeepEqual(r, s) {
				t.Errorf("%q: got %+v, %v, want %+v", again, s, err, r)
			}
		}
		if m, err := ParseMessage(line); err == nil {
			again, err := json.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			if s, err := ParseMessage(again); err != nil || !reflect.DeepEqual(m, s) {
				t.Errorf("%q: got %+v, %v, want %+v", again, s, err, m)
			}
		}
	})
}
