// Package plan decides. It is a pure function of the goal, of what was
// observed, of the steps in flight and of the time: which steps may start now,
// each with its cause in words, and when to look again.
//
// It does no I/O and never asks the clock. It imports goal, spec, engine's and
// proxy's types; converge, the simulator and --plan use it.
package plan

import (
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"conductor/internal/engine"
	"conductor/internal/goal"
	"conductor/internal/proxy"
	"conductor/internal/spec"
)

// RestartInterval is the least time between two starts in one replica slot,
// once it has been restarted: flat, for ever. The first restart is at once.
const RestartInterval = 5 * time.Second

// Input is all that a decision depends on.
type Input struct {
	Namespace string
	Goal      goal.Goal
	Instances []Instance // every container of the service, ordered by name
	Proxy     Proxy
	// Crontab is the identity of the crontab that is installed: "" where there
	// is none, Unknown where it is another than the goal knows.
	Crontab string
	Refused []Refusal // creations that the engine refused
	Doing   []Step    // steps in flight
	// Recycle names an instance that is to be replaced by a fresh one, once that
	// is well; "": none.
	Recycle string
	// Abort asks to give the candidate up, if it is not committed yet.
	Abort string // why, in words; empty: no
	Now   time.Time
}

// Instance is one container of the service, as it was observed.
type Instance struct {
	Name, ID          string
	Release, Revision string // of its labels; Release is the whole digest
	Slot, N           int
	Epoch, Attempt    int
	PreviousStart     time.Time // of the instance that it replaced
	State             engine.State
	Created           time.Time
	StartedAt         time.Time
	FinishedAt        time.Time
	ExitCode          int
	OOMKilled         bool
	Addr              netip.AddrPort
	Broken            string // why it could not be started; empty: it was not tried, or it could

	Asked    bool // a probe of this process has answered
	Well     bool // the last word of its probes is good
	EverWell bool // it was well at some time
	Failures int  // consecutive failed probes
	LastWord string

	Route    RouteState
	Served   bool // where Route is Unproved: it may get requests as it is
	InFlight int
	OutSince time.Time // since when it is proved out; zero: never was in, or unknown
}

// Unknown is the identity of a crontab that the goal does not know.
const Unknown = "unknown"

// RouteState is what is proved about the requests that go to an instance.
type RouteState int

const (
	// Out: the proxy proved that it sends no requests.
	Out RouteState = iota
	// In: the proxy proved that it sends requests.
	In
	// Unproved counts as in for stopping, and as out for capacity.
	Unproved
)

// Proxy is what was observed of the service's route.
type Proxy struct {
	Known bool // the proxy answered
	// Has: there is a route for the service, on disk or served.
	Has bool
	// HTTP is the route that is proved, on disk and served; nil: none is.
	HTTP *spec.HTTP
	// Targets are the proved ones, ordered by instance.
	Targets []proxy.Target
}

// Refusal is a creation that failed for good: no container came of it.
type Refusal struct {
	Release string
	Slot    int
	Reason  string
	At      time.Time
}

// Kind is what a step does.
type Kind string

const (
	Before Kind = "run before" // the command of upgrade.before, once
	Create Kind = "create"
	Start  Kind = "start"
	Route  Kind = "route"   // hand the proxy a set of targets, and see it proved
	Stop   Kind = "stop"    // stop signal, grace, kill
	Remove Kind = "remove"  // a container that does not run
	Commit Kind = "commit"  // the candidate becomes the current release
	Cron   Kind = "crontab" // have the cron daemon run the goal's jobs, and no other
	Drop   Kind = "drop"    // the candidate is given up
)

// Step is one thing to do. Acting on it decides nothing.
type Step struct {
	Do       Kind
	Instance string // container name; empty for steps of the whole service
	ID       string // container ID, where there is one
	Revision string
	Cause    string

	// Create
	Release       string // digest
	Slot, N       int
	Attempt       int
	PreviousStart time.Time
	Reason        Reason // what the one before failed of; empty: it did not
	// Start: the container is an old one that serves again.
	Again bool
	// Route: the targets and the way to them; Gone takes the whole route away.
	// Cron: Gone takes the crontab away.
	Targets []proxy.Target
	HTTP    *spec.HTTP
	Gone    bool
	// Drop: the candidate failed, rather than the caller's patience.
	Failed bool
}

// Key identifies the step among those in flight: no two of one key.
func (s Step) Key() string {
	switch s.Do {
	case Route, Commit, Drop, Before, Cron:
		return string(s.Do)
	}
	return string(s.Do) + " " + s.Instance
}

