package control

import (
	"net"
	"os"
	"testing"
	"time"
)

// TestCrowd is a program that opens connections and forgets them: other users are
// answered, and the same one again when he closes some.
func TestCrowd(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root to be somebody else")
	}
	r := newRig(t, func(c *Config) {
		c.Group, c.Bounds.Connections, c.Bounds.HeaderTime = "64322", 8, time.Minute
	})
	var open []net.Conn
	for range 20 {
		c, err := net.Dial("unix", r.socket)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		open = append(open, c)
	}
	const list = "http://haulback/haulback.v1.Jobs/List?encoding=json&message=%7B%7D"
	if p := r.curlAs(stranger, strangerGroup, nil, list); p.status != 200 {
		t.Errorf("another user: %+v", p)
	}
	if p := r.curlAs(0, 0, nil, list); p.code == 0 {
		t.Errorf("the same user: %+v", p)
	}
	closed := 0
	for _, c := range open {
		_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
		if _, err := c.Read(make([]byte, 1)); err != nil && !os.IsTimeout(err) {
			closed++
		}
	}
	if closed != 16 {
		t.Errorf("%d of 20 are closed, want 16", closed)
	}
	for _, c := range open {
		c.Close()
	}
	wait(t, "the same user to be answered", func() bool { return r.curlAs(0, 0, nil, list).status == 200 })
}
