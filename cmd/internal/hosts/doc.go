// Package hosts makes the hosts of a controller's configuration, and says what is
// wrong with one in the words of that configuration: the certificate that it
// shows comes with the line to write.
//
//	vsphere      a vCenter or ESXi
//	openstorage  the workloads of a volume cluster, each powered by a VM of another
//	             host, by programs of the site, or by nobody
//
// Not promised: that a host answers. Opening one talks to nobody.
package hosts
