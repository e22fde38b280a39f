package vddk

import (
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/haulback/haulback/vddk/worker"
)

// What a vddk URI need not say.
const (
	defaultLibDir     = "/usr/lib/vmware-vix-disklib" // where VMware's own packages and nbdkit expect it
	defaultTransports = "nbdssl"                      // never in clear unless somebody has asked for it
	defaultStateDir   = "/var/lib/haulback/vddk"
)

// The longest requests in bytes that a vCenter and an ESXi take; longer ones fail
// at once, by an allocation error of their file transfer service.
const (
	vCenterRequest = 2 << 20
	esxiRequest    = 23 << 20
)

// vddkTransports are those that the library may be asked for.
var vddkTransports = []string{"nbdssl", "nbd", "hotadd", "san", "file"}

// vddkURI is
//
//	vddk://HOST[:PORT]/MOREF?disk=[ds] vm/vm.vmdk&user=U&password-file=F&thumbprint=T
//
// and says which disk of which VM is opened, and how.
type vddkURI struct {
	host string
	port uint16
	vm   string // "vm-42" of a vCenter, "42" of an ESXi

	disk         string // "[ds] vm/vm.vmdk"
	snapshot     string // "snapshot-7", or empty
	user         string
	passwordFile string // one of these two
	cookieFile   string
	thumbprint   string // "AA:BB:..."
	transports   []string
	libDir       string
	stateDir     string
	guard        bool
}

// vddkParams sets the parameters by their names.
var vddkParams = map[string]func(u *vddkURI, value string) error{
	"disk":          (*vddkURI).setDisk,
	"snapshot":      (*vddkURI).setSnapshot,
	"user":          func(u *vddkURI, v string) error { u.user = v; return nil },
	"password-file": func(u *vddkURI, v string) error { return setPath(&u.passwordFile, v) },
	"cookie-file":   func(u *vddkURI, v string) error { return setPath(&u.cookieFile, v) },
	"thumbprint":    (*vddkURI).setThumbprint,
	"transports":    (*vddkURI).setTransports,
	"libdir":        func(u *vddkURI, v string) error { return setPath(&u.libDir, v) },
	"state":         func(u *vddkURI, v string) error { return setPath(&u.stateDir, v) },
	"guard":         (*vddkURI).setGuard,
}

// parseVDDK is parseVDDKURI for ParseURI, which keeps the text.
func parseVDDK(s string) error {
	_, err := parseVDDKURI(s)
	return err
}

// LibDir is the folder of VMware's library that a disk with URI s is reached by,
// or a host whose disks have s completed. s is one that was checked.
func LibDir(s string) string {
	u := vddkURI{libDir: defaultLibDir}
	_, query, _ := strings.Cut(s, "?")
	_ = u.setParams(query) // what it could not read is no libdir
	return u.libDir
}

// parseVDDKURI refuses whatever it does not understand.
func parseVDDKURI(s string) (vddkURI, error) {
	u := vddkURI{
		transports: strings.Split(defaultTransports, ":"), libDir: defaultLibDir, stateDir: defaultStateDir, guard: true,
	}
	head, query, _ := strings.Cut(s, "?")
	if strings.ContainsAny(head, "#") || strings.ContainsRune(query, '#') {
		return u, errors.New("fragment; write %23 for a #")
	}
	parsed, err := url.Parse(head)
	if err != nil {
		return u, errors.New("not a URI: " + strings.TrimPrefix(err.Error(), "parse "))
	}
	if err := u.setHost(parsed); err != nil {
		return u, err
	}
	if err := u.setParams(query); err != nil {
		return u, err
	}
	return u, u.validate()
}

// moref: "vm-42" and "snapshot-7" of a vCenter, "42" and "42-snapshot-7" of an ESXi.
var (
	vmRef       = regexp.MustCompile(`^(vm-)?[0-9]{1,18}$`)
	snapshotRef = regexp.MustCompile(`^([0-9]{1,18}-)?snapshot-[0-9]{1,18}$`)
)

func (u *vddkURI) setHost(parsed *url.URL) error {
	switch {
	case !strings.EqualFold(parsed.Scheme, schemeVDDK) || parsed.Opaque != "":
		return errors.New("not of the form vddk://HOST/MOREF?disk=FILE&more")
	case parsed.User != nil:
		return errors.New("the user is written user=NAME, the password stays in a file: password-file=PATH")
	case parsed.Hostname() == "":
		return errors.New("no host; the form is vddk://HOST/MOREF?disk=FILE&more")
	}
	u.host = parsed.Hostname()
	if strings.ContainsFunc(u.host, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("host %q", u.host)
	}
	if text := parsed.Port(); text != "" || strings.HasSuffix(parsed.Host, ":") {
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil || port == 0 {
			return fmt.Errorf("port %q", text)
		}
		u.port = uint16(port)
	}
	u.vm = strings.TrimPrefix(strings.TrimPrefix(parsed.Path, "/"), "moref=")
	if !vmRef.MatchString(u.vm) {
		return fmt.Errorf("VM %q: not a managed object reference: vm-42 of a vCenter, 42 of an ESXi", u.vm)
	}
	return nil
}

