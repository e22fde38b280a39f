package jobs

import (
	"net/url"
	"strings"

	"github.com/haulback/haulback/cmd/internal/transfer"
	"github.com/haulback/haulback/hostctl/job"
)

// Hosts are the other machines that a disk of a job loads. Disks of this one
// and its sockets are bounded by the number of disks alone.
func Hosts(d job.Disk) []string {
	var hosts []string
	for _, text := range []string{d.Source, d.Target} {
		if h := host(text); h != "" && (len(hosts) == 0 || hosts[0] != h) {
			hosts = append(hosts, h)
		}
	}
	return hosts
}

func host(text string) string {
	e, err := transfer.ParseEndpoint(text)
	if err != nil || !e.Remote() && e.Disk.Local() { // an export of this daemon is no URI
		return ""
	}
	u, err := url.Parse(text)
	if err != nil {
		return ""
	}
	return strings.ToLower(u.Hostname())
}
