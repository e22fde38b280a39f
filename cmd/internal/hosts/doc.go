// Package hosts makes the hosts of a controller's configuration, and says what is
// wrong with one in the words of that configuration: the certificate that it
// shows comes with the line to write.
//
// Not promised: that a host answers. Opening one talks to nobody.
package hosts
