package simvs_test

import (
	"bytes"
	"crypto/tls"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmware/govmomi/fault"
	"github.com/vmware/govmomi/vim25/types"

	"github.com/haulback/haulback/hostctl/simvs"
)

// speak sends the body of an envelope with nothing of govmomi's.
func speak(t *testing.T, c *http.Client, url, body string) (status int, answer string) {
	t.Helper()
	envelope := `<?xml version="1.0"?><e:Envelope xmlns:e="http://schemas.xmlsoap.org/soap/envelope/" xmlns="urn:vim25"><e:Body>` + body + `</e:Body></e:Envelope>`
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url, strings.NewReader(envelope))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "text/xml")
	req.Header.Set("SOAPAction", "urn:vim25/8.0.2.0")
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// TestPlainSOAP is a client that is not govmomi's.
func TestPlainSOAP(t *testing.T) {
	r := newRig(t, nil, simvs.Config{})
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Jar: jar, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots(r.Server)}}}
	snapshot := fmt.Sprintf(`<CreateSnapshot_Task><_this type="VirtualMachine">%s</_this><name>by hand</name><memory>false</memory><quiesce>false</quiesce></CreateSnapshot_Task>`,
		r.vm.Reference().Value)
	if code, answer := speak(t, c, r.URL(), snapshot); code != http.StatusInternalServerError || !strings.Contains(answer, "NotAuthenticated") {
		t.Fatalf("without a login: %d %s", code, answer)
	}
	var user, password bytes.Buffer
	_ = xml.EscapeText(&user, []byte(r.User()))
	_ = xml.EscapeText(&password, []byte(r.Password()))
	if code, answer := speak(t, c, r.URL(), fmt.Sprintf(`<Login><_this type="SessionManager">SessionManager</_this><userName>%s</userName><password>%s</password></Login>`,
		&user, &password)); code != http.StatusOK {
		t.Fatalf("login: %d %s", code, answer)
	}
	code, answer := speak(t, c, r.URL(), snapshot)
	if code != http.StatusOK || !strings.Contains(answer, `<returnval type="Task">task-s`) {
		t.Fatalf("snapshot: %d %s", code, answer)
	}
	r.snapshot("after it") // waits for the one before
	code, answer = speak(t, c, r.URL(), fmt.Sprintf(`<RetrievePropertiesEx><_this type="PropertyCollector">propertyCollector</_this>`+
		`<specSet><propSet><type>VirtualMachine</type><pathSet>snapshot.rootSnapshotList</pathSet></propSet>`+
		`<objectSet><obj type="VirtualMachine">%s</obj></objectSet></specSet><options/></RetrievePropertiesEx>`, r.vm.Reference().Value))
	if code != http.StatusOK || !strings.Contains(answer, "<name>by hand</name>") || !strings.Contains(answer, "<name>after it</name>") {
		t.Errorf("properties: %d %s", code, answer)
	}
}

func TestSpace(t *testing.T) {
	r := newRig(t, &simvs.VM{Name: "web", Disks: []simvs.Disk{{Size: 8 << 20}}, On: true}, simvs.Config{
		Datastores: []simvs.Datastore{{Name: "small", Capacity: 5 << 20}},
	})
	r.write(0, strings.Repeat("x", 3<<20), 0)
	task, err := r.vm.CreateSnapshot(t.Context(), "no", "", false, false)
	if err := r.fails(task, err); !fault.Is(err, &types.NoDiskSpace{}) {
		t.Errorf("a snapshot of 3 MiB on 2 MiB that are free: %v", err)
	}
	if _, err := r.AddVM(&simvs.VM{Name: "thick", Disks: []simvs.Disk{{Size: 4 << 20, Thick: true}}}); err == nil {
		t.Error("a thick disk of 4 MiB was made on 2 MiB that are free")
	}
	if _, err := os.Stat(filepath.Join(r.Datastores()["small"], "thick")); !os.IsNotExist(err) {
		t.Errorf("what was not made is there: %v", err)
	}
}

func TestRename(t *testing.T) {
	dir := t.TempDir()
	r := newRig(t, nil, simvs.Config{Dir: dir})
	r.wait(r.vm.Rename(t.Context(), "web2"))
	if _, err := r.Guest("web2"); err != nil || r.props().Name != "web2" {
		t.Errorf("%v, %s", err, r.props().Name)
	}
	// a .vmx that names a disk that is gone keeps no other VM from being found
	if err := os.CopyFS(filepath.Join(dir, "LocalDS_0", "broken"), os.DirFS(filepath.Join(dir, "LocalDS_0", "web"))); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "LocalDS_0", "broken", "web.vmdk")); err != nil {
		t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	s := start(t, simvs.Config{Dir: dir})
	if _, err := s.Guest("web2"); err != nil {
		t.Error(err)
	}
	if left := s.Skipped(); len(left) != 1 || !strings.Contains(left[0], "web.vmdk was not found") {
		t.Errorf("skipped: %q", left)
	}
}
