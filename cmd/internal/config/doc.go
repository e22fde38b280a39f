// Package config reads the configuration of a daemon, FILE and its drop-ins
// FILE.d/*.toml: strict TOML, where an unknown key, a wrong name or a value out of its
// range is an error that names file, line, column and remedy, and where no secret may
// stand.
//
// Every key has its entry in tables, from which errors, the schema and
// docs/configuration.md take its range; tests hold it against the structs, the
// defaults and the checks. An example:
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
//	[metrics]                       # for Prometheus, besides GET /metrics of the control API
//	listen    = "127.0.0.1:9920"    # plain HTTP; none without this key
//	plaintext = false               # listen may be no address of the loopback
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
//	[[openstorage]]                 # a profile: one SDK endpoint of a volume cluster (OpenStorage, Portworx)
//	name         = "px"             # as in osd://px/VOLUME
//	endpoint     = "unix:///var/lib/osd/driver/pxd-sdk.sock" # or HOST:PORT, of this very node
//	ca_file      = "/etc/haulback/px-ca.pem" # of the CAs that count; default: those of the system
//	server_name  = "px.example.org" # in its certificate; default: the host of endpoint
//	plaintext    = false            # no TLS by TCP: to loopback alone
//	token_file   = "/etc/haulback/px.token" # or a credential of systemd; read again when it changes
//	auth         = "token"          # or "none", which makes us the server's guest
//	driver       = "pxd"            # which of the server's drivers; default: its own
//	node         = "worker-1"       # what the endpoint has to say of itself; default: this machine's hostname
//	devices      = ["/dev/pxd/*"]   # that the server may name; default /dev/loop*, /dev/pxd/*, /dev/dm-*, /dev/mapper/*
//	files        = false            # a regular file may be a volume's device (a test server's)
//	dev_root     = "/"              # where the machine's / is, for a daemon in a container
//	timeout      = "30s"            # of a call
//	long_timeout = "10m"            # of snapshot, clone, delete and restore
//	restore      = "mover"          # how an undo goes: mover or server
//
//	[[export]]                      # the volumes of a cluster's workloads
//	name        = "k8s"
//	role        = "host"
//	openstorage = "px"              # in the place of datastores; one volume: uri = "osd://px/VOLUME[?snapshot=ID]"
//	peers       = ["home"]
//	controllers = ["home"]
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
//	[[host]]                        # a volume cluster and its workloads
//	name        = "k8s"
//	kind        = "openstorage"     # default "vsphere"
//	openstorage = "px"              # profile; no url, user, password_file, thumbprint
//	mover       = "worker-1"
//	export      = "k8s"
//	  [[host.workload]]
//	  name      = "shop"
//	  volumes   = ["shop-root", "shop-data"] # names or ids, in order
//	  labels    = ["scsi0:0", "scsi0:1"] # the disks that they are; default osd0:0, osd0:1 ...
//	  compute   = "exec"            # what powers it: exec, none, or the name of a [[host]] of kind vsphere
//	  power_on  = ["/usr/local/bin/shop", "on"]
//	  power_off = ["/usr/local/bin/shop", "off"]
//	  status    = ["/usr/local/bin/shop", "status"] # says on, off or suspended
//	  timeout   = "5m"              # of each, beyond the grace of a power-off
//	  [[host.workload]]
//	  name      = "db"
//	  volumes   = ["db"]
//	  compute   = "home"
//	  vm        = "db-1"            # its name or UUID at that host
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
