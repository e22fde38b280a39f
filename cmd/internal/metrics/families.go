package metrics

import "github.com/prometheus/client_golang/prometheus"

// Family is one metric.
type Family struct {
	Name   string
	Kind   string // "counter", "gauge", "histogram"
	Labels []string
	Help   string
}

// Families are all metrics of ours, in the order of the manual. Names are for
// ever: dashboards and alerts of others have them.
var Families = [...]Family{
	{"haulback_build_info", "gauge", []string{"version", "revision", "goversion"}, "Always 1; which haulbackd this is."},
	{"haulback_draining", "gauge", nil, "1 when the daemon takes no new jobs and failbacks."},
	{"haulback_supervision_last_loop_timestamp_seconds", "gauge", nil, "When the daemon last went through the loop that feeds the watchdog; it does so every 5 s."},
	{"haulback_config_last_reload_successful", "gauge", nil, "0 when the configuration file had a mistake at the last reload, and the old one is in use."},
	{"haulback_config_last_reload_success_timestamp_seconds", "gauge", nil, "When the configuration in use was read."},
	{"haulback_peers", "gauge", nil, "Paired peers that are let in."},
	{"haulback_peers_readable", "gauge", nil, "0 when the list of paired peers cannot be read, and only those of the configuration file are let in."},
	{"haulback_control_certificate_expiry_timestamp_seconds", "gauge", nil, "When the certificate of the control API's port ends; absent without a port."},
	{"haulback_sessions", "gauge", nil, "Links of peers in work."},
	{"haulback_connections_refused_total", "counter", []string{"reason"}, "Connections of peers that were refused: busy (a bound), unknown (the key is not paired), failed (silence, or another protocol)."},

	{"haulback_bytes_total", "counter", []string{"side", "mode", "kind"}, "Bytes by what was done with them, repeats included. scanned: compared, holes included; of these hole, same, differing, skipped (only change tracking calls it unchanged) and sampled. Of what differed: sent (raw), wire (as it crossed the network), zero (headers only), refined (pieces left out). durable: flushed on the target; read_back: read again after a write; verified: settled as equal; resumed: durable from before, by the journal."},
	{"haulback_grains_total", "counter", []string{"side", "mode", "outcome"}, "Grains of 64 KiB by what was wrong. bad: stays different, or cannot be read; redone: sent again as the read-back differed; lost: gone although the target had flushed them."},
	{"haulback_passes_active", "gauge", []string{"side", "mode"}, "Halves of passes at work in this daemon."},
	{"haulback_passes_ended_total", "counter", []string{"side", "mode", "result"}, "Halves of passes that have ended, by the code of the error; ok: well. The half that was dialed counts each session, the one that dials each pass."},
	{"haulback_retries_total", "counter", []string{"reason"}, "Tries again of passes that this daemon drives, by what ended the try before; timeout is a session that stood still, switch a change of the transport."},
	{"haulback_reconnects_total", "counter", []string{"side", "mode"}, "Sessions that were picked up again on a new link."},
	{"haulback_tracking_distrusted_total", "counter", nil, "Times that change tracking was believed and caught: everything is compared."},
	{"haulback_tracking_unusable_total", "counter", nil, "Passes that asked for change tracking and could not use it: everything is compared."},
	{"haulback_io_duration_seconds", "histogram", []string{"side", "call"}, "Time of one read or write of a disk (256 KiB to 1 MiB), of the flush of a checkpoint, and of its record in the journal."},
	{"haulback_links", "gauge", []string{"transport"}, "Links over which passes go now."},
	{"haulback_link_rtt_seconds", "gauge", []string{"transport"}, "The longest smoothed round trip of them."},
	{"haulback_engine_memory_bytes", "gauge", nil, "Buffers that sessions have taken."},
	{"haulback_engine_memory_limit_bytes", "gauge", nil, "The most they may take: limits.memory."},
	{"haulback_targets", "gauge", []string{"state"}, "Target disks by the state of their journals; looked at every minute."},

	{"haulback_udp_received_packets_total", "counter", nil, "UDP packets that were read."},
	{"haulback_udp_dropped_packets_total", "counter", []string{"reason"}, "UDP packets lost in this machine: overflow (the socket's buffer was full), truncated, unsent (no route, no buffers, a firewall)."},
	{"haulback_udp_offload", "gauge", nil, "1 when the kernel merges UDP packets that come in."},

	{"haulback_store_up", "gauge", []string{"store"}, "Whether the store of jobs, and of failbacks, answered this scrape."},
	{"haulback_jobs", "gauge", []string{"phase"}, "Jobs that are kept, by phase."},
	{"haulback_job_disks", "gauge", []string{"state"}, "Disks of jobs: waiting for their turn, or running."},
	{"haulback_job_disk_slots", "gauge", nil, "Disks of jobs that may run at once: jobs.disks."},
	{"haulback_job_size_bytes", "gauge", []string{"job"}, "Size of the disks of a job that is in progress; gone when it is over."},
	{"haulback_job_scanned_bytes", "gauge", []string{"job"}, "What of it is compared."},
	{"haulback_job_verified_bytes", "gauge", []string{"job"}, "What of it is settled as equal on both sides."},

	{"haulback_vms", "gauge", []string{"state"}, "VMs of a controller by state."},
	{"haulback_failbacks", "gauge", []string{"activity"}, "Failbacks that have not ended, by what the controller does with them."},
	{"haulback_failback_halted", "gauge", []string{"vm", "step", "reason"}, "1 for a failback that waits for an operator; gone when it goes on."},
	{"haulback_failback_pass_size_bytes", "gauge", []string{"vm"}, "Size of the disks of a failback whose passes run; gone when none runs."},
	{"haulback_failback_pass_scanned_bytes", "gauge", []string{"vm"}, "What of it is compared."},
	{"haulback_failback_downtime_expected_seconds", "gauge", []string{"vm"}, "How long the switch is expected to take; absent until it is known."},

	{"haulback_vsphere_calls_total", "counter", []string{"host", "method", "class"}, "Calls of vCenters and ESXi hosts, each try for itself, by how they ended: ok, ended (by haulback), authentication (login or privilege), session (it was over), busy (worth a retry), refused (any other fault), away (nobody answered, or not in time), certificate."},
	{"haulback_openstorage_calls_total", "counter", []string{"profile", "method", "class"}, "Calls of OpenStorage servers, each try for itself, by how they ended."},
	{"haulback_openstorage_ledger_rows", "gauge", nil, "Volumes and clones that processes of this site hold, or have left."},
	{"haulback_openstorage_left_volumes", "gauge", nil, "Of them those that dead processes have left and the last sweep could not give back."},
}

// descs are the families by name.
func descs() map[string]*prometheus.Desc {
	m := make(map[string]*prometheus.Desc, len(Families))
	for _, f := range Families {
		m[f.Name] = prometheus.NewDesc(f.Name, f.Help, f.Labels, nil)
	}
	return m
}
