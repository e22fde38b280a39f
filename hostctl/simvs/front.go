package simvs

import (
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/soap"
)

func discard() *log.Logger { return log.New(io.Discard, "", 0) }

// routes are those of simulator.Service.NewServer, which cannot be used: it
// opens the listener itself, once.
func (s *Server) routes() {
	service := s.service
	m := service.Context.Map
	service.Listen = s.url
	service.RegisterSDK(m, m.Path+"/vimService")
	service.ServeMux.HandleFunc(m.Path+"/vimServiceVersions.xml", service.ServiceVersions)
	service.ServeMux.HandleFunc("/folder/", s.serveFile)
	service.ServeMux.HandleFunc("/nfc/", simulator.ServeNFC)
	service.ServeMux.HandleFunc("/about", service.About)
	m.SessionManager().ServiceHostName = s.url.Host
	m.SessionManager().ValidLogin = s.validLogin
}

// front is what a request meets first.
func (s *Server) front() http.Handler {
	return s.drops.wrap(s.service.ServeMux)
}

// serveFile gives and takes files of datastores (/folder/dir/file?dsName=...),
// for who is logged in. A PUT replaces the whole file, whatever Content-Range it
// names, as vSphere does.
func (s *Server) serveFile(w http.ResponseWriter, r *http.Request) {
	cookie, err := r.Cookie(soap.SessionCookieName)
	user, ok := "", false
	if err == nil {
		s.mu.Lock()
		user, ok = s.sessions[cookie.Value]
		s.mu.Unlock()
	}
	if !ok {
		w.Header().Set("WWW-Authenticate", `Basic realm="VMware HTTP server"`)
		http.Error(w, "no session", http.StatusUnauthorized)
		return
	}
	ds := s.stores[r.URL.Query().Get("dsName")]
	name := strings.TrimPrefix(r.URL.Path, "/folder/")
	if ds == nil || name == "" || !filepath.IsLocal(name) {
		http.NotFound(w, r)
		return
	}
	need := "Datastore.Browse"
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		need = "Datastore.FileManagement"
	}
	if !s.granted(user, need) {
		http.Error(w, "no permission: "+need, http.StatusForbidden)
		return
	}
	root, err := os.OpenRoot(ds.Path)
	if err != nil {
		http.Error(w, "datastore", http.StatusInternalServerError)
		return
	}
	defer root.Close()
	switch r.Method {
	case http.MethodGet, http.MethodHead:
		http.ServeFileFS(w, r, root.FS(), name)
	case http.MethodPut, http.MethodPost:
		takeFile(w, r, root, name)
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

func takeFile(w http.ResponseWriter, r *http.Request, root *os.Root, name string) {
	_, err := root.Stat(name)
	if err == nil && r.Method == http.MethodPost {
		w.WriteHeader(http.StatusConflict)
		return
	}
	status := http.StatusOK
	if err != nil {
		status = http.StatusCreated
	}
	f, err := root.Create(name)
	if err != nil {
		http.Error(w, "the file cannot be created", http.StatusInternalServerError)
		return
	}
	_, err = io.Copy(f, r.Body)
	if closed := f.Close(); err != nil || closed != nil {
		http.Error(w, "the file was not written", http.StatusInternalServerError)
		return
	}
	w.WriteHeader(status)
}
