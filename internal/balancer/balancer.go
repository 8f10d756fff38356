// Package balancer is the port to the balancer before a fleet.
package balancer

import "context"

// Server is a host at the balancer.
type Server struct {
	In       bool
	Away     bool
	Up       bool
	Sessions int
	Requests int64
}

// Change is made as one.
type Change struct{ Admit, Drain, Away []string }

// Balancer sends requests to hosts.
type Balancer interface {
	State(ctx context.Context) (map[string]Server, error)
	Set(ctx context.Context, c Change) error
}
