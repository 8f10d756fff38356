// Package proxy is the port to the reverse proxy of the host.
//
// A table says what all services' routes should be. An adapter brings the
// running proxy to a table and proves it, or restores what was there before.
// Proof is an answer of the running proxy, never an exit code.
//
// proxy/nginx is the first adapter (dynamic: sets of instances change in the
// running nginx, without a reload). The port is shaped for a plain reload and
// for HAProxy too. proxy/proxytest has an in-memory proxy and the conformance
// suite that every adapter runs. It imports spec and fault; converge uses it.
package proxy

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"conductor/internal/spec"
)

// Errors of a Proxy, found with errors.Is.
var (
	// ErrRefused: the proxy refused the configuration, or took it without
	// coming to serve it. What was there before is restored and proved.
	ErrRefused = errors.New("the proxy refused the configuration")
	// ErrUnreachable: the proxy does not run, or does not answer.
	ErrUnreachable = errors.New("the proxy does not answer")
	// ErrUnsupported: the host's proxy lacks what the adapter needs.
	ErrUnsupported = errors.New("the proxy lacks a module")
	// ErrNotRestored: refused, and what was there before could not be proved.
	ErrNotRestored = errors.New("the proxy serves an unknown configuration")
)

// Table is all that the proxy should serve.
type Table struct {
	Routes []Route `json:"routes"` // ordered by Service
}

// Route is what the proxy does for one service.
type Route struct {
	Service string    `json:"service"`
	HTTP    spec.HTTP `json:"http"`
	// Targets are the instances that get requests, ordered by name. None: the
	// route answers 503.
	Targets []Target `json:"targets"`
}

// Target is one instance behind a route.
type Target struct {
	Instance string         `json:"instance"` // container name
	Addr     netip.AddrPort `json:"addr"`
	Weight   int            `json:"weight"` // share of requests among the targets, at least 1
}

// Change tells what Apply had to do.
type Change struct {
	Written  bool // the file on disk changed
	Reloaded bool // the proxy read its configuration again
}

// Count is how many requests have ended.
type Count struct {
	Requests uint64
	Errors   uint64 // of them: answered with a status of 500 or more
}

// Observed is what the running proxy has proved that it serves.
type Observed struct {
	// Targets are the proved targets by service. A service that is not a key
	// has no route.
	Targets map[string][]Target
	// InFlight counts the requests and open streams by address, also of
	// addresses that are no targets any more. An address that is not a key has none.
	InFlight map[netip.AddrPort]int
	// Requests counts the requests that have ended, by the name of the
	// instance that was tried last, also of those that are no targets any more.
	// It may be some seconds late, begins anew when the proxy is started, and
	// forgets an instance an hour after its last request.
	Requests map[string]Count
	// Unserved counts in the same way, by service, the requests for which there
	// was no instance.
	Unserved map[string]uint64
	// Counted is false where the proxy cannot count; InFlight, Requests and
	// Unserved are nil then, and what is in flight has to be asked of the kernel.
	Counted bool
	// Routes is true where the proxy serves the routes (names, paths, listen
	// addresses, TLS) of the file on disk. It is false too where the file has
	// other targets than the running proxy, which would serve them after its
	// next start: Apply before anything is stopped.
	Routes bool
}

// Proxy is the reverse proxy of this host. Callers hold the proxy's lock
// around Apply and Check; Observe needs none. Implementations are safe for
// concurrent use.
type Proxy interface {
	// Check says whether Apply could work: the proxy answers, has what the
	// adapter needs, and its whole configuration passes its own test with the
	// table's routes in it. It changes nothing that serves.
	Check(ctx context.Context, t Table) error
	// Apply makes the proxy serve the table, on disk and in the running proxy,
	// and returns nil once that is proved. It is idempotent: with nothing to
	// change it proves and returns. Only a change of routes reloads the proxy;
	// another set of targets does not. On ErrRefused the table before is
	// restored and proved. After any other error the next Observe tells.
	// Requests to a target that is no longer in the table finish undisturbed.
	Apply(ctx context.Context, t Table) (Change, error)
	// Observe asks the running proxy what it serves. ErrUnreachable: nothing
	// is known, neither in nor out.
	Observe(ctx context.Context) (Observed, error)
}

// Route returns the service's route.
func (t Table) Route(service string) (Route, bool) {
	for _, r := range t.Routes {
		if r.Service == service {
			return r, true
		}
	}
	return Route{}, false
}

// With returns a copy of the table with the route in place of its service's.
func (t Table) With(r Route) Table {
	t = t.Without(r.Service)
	i, _ := slices.BinarySearchFunc(t.Routes, r.Service, func(a Route, id string) int {
		return strings.Compare(a.Service, id)
	})
	t.Routes = slices.Insert(t.Routes, i, r)
	return t
}

// Without returns a copy of the table without the service's route.
func (t Table) Without(service string) Table {
	t.Routes = slices.DeleteFunc(slices.Clone(t.Routes), func(r Route) bool { return r.Service == service })
	return t
}

// Clone returns a copy that shares nothing that changes.
func (o Observed) Clone() Observed {
	o.Targets, o.InFlight = maps.Clone(o.Targets), maps.Clone(o.InFlight)
	o.Requests, o.Unserved = maps.Clone(o.Requests), maps.Clone(o.Unserved)
	return o
}
