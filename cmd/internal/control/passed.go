package control

import (
	"fmt"
	"os"
	"syscall"
)

// passedGroup says whether the group of the configuration can reach the socket
// that a service manager has made. Only who made it may give it to another.
func (s *Server) passedGroup(r *rules) error {
	if r.group < 0 {
		return nil
	}
	st, err := os.Stat(s.cfg.Socket)
	if err != nil {
		return fmt.Errorf("control: socket of the service manager: %w", err)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); !ok || int(sys.Gid) != r.group {
		return fmt.Errorf("control: group: the socket %s was made by the service manager for another group than that of the configuration; write SocketGroup= of its socket unit and control.group alike, and restart the socket unit", s.cfg.Socket)
	}
	return nil
}
