// Package health asks instances whether they are well, waits until they are,
// and finds out why they are not.
//
// It imports spec and engine; converge uses it.
package health

import (
	"context"
	"net/netip"
	"time"

	"conductor/internal/spec"
)

// Instance is what a probe needs to know of the instance that it asks.
type Instance struct {
	Name      string         // container name, for messages
	Container string         // container ID
	Addr      netip.AddrPort // its own address, at http.port (port 0 where there is none)
	Host      string         // the Host that a client of the proxy would send; empty: the address
	Proto     string         // the X-Forwarded-Proto that the proxy would send: http or https
	StartedAt time.Time
	// Serving: it gets requests, so it was well before. Its failures are
	// counted an interval apart from the first one on.
	Serving bool
	Memory  int64 // limits.memory in bytes, for messages; 0: none
}

// Result is the answer to one probe.
type Result struct {
	At   time.Time
	OK   bool
	Text string // what was asked and seen, one line: "GET :3000/health: 503 Service Unavailable"

	Refused  bool   // nothing listens where it was asked
	Status   int    // http: the answer's status, 0 without an answer
	Location string // http: where a redirect leads
	Body     string // http: the first line of the body, at most 200 bytes
	Exit     int    // command: its exit code
}

// Prober asks one instance once. The probe ends within h.Timeout, or when ctx
// does. A result is never an error of the caller: not well is a Result too.
type Prober interface {
	Probe(ctx context.Context, i Instance, h spec.Health) Result
}
