package simvs

import (
	"bytes"
	"encoding/xml"
	"io"
	"net/http"
	"sync"
)

// dropper loses replies: the call is executed and its client hears nothing.
type dropper struct {
	mu    sync.Mutex
	plans []*dropPlan
}

type dropPlan struct {
	method string
	nth    int
}

// add plans the loss of the reply to the nth call of method from now on (1: the
// next one).
func (d *dropper) add(method string, nth int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.plans = append(d.plans, &dropPlan{method, max(nth, 1)})
}

// hit counts a call and reports whether its reply is to be lost.
func (d *dropper) hit(method string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	lost := false
	for i := 0; i < len(d.plans); i++ {
		p := d.plans[i]
		if p.method != method && p.method != "*" {
			continue
		}
		if p.nth--; p.nth == 0 {
			lost = true
			d.plans = append(d.plans[:i], d.plans[i+1:]...)
			i--
		}
	}
	return lost
}

func (d *dropper) idle() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.plans) == 0
}

// wrap puts the dropper in front of a handler.
func (d *dropper) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost || d.idle() {
			next.ServeHTTP(w, r)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return // the client is gone
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		if !d.hit(soapMethod(body)) {
			next.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(nowhere{http.Header{}}, r)
		panic(http.ErrAbortHandler) // closes the connection without an answer
	})
}

// soapMethod is the first element of the body of an envelope.
func soapMethod(text []byte) string {
	d := xml.NewDecoder(bytes.NewReader(text))
	inside := false
	for {
		token, err := d.Token()
		if err != nil {
			return ""
		}
		start, ok := token.(xml.StartElement)
		switch {
		case !ok:
		case inside:
			return start.Name.Local
		case start.Name.Local == "Body":
			inside = true
		}
	}
}

// nowhere takes an answer that nobody gets.
type nowhere struct{ header http.Header }

func (n nowhere) Header() http.Header       { return n.header }
func (nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (nowhere) WriteHeader(int)             {}
