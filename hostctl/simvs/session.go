package simvs

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

type sessionHook struct{ *hook }

// Login lets in whom validLogin knows.
func (h *sessionHook) Login(ctx *simulator.Context, r *types.Login) soap.HasFault {
	body := ctx.Map.SessionManager().Login(ctx, r)
	h.s.note(ctx)
	return body
}

// validLogin checks name and password.
func (s *Server) validLogin(r *types.Login) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.users[r.UserName]
	return a != nil && a.password == r.Password
}

// LoginByToken is refused: there is no one who issues tokens.
func (h *sessionHook) LoginByToken(*simulator.Context, *types.LoginByToken) soap.HasFault {
	return &methods.LoginByTokenBody{Fault_: simulator.Fault("", &types.InvalidLogin{})}
}

// ImpersonateUser is refused.
func (h *sessionHook) ImpersonateUser(*simulator.Context, *types.ImpersonateUser) soap.HasFault {
	return &methods.ImpersonateUserBody{Fault_: simulator.Fault("", &types.InvalidLogin{})}
}

// CloneSession makes a session of a ticket.
func (h *sessionHook) CloneSession(ctx *simulator.Context, r *types.CloneSession) soap.HasFault {
	body := ctx.Map.SessionManager().CloneSession(ctx, r)
	h.s.note(ctx)
	return body
}

// Logout ends the session.
func (h *sessionHook) Logout(ctx *simulator.Context, r *types.Logout) soap.HasFault {
	h.s.mu.Lock()
	delete(h.s.sessions, ctx.Session.Key)
	h.s.mu.Unlock()
	return ctx.Map.SessionManager().Logout(ctx, r)
}

// TerminateSession ends sessions of others.
func (h *sessionHook) TerminateSession(ctx *simulator.Context, r *types.TerminateSession) soap.HasFault {
	body := ctx.Map.SessionManager().TerminateSession(ctx, r)
	if body.Fault() == nil {
		h.s.mu.Lock()
		for _, id := range r.SessionId {
			delete(h.s.sessions, id)
		}
		h.s.mu.Unlock()
	}
	return body
}

// note remembers the session of a context.
func (s *Server) note(ctx *simulator.Context) {
	if ctx.Session == nil {
		return
	}
	s.mu.Lock()
	s.sessions[ctx.Session.Key] = ctx.Session.UserName
	s.mu.Unlock()
}

// DropSessions ends all sessions, as a restart of a vCenter's services does.
func (s *Server) DropSessions() {
	s.mu.Lock()
	var keys []string
	for key := range s.sessions {
		keys = append(keys, key)
	}
	clear(s.sessions)
	s.mu.Unlock()
	ctx := s.context("")
	for _, key := range keys { // one that has ended meanwhile would stop a call for all
		ctx.Map.SessionManager().TerminateSession(ctx, &types.TerminateSession{SessionId: []string{key}})
	}
}
