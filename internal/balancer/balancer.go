// Package balancer is the port to what spreads requests over the hosts of a
// fleet.
//
// A deploy takes hosts out of it, sees them idle, and puts them in again. A
// change is made as one and proved: it is done when the balancer says so, never
// because a command exited with 0.
//
// balancer/haproxy, balancer/nginx and balancer/command are the adapters, which
// cmd alone imports; balancer/balancertest has one in memory and the suite that
// all of them run. It imports fault; internal/fleet uses it.
package balancer

import (
	"context"
	"errors"

	"conductor/internal/fault"
)

// Errors of a Balancer, found with errors.Is.
var (
	// ErrUnknown: the balancer does not know a host that it was told to change,
	// or not the backend. Nothing was changed.
	ErrUnknown = errors.New("the balancer does not know it")
	// ErrRefused: the balancer refused, or did not come to do what it was told.
	// What it does now, State tells.
	ErrRefused = errors.New("the balancer refused")
	// ErrUnreachable: it does not run, or does not answer: nothing is known,
	// neither in nor out.
	ErrUnreachable = errors.New("the balancer does not answer")
)

// Host is a host of the fleet and what the balancer calls it.
type Host struct {
	Name string // in fleet.yml
	// At is the name of its server (haproxy; empty: Name), or its address,
	// HOST or HOST:PORT (nginx, command).
	At string
}

// Server is a host at the balancer.
type Server struct {
	// In: it is sent new requests, while it is Up.
	In bool
	// Away: a person took it out; a deploy does not put it back. Never with In.
	Away bool
	// Up: the balancer's own check sees it well, whether it is in or not. Where
	// the balancer does not check: true.
	Up bool
	// Sessions are the requests and connections in flight there now, those that
	// wait for it included; -1: the balancer cannot tell.
	Sessions int
	// Requests were sent there since the balancer was started or read its
	// configuration: it can fall. -1: the balancer cannot tell.
	Requests int64
	// Says is its state in the balancer's own words, with the reason where it
	// is not up; may be empty.
	Says string
}

// Change is what shall be, made as one: first Admit, and only when those are
// up the rest, so that at no instant nobody is in who was to be in. It is
// idempotent, and no host is in two of its lists.
type Change struct {
	Admit []string // shall be in, whoever took them out
	Drain []string // shall be out; one that is Away stays Away
	Away  []string // shall be out, and told apart as taken out by a person
}

// Balancer is what spreads requests over the hosts. Implementations are safe
// for concurrent use.
type Balancer interface {
	// State asks the balancer for the hosts that it knows, by their names in
	// the fleet; those that it does not know are absent.
	State(ctx context.Context) (map[string]Server, error)
	// Set makes the change and returns nil when State says so. From then on
	// nothing new is sent to a host that was taken out; what is in flight there
	// goes on undisturbed. A change that both admits and takes out waits for
	// those that it admits to be up, before it changes anything. After
	// ErrUnknown nothing has changed, after any other error State tells.
	Set(ctx context.Context, c Change) error
}

// None is a fleet without a balancer: it knows no host.
type None struct{}

var _ Balancer = None{}

// State knows no host.
func (None) State(ctx context.Context) (map[string]Server, error) {
	return map[string]Server{}, ctx.Err()
}

// Set refuses to change any host.
func (None) Set(ctx context.Context, c Change) error {
	if c.Empty() {
		return ctx.Err()
	}
	return fault.New(fault.ErrDefinition, "name it in fleet.yml: balancer: {kind: …}",
		"change %s: %w: the fleet has no balancer", c, ErrUnknown)
}