// setParams reads the query. A space may stand as it is, or as %20 or +; a
// literal + is written %2B.
func (u *vddkURI) setParams(query string) error {
	if query == "" {
		return errors.New("its parameters are missing; the least is ?disk=[datastore] vm/vm.vmdk&user=NAME&password-file=PATH&thumbprint=SHA1")
	}
	seen := map[string]bool{}
	for part := range strings.SplitSeq(query, "&") {
		key, value, _ := strings.Cut(part, "=")
		set := vddkParams[key]
		if set == nil {
			return fmt.Errorf("unknown parameter %q; vddk takes %s", key, strings.Join(paramNames(), ", "))
		}
		if seen[key] {
			return fmt.Errorf("parameter %s is there twice", key)
		}
		seen[key] = true
		value, err := url.QueryUnescape(value)
		if err != nil {
			return fmt.Errorf("parameter %s: %w", key, err)
		}
		if value == "" || strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return fmt.Errorf("parameter %s: empty, or not text", key)
		}
		if err := set(u, value); err != nil {
			return fmt.Errorf("parameter %s: %w", key, err)
		}
	}
	return nil
}

func paramNames() (names []string) {
	for name := range vddkParams {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (u *vddkURI) validate() error {
	switch {
	case u.disk == "":
		return errors.New("parameter disk is needed: the disk's file as the snapshot names it, disk=[datastore] vm/vm.vmdk")
	case (u.passwordFile == "") == (u.cookieFile == ""):
		return errors.New("one of the parameters password-file and cookie-file is needed")
	case u.passwordFile != "" && u.user == "":
		return errors.New("parameter user is needed with password-file")
	case u.thumbprint == "":
		return fmt.Errorf("parameter thumbprint is needed: openssl s_client -connect %s:443 </dev/null | openssl x509 -fingerprint -sha1 -noout", u.host)
	case strings.ContainsRune(u.libDir, ':'):
		return fmt.Errorf("parameter libdir: %q has a colon, which the dynamic linker takes for the end", u.libDir)
	}
	return nil
}

var diskRef = regexp.MustCompile(`^\[[^\[\]]+\] ?[^/\s][^\x00]*\.vmdk$`)

func (u *vddkURI) setDisk(v string) error {
	if !diskRef.MatchString(v) {
		return fmt.Errorf("%q: written [datastore] folder/file.vmdk", v)
	}
	u.disk = v
	return nil
}

func (u *vddkURI) setSnapshot(v string) error {
	u.snapshot = strings.TrimPrefix(v, "moref=")
	if !snapshotRef.MatchString(u.snapshot) {
		return fmt.Errorf("%q: not a managed object reference: snapshot-7", v)
	}
	return nil
}

// setThumbprint takes hex with or without colons. SHA-1, which has 20 bytes, is
// what the library's documents say; SHA-256 is passed on.
func (u *vddkURI) setThumbprint(v string) error {
	hex := strings.ToUpper(strings.ReplaceAll(v, ":", ""))
	if strings.Trim(hex, "0123456789ABCDEF") != "" || len(hex) != 40 && len(hex) != 64 {
		return errors.New("not the SHA-1 fingerprint of a certificate: 20 bytes in hex, with colons or without")
	}
	pairs := make([]string, 0, len(hex)/2)
	for i := 0; i < len(hex); i += 2 {
		pairs = append(pairs, hex[i:i+2])
	}
	u.thumbprint = strings.Join(pairs, ":")
	return nil
}

func (u *vddkURI) setTransports(v string) error {
	u.transports = strings.Split(v, ":")
	for i, name := range u.transports {
		if !slices.Contains(vddkTransports, name) || slices.Contains(u.transports[:i], name) {
			return fmt.Errorf("%q: a list of %s", v, strings.Join(vddkTransports, ":"))
		}
	}
	return nil
}

func (u *vddkURI) setGuard(v string) error {
	if v != "yes" && v != "no" {
		return fmt.Errorf("%q: yes or no", v)
	}
	u.guard = v == "yes"
	return nil
}

func setPath(to *string, v string) error {
	if !filepath.IsAbs(v) {
		return fmt.Errorf("%q: the path must be absolute", v)
	}
	*to = filepath.Clean(v)
	return nil
}

func (u *vddkURI) usesSAN() bool { return slices.Contains(u.transports, "san") }

// bareESXi: a vCenter's VMs have "vm-" before the number.
func (u *vddkURI) bareESXi() bool { return !strings.HasPrefix(u.vm, "vm-") }

// config reads the files of the secrets.
func (u *vddkURI) config() (worker.Config, error) {
	c := worker.Config{
		LibDir: u.libDir, Server: u.host, Port: u.port, VM: u.vm, Thumbprint: u.thumbprint, User: u.user,
		Guard: u.guard, StateDir: u.stateDir,
	}
	var err error
	if u.passwordFile != "" {
		c.Password, err = readSecret("password", u.passwordFile)
	} else {
		c.Cookie, err = readSecret("cookie", u.cookieFile)
	}
	return c, err
}

func (u *vddkURI) target(readOnly bool) worker.Target {
	t := worker.Target{
		Path: u.disk, Snapshot: u.snapshot, Transports: strings.Join(u.transports, ":"), ReadOnly: readOnly, MaxRequest: vCenterRequest,
	}
	if u.bareESXi() {
		t.MaxRequest = esxiRequest
	}
	return t
}