// Name is the step in words, without its cause.
func (s Step) Name() string {
	switch s.Do {
	case Route:
		if s.Gone {
			return "take the route away"
		}
		if len(s.Targets) == 0 {
			return "route to none"
		}
		names := make([]string, len(s.Targets))
		for i, t := range s.Targets {
			names[i] = t.Instance
		}
		return "route to " + strings.Join(names, ", ")
	case Commit, Drop, Before:
		return fmt.Sprintf("%s %s", s.Do, s.Revision)
	case Cron:
		if s.Gone {
			return "take the crontab away"
		}
		return "install the crontab of " + s.Revision
	}
	return fmt.Sprintf("%s %s", s.Do, s.Instance)
}

func (s Step) String() string { return s.Name() + ": " + s.Cause }

// Output is a decision.
type Output struct {
	Steps []Step
	// LookAt is when to ask again even if nothing happens; zero: no need.
	LookAt time.Time
	// Waiting says, in words, what is still missing from the goal although
	// no step can start. With it empty and no step started or in flight, the
	// goal is reached.
	Waiting []string
	// Trouble names instances of the goal that did not work out.
	Trouble []Trouble
}

// Trouble is an instance of the goal's release that failed, and how.
type Trouble struct {
	Instance string
	Cause    string
}

// Settled is true where the goal is reached.
func (o Output) Settled(in Input) bool {
	return len(o.Steps) == 0 && len(in.Doing) == 0 && len(o.Waiting) == 0
}

// Name is the name of an instance: a pure function of what it is, so that a
// create whose answer was lost finds its container.
func Name(namespace, service, revision, release string, slot, n int) string {
	return RunName(namespace, service, revision, release, fmt.Sprintf("%d-%d", slot, n))
}

// RunName names a container of a release that is in no slot: a run.
func RunName(namespace, service, revision, release, run string) string {
	rev := strings.Map(func(r rune) rune {
		if r == ':' || r == '@' {
			return '-'
		}
		return r
	}, revision)
	return Prefix(namespace, service) + fmt.Sprintf("%.12s.%.4s-%s", rev, release, run)
}

// IsName tells the name of an instance, or of the run before the first one,
// from that of another container of the service.
func IsName(name string) bool { return instanceName.MatchString(name) }

var instanceName = regexp.MustCompile(`\.[0-9a-f]{4}-(\d+-\d+|before)$`)

// Prefix begins the names of all containers of a service, and of no other: ids
// have no dot in them.
func Prefix(namespace, service string) string {
	if namespace == "conductor" {
		return service + "."
	}
	return namespace + "." + service + "."
}

// Sick: enough probes in a row have failed. An instance that never was well is
// failed by its start timeout, not by this.
func (i Instance) Sick(h spec.Health) bool {
	return i.Running() && !i.Well && (i.EverWell || i.Routed()) && i.Asked && i.Failures >= max(h.UnhealthyAfter, 1)
}

// Running: its process runs, as far as the engine knows.
func (i Instance) Running() bool { return i.State == engine.Running || i.State == engine.Paused }

// Live: it runs, or is about to.
func (i Instance) Live() bool { return i.Running() || i.State == engine.Created && i.Broken == "" }

// Serves: it may get requests. One that is routed keeps them until it is known
// to be sick; one that is not has to be well first.
func (i Instance) Serves(h spec.Health) bool {
	if i.State != engine.Running {
		return false
	}
	return i.Well || i.Routed() && !i.Sick(h)
}

// Routed: it gets requests, or may. What only the file on disk says does not
// make it so: it has to be well before it comes in.
func (i Instance) Routed() bool { return i.Route == In || i.Route == Unproved && i.Served }

// unasked: it is not known whether it is well, and will soon be.
func (i Instance) unasked(h spec.Health, now time.Time) bool {
	return i.State == engine.Running && i.Route == Unproved && !i.Well && !i.Sick(h) && !i.Late(h, now)
}

// Late: it never was well, and its start timeout is over. To a process that has
// just begun, an instance that has served for days never was well: so it is
// asked first, as often as one that is well would be.
func (i Instance) Late(h spec.Health, now time.Time) bool {
	return i.Running() && !i.Well && !i.EverWell && !i.Routed() && i.Asked && i.Failures >= max(h.UnhealthyAfter, 1) &&
		!now.Before(i.StartedAt.Add(h.StartTimeout.D()))
}
