//go:build linux && amd64 && cgo

package vix

// #include <stdlib.h>
// #include "shim.h"
import "C"

import "unsafe"

// login is Params in C memory. Strings that the library may expect are never
// NULL: it crashes on some that are.
type login struct{ c C.hb_login }

func newLogin(p *Params) *login {
	l := &login{}
	l.c.vm = C.CString("moref=" + p.VM)
	l.c.server = C.CString(p.Server)
	l.c.thumbprint = C.CString(p.Thumbprint)
	l.c.user = C.CString(p.User)
	l.c.password = C.CString(p.Password)
	if p.Cookie != "" {
		l.c.cookie = C.CString(p.Cookie)
	}
	l.c.port = C.uint32_t(p.Port)
	return l
}

// free overwrites the secrets first.
func (l *login) free() {
	C.hb_wipe(l.c.password)
	C.hb_wipe(l.c.cookie)
	for _, p := range []*C.char{l.c.vm, l.c.server, l.c.thumbprint, l.c.user, l.c.password, l.c.cookie} {
		C.free(unsafe.Pointer(p))
	}
	l.c = C.hb_login{}
}
