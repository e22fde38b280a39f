package osdtest

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/libopenstorage/openstorage/api"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
)

// TestTokens is what was measured on the reference server: who asks, and what they may.
func TestTokens(t *testing.T) {
	dir := t.TempDir()
	s, guest := start(t, Config{Dir: dir, Auth: true})
	alice, bob := guest.as(s.Token("alice", "system.user", time.Hour)), guest.as(s.Token("bob", "system.user", time.Hour))
	admin, view := guest.as(s.Token("root", "system.admin", time.Hour)), guest.as(s.Token("eve", "system.view", time.Hour))

	id := must(t)(alice.create("data", mib, nil))
	if o := alice.inspect(id).GetSpec().GetOwnership().GetOwner(); o != "alice" || s.Volumes()[0].Owner != "alice" {
		t.Errorf("owner %q", o)
	}
	_, err := bob.volume.Inspect(bob.ctx, &api.SdkVolumeInspectRequest{VolumeId: id})
	wants(t, err, codes.PermissionDenied, "Access denied to volume")
	_, err = bob.plug(id)
	wants(t, err, codes.PermissionDenied, "")
	_, err = bob.create("data", mib, nil)
	wants(t, err, codes.PermissionDenied, "owned by another user")
	if all, err := bob.volume.Enumerate(bob.ctx, &api.SdkVolumeEnumerateRequest{}); err != nil || len(all.GetVolumeIds()) != 0 {
		t.Errorf("bob sees %v, %v", all, err)
	}
	admin.inspect(id)
	if snapshot := must(t)(alice.snapshot(id, "s", nil)); alice.inspect(snapshot).GetSpec().GetOwnership().GetOwner() != "alice" {
		t.Error("a snapshot belongs to another one than its volume")
	}

	_, err = view.identity.Version(view.ctx, &api.SdkIdentityVersionRequest{})
	ok(t, err)
	_, err = view.create("v", mib, nil)
	wants(t, err, codes.PermissionDenied, "Create")

	public := must(t)(guest.create("public", mib, nil))
	must(t)(guest.plug(public))
	bob.inspect(public)
	_, err = guest.identity.Version(guest.ctx, &api.SdkIdentityVersionRequest{})
	ok(t, err)
	_, err = guest.node.InspectCurrent(guest.ctx, &api.SdkNodeInspectCurrentRequest{})
	ok(t, err)
	_, err = guest.identity.Capabilities(guest.ctx, &api.SdkIdentityCapabilitiesRequest{})
	wants(t, err, codes.PermissionDenied, "without authentication token")
	_, err = guest.volume.Inspect(guest.ctx, &api.SdkVolumeInspectRequest{VolumeId: id})
	wants(t, err, codes.PermissionDenied, "")
	s.Set(func(q *Quirks) { q.NoGuest = true })
	_, err = guest.create("g", mib, nil)
	wants(t, err, codes.PermissionDenied, "without authentication token")

	// the secret stays
	ok(t, s.Close())
	s, guest = start(t, Config{Dir: dir, Auth: true})
	text, err := os.ReadFile(s.TokenFile())
	ok(t, err)
	if st, err := os.Stat(s.TokenFile()); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	must(t)(guest.as(strings.TrimSpace(string(text))).create("more", mib, nil))
	guest.as(strings.TrimPrefix(alice.token(t), "bearer ")).inspect(id)
}

func TestBadTokens(t *testing.T) {
	s, guest := start(t, Config{Auth: true})
	foreign := s.Claims("alice", "system.user", time.Hour)
	foreign["iss"] = "nobody"
	nameless := s.Claims("alice", "system.user", time.Hour)
	delete(nameless, "email")
	for _, tt := range []struct {
		name, token, text string
		code              codes.Code
	}{
		{"expired", s.Token("alice", "system.user", -time.Minute), "Unable to authenticate token", codes.PermissionDenied},
		{"signature", Sign([]byte("guess"), s.Claims("alice", "system.user", time.Hour)), "Unable to authenticate token", codes.PermissionDenied},
		{"a claim is missing", Sign(s.secret, nameless), "Unable to authenticate token", codes.PermissionDenied},
		{"issuer", Sign(s.secret, foreign), "nobody is not a trusted issuer", codes.Unauthenticated},
		{"no JWT", "secret", "Unable to obtain token issuer", codes.Unauthenticated},
		{"empty", "", "Invalid or missing", codes.Unauthenticated},
		{"role", s.Token("alice", "nothing", time.Hour), "Create", codes.PermissionDenied},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := guest.as(tt.token).create("data", mib, nil)
			wants(t, err, tt.code, tt.text)
		})
	}
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	s, without := start(t, Config{Dir: dir, Listen: "127.0.0.1:0", TLS: true})
	_, err := without.create("data", mib, nil)
	wants(t, err, codes.Unavailable, "") // "error reading server preface: EOF", or a reset
	trust, err := credentials.NewClientTLSFromFile(s.CAFile(), "")
	ok(t, err)
	must(t)(dial(t, s.Endpoint(), withTLS(trust)).create("data", mib, nil))
	ok(t, s.Close())
	s, _ = start(t, Config{Dir: dir, Listen: "127.0.0.1:0", TLS: true})
	must(t)(dial(t, s.Endpoint(), withTLS(trust)).create("more", mib, nil)) // the certificate stays
	s.Set(func(q *Quirks) { q.LoseReplies = map[string]int{"Create": 1} })
	_, err = dial(t, s.Endpoint(), withTLS(trust)).create("lost", mib, nil)
	wants(t, err, codes.Unavailable, "")
}

func TestConfig(t *testing.T) {
	dir := t.TempDir()
	for name, cfg := range map[string]Config{
		"no directory": {}, "not there": {Dir: dir + "/none"}, "a socket with TLS": {Dir: dir, TLS: true},
		"all addresses": {Dir: dir, Listen: "0.0.0.0:0"}, "no port": {Dir: dir, Listen: "127.0.0.1"}, "a name": {Dir: dir, Listen: "localhost:1"},
	} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%s: it serves", name)
		}
	}
	long := dir + "/" + strings.Repeat("long", 30)
	ok(t, os.Mkdir(long, 0o700))
	_, c := start(t, Config{Dir: long}) // longer than a socket's path can be
	must(t)(c.create("data", mib, nil))
}
