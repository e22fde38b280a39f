// Package config reads the configuration of a daemon: strict TOML, where an
// unknown key, a wrong name or a value out of its range is an error that names
// file, line and remedy.
//
//	listen     = "0.0.0.0:7420"     # UDP (QUIC) and TCP (TLS) of one port
//	transports = ["quic", "tls"]
//	gro        = true               # let the kernel merge UDP packets
//	gso        = true               # and split them
//	state_dir  = "/var/lib/haulback"
//	key_file   = "/var/lib/haulback/identity.key"
//
//	[log]
//	level  = "info"                 # debug, info, warn, error
//	format = "auto"                 # auto, text, json
//
//	[limits]
//	memory     = "1GiB"             # all sessions together
//	workers    = 4                  # per session and stage
//	checkpoint = "64MiB"            # written bytes between two flushes
//	window     = "32MiB"            # sent beyond a checkpoint
//	sessions   = 256
//	cpus       = 2                  # GOMAXPROCS
//	refine     = "auto"             # send pieces of 4 KiB: auto, on, off
//	compress   = "auto"             # LZ4: auto, on, off
//	rate       = "100MiB"           # per second on the network, all sessions together
//	read_rate  = "400MiB"           # per second from disks; these four change at SIGHUP
//	latency    = "20ms"             # of the storage, above which reading backs off
//	windows    = ["Mon-Fri 08:00-18:00 wire 20MiB read 50MiB", "Sat,Sun 00:00-24:00 unlimited"]
//
//	[control]                       # the control API
//	socket    = "/run/haulback/control.sock" # or "none"
//	group     = "haulback"          # may use the socket, as root and the daemon's user may
//	listen    = "0.0.0.0:7421"      # TCP with mutual TLS; none without this key
//	cert      = "/etc/haulback/control.pem"
//	key       = "/etc/haulback/control.key"
//	client_ca = "/etc/haulback/clients.pem"
//	admins    = ["backup.example.org"] # names in certificates: may do everything
//	viewers   = ["grafana.example.org"] # may look at jobs
//
//	[jobs]
//	disks    = 4                    # that run at once
//	per_host = 2                    # of them, of one other host
//	keep     = "720h"               # jobs that have ended
//	allow    = ["/srv/*", "haulback://dr-proxy:7420/*", "export:*"] # default everything
//
//	[[peer]]                        # more come from STATE/peers.toml
//	name    = "dr"
//	id      = "XXXXXXX-XXXXXXX-XXXXXXX-XXXXXXX-XXXXXXX-XXXXXXX-XXXXXXX-XXXXXXX"
//	address = "dr-proxy:7420"
//
//	[[export]]
//	name      = "vm1-disk0"
//	uri       = "file:///srv/images/vm1.img"
//	role      = "target"            # or "source"
//	peers     = ["dr"]              # may use it
//	operators = ["desk"]            # may order this daemon to push it
//	ticket      = true              # only with a ticket that one of
//	controllers = ["desk"]          # these has signed
//
//	[[export]]                      # the disks of a host's VMs, for failbacks
//	name        = "dr"
//	role        = "host"
//	datastores  = { LocalDS_0 = "/srv/ds/LocalDS_0" } # where they are mounted here,
//	# vddk      = "vddk://HOST?user=NAME&password-file=PATH&thumbprint=SHA1" # or by VMware's library
//	peers       = ["home"]          # may come with a ticket
//	controllers = ["home"]          # may look at any disk, give orders, and sign tickets; without peers only
//	                                # the failbacks of this daemon use it
//
//	[controller]                    # this daemon brings VMs home; may be empty
//	name  = "desk"                  # default: of the machine
//	vms   = 4                       # in passes at once, and their disks
//	disks = 8
//
//	[[host]]                        # a vCenter or ESXi
//	name          = "home"
//	url           = "https://vcenter.example.org"
//	user          = "haulback@vsphere.local"
//	password_file = "/etc/haulback/vcenter.password" # or a credential of systemd
//	thumbprint    = "AA:BB:..."     # SHA-256 of its certificate; or ca_file
//	mover         = "home-proxy"    # the peer that reaches its disks; default "self"
//	export        = "home"          # there; default: the name of the host
//
//	[[hook]]                        # what a site wants done around steps
//	name    = "dns"
//	steps   = ["power-on", 10]
//	when    = "after"
//	command = ["/usr/local/bin/dns", "--home"] # or url = "https://..."
//
//	[replication]                   # who replicates the VMs
//	hold    = ["/usr/local/bin/replication", "pause"]
//	release = ["/usr/local/bin/replication", "resume"]
//
//	[[group]]                       # VMs that come home together
//	name    = "shop"
//	members = [{vm = "db", order = 1}, {vm = "web", order = 2, priority = "high"}]
//
// Everything but exports, peers, hosts and hooks has a default. A key that is set to what
// its default is means the same as no key.
//
// Not promised: that an export's disk is there. A missing file is a warning,
// because images come and go while a daemon runs.
package config
