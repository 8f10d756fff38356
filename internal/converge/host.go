// Package converge brings a host to its goals: observe, plan, act, observe
// again. Upgrade, Rollback, Stop and their like only change a goal and then let
// the loop work; there is no second way to do anything.
//
// It uses plan, health, engine, proxy, state's files and secret through the
// small interfaces below. cli, and later web and supervise, use it.
package converge

import (
	"context"
	"net/netip"
	"time"

	"conductor/internal/engine"
	"conductor/internal/event"
	"conductor/internal/goal"
	"conductor/internal/health"
	"conductor/internal/plan"
	"conductor/internal/proxy"
	"conductor/internal/secret"
	"conductor/internal/spec"
	"conductor/internal/state"
)

// Host is this machine with the parts that do the work. It has no state of
// its own.
type Host struct {
	Namespace   string
	Definitions spec.Set
	Engine      engine.Engine
	Subnet      netip.Prefix // of the instances' network; zero: one that is free
	Proxy       proxy.Proxy
	Prober      health.Prober
	Store       Store
	Secrets     Secrets
	History     History
	Runs        Runs
	Crontabs    Crontabs
	Caller      Caller
	Emit        event.Sink
	// User is who asked, and Reason why, for the history.
	User, Reason string
	// Code is the exit code that an error ends with, for the history; nil: 0.
	Code func(error) int
	// KilledForMemory asks the kernel why a container was killed; nil: nobody is asked.
	KilledForMemory func(id string) bool

	// For tests; nil: plan.Next, and what the image's own generate-cron prints.
	plan   func(plan.Input) plan.Output
	prints func(ctx context.Context, service string, r goal.Release, command []string) (string, error)
}

// Store keeps goals and routes; internal/state is it on disk.
type Store interface {
	// Lock takes the service's lock, which dies with the process. Where another
	// command holds it, it returns fault.ErrLocked naming the holder; a
	// supervisor's lock is waited for.
	Lock(ctx context.Context, service string, h state.Holder) (release func(), err error)
	// Goal returns the service's goal; ok is false where there is none.
	Goal(service string) (g goal.Goal, ok bool, err error)
	// PutGoal writes the goal. After an error it may be there or not.
	PutGoal(g goal.Goal) error
	DeleteGoal(service string) error
	// Goals returns all goals, ordered by service.
	Goals() ([]goal.Goal, error)
	// LockProxy takes the proxy's lock. It is taken after a service's, held
	// from render to proof or restore.
	LockProxy(ctx context.Context) (release func(), err error)
	Routes() (state.Routes, error)
	PutRoutes(r state.Routes) error
	// Address hands out the next address of the subnet, round-robin, that used
	// does not name.
	Address(ctx context.Context, subnet netip.Prefix, used map[netip.Addr]bool) (netip.Addr, error)
}

// Secrets reads what a release's environment is made of; internal/secret is it
// for real.
type Secrets interface {
	// Read resolves environment, env files and secrets.
	Read(ctx context.Context, c spec.Container) (secret.Material, error)
	// Place writes the files of secrets for one instance where only root can
	// list them, and returns path in the container → path on the host.
	Place(instance string, files map[string][]byte) (map[string]string, error)
	// Clear removes what Place wrote.
	Clear(instance string) error
	// Sweep clears the instances whose names begin with prefix, but for those
	// that keep names.
	Sweep(prefix string, keep func(instance string) bool) error
}

// History records what was done. Its failures are told and change nothing.
type History interface {
	Begin(op state.Operation) (id int64)
	End(id int64, op state.Operation)
	Event(e event.Event)
}

// Outcome is what became of a verb.
type Outcome struct {
	Service  string        `json:"service"`
	Verb     string        `json:"verb"`
	From     string        `json:"from,omitempty"` // revision before
	To       string        `json:"to,omitempty"`   // revision now
	Changed  bool          `json:"changed"`
	Note     string        `json:"note,omitempty"` // in words: nothing to do, seconds down, …
	Took     spec.Duration `json:"took"`
	Warnings []string      `json:"warnings,omitempty"`
}

// then adds up two passes of one verb.
func (o Outcome) then(n Outcome) Outcome {
	if o.Verb == "" || !o.Changed {
		return n
	}
	n.From, n.Changed, n.Took = o.From, true, o.Took+n.Took
	n.Note, n.Warnings = o.Note, append(o.Warnings, n.Warnings...)
	return n
}

// Step is one line of a plan, for --plan.
type Step struct {
	Do    string `json:"do"`    // "create shop.v2.1a2b-1-1"
	Cause string `json:"cause"` // "the candidate has 0 of 2 instances"
}

// Status is what a service is and should be.
type Status struct {
	Service   string    `json:"service"`
	Kind      spec.Kind `json:"kind,omitempty"`
	State     string    `json:"state"` // running, degraded, down, stopped, upgrading, not deployed, job
	Revision  string    `json:"revision,omitempty"`
	Release   string    `json:"release,omitempty"` // 12 digits
	Image     string    `json:"image,omitempty"`
	Candidate string    `json:"candidate,omitempty"` // revision on trial
	Replicas  int       `json:"replicas"`
	Override  bool      `json:"override,omitempty"` // replicas were set by scale
	Healthy   int       `json:"healthy"`
	Routes    []string  `json:"routes,omitempty"`  // "http://shop.example.com/"
	Crontab   string    `json:"crontab,omitempty"` // "v1, 3 jobs"
	Kept      []string  `json:"kept,omitempty"`    // revisions that a rollback goes to, nearest first
	// Undone are kept revisions that a rollback left: one goes back to them by name.
	Undone []string `json:"undone,omitempty"`
	// Notes say what a person should know: "definition changed, not applied:
	// environment", "orphan: its definition is gone", a definition's mistakes.
	Notes     []string         `json:"notes,omitempty"`
	Instances []InstanceStatus `json:"instances"`
}

// InstanceStatus is one container of a service.
type InstanceStatus struct {
	Name      string    `json:"name"`
	Container string    `json:"container"`
	Slot      int       `json:"slot"`
	Revision  string    `json:"revision"`
	Release   string    `json:"release"` // 12 digits
	State     string    `json:"state"`   // running, created, exited, …
	Health    string    `json:"health"`  // healthy, unhealthy, starting, dead
	Cause     string    `json:"cause,omitempty"`
	Route     string    `json:"route,omitempty"` // in, out, draining; empty for a worker
	InFlight  int       `json:"in_flight,omitempty"`
	Address   string    `json:"address,omitempty"`
	Started   time.Time `json:"started,omitzero"`
	Restarts  int       `json:"restarts,omitempty"`
	// NextTry is when its slot, which has no live instance, is filled again: by
	// the supervisor, or by a command. Zero: that is not due.
	NextTry time.Time `json:"next_try,omitzero"`
	Memory  int64     `json:"memory,omitempty"`       // bytes
	Limit   int64     `json:"memory_limit,omitempty"` // bytes; 0: none
	CPU     float64   `json:"cpu"`                    // processors in use, 0.5 is half of one
	// CPUTime is what it has used of processors since its start; 0: unknown.
	CPUTime time.Duration `json:"-"`

	pid int
}
