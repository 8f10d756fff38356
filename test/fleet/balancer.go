//go:build e2e

package fleet

import (
	"encoding/csv"
	"strings"
)

// Balancer is lb1: a HAProxy with the backend shop, whose servers are the hosts.
type Balancer struct{ *Host }

// Addr is where it takes requests: host:port.
func (b *Balancer) Addr() string { return b.address + ":80" }

// Ask sends a command to its runtime API, and returns the answer.
func (b *Balancer) Ask(command string) string {
	b.t.Helper()
	return b.Exec("perl", "-MIO::Socket::UNIX", "-e",
		`$s = IO::Socket::UNIX->new("/run/haproxy/admin.sock") or die $!; print $s "$ARGV[0]\n"; print <$s>`, command)
}

// Server is what it knows of a host: the columns of "show stat", by name, such
// as status, scur, stot.
func (b *Balancer) Server(host string) map[string]string {
	b.t.Helper()
	rows, err := csv.NewReader(strings.NewReader(strings.TrimPrefix(b.Ask("show stat"), "# "))).ReadAll()
	must(b.t, err)
	for _, row := range rows[1:] {
		if row[0] == "shop" && row[1] == host {
			server := map[string]string{}
			for i, name := range rows[0] {
				server[name] = row[i]
			}
			return server
		}
	}
	b.t.Fatalf("the balancer does not know %s", host)
	return nil
}
