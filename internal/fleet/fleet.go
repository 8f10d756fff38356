// Package fleet brings a revision of a service to the hosts of a fleet. It is
// the loop of internal/converge one level up: look at all hosts and at the
// balancer, have internal/rollout decide, do the steps, look again. What is
// done on a host is done by that host's own conductor.
//
// It keeps nothing between two deploys: a deploy that was cut off is continued
// by the next one from what the hosts and the balancer say.
//
// cli uses it. It knows the hosts by the interface Hosts and the balancer by
// the port internal/balancer.
package fleet

import (
	"context"
	"time"

	"conductor/internal/balancer"
	"conductor/internal/event"
	"conductor/internal/rollout"
)

// Hosts are the machines, by their names in the fleet. Every call is one
// session on the host's connection; an error of class fault.ErrUnreachable says
// that there is none. Errors name the host. All calls may be repeated.
type Hosts interface {
	// Look tells how the service is there.
	Look(ctx context.Context, host string, q Question) (Seen, error)
	// Hold takes the fleet's lock on the service there. fault.ErrLocked names who
	// has it; with wait it is waited for.
	Hold(ctx context.Context, host string, q Question, wait bool) (Held, error)
	// Attend is Look and, when it is told to, Hold, by one session.
	Attend(ctx context.Context, host string, q Question, wait bool) (Attended, error)
	// Bring has the host have the image of the revision, and says what that took.
	Bring(ctx context.Context, host, service, revision string) (said string, err error)
	// Test runs the test command in the revision's image; no error: it passed.
	Test(ctx context.Context, host string, t Task) error
	// Migrate runs the migration, and marks the revision there when it is done.
	// Once it has begun it goes on to its end, whatever becomes of the call.
	Migrate(ctx context.Context, host string, t Task) error
	// Mark notes there what is true of a revision over the whole fleet.
	Mark(ctx context.Context, host, service, revision string, m Mark) error
	// Upgrade has the host upgrade, with its events going to emit. Once the host
	// has begun it goes on to an end of its own, whatever becomes of the call. seen
	// is how the service is then; nil: the host did not say.
	Upgrade(ctx context.Context, host string, u Upgrade, emit event.Sink) (seen *Seen, err error)
	// Verify asks the service there as a client would, through the host's proxy.
	Verify(ctx context.Context, host, service string) error
}

// Held is a lock that a host keeps until Release, or until Lost says why not: the
// connection is gone, or the host let go.
type Held struct {
	Seen    *Seen // how the service is since the lock is held; nil: the host did not say
	Lost    <-chan error
	Release func()
}

// Attended is a host that was looked at and can be locked, until Leave, which is
// also the Release of what is held.
type Attended struct {
	Seen  Seen
	Hold  func(ctx context.Context) (Held, error)
	Leave func()
}

// Mark is what is true of a revision over the whole fleet.
type Mark string

const (
	Tested   Mark = "tested"   // its test command has passed
	Migrated Mark = "migrated" // its migration is done
)

// Task is a command in a container of a revision.
type Task struct {
	Service, Revision string
	Command           []string
	Timeout           time.Duration // 0: none
}

// Upgrade is what a host is to run.
type Upgrade struct {
	Service, Revision string
	Back              bool // to a release that it has kept
	SkipBefore        bool // the fleet has a migration in place of upgrade.before
}

// Question is what Look asks.
type Question struct {
	Service, Revision string
	Whole             bool // look for troubles, too
}

// Seen is what a host says.
type Seen struct {
	Version  string    `json:"version"` // of conductor there
	Commit   string    `json:"commit,omitempty"`
	Hostname string    `json:"hostname"`
	Time     time.Time `json:"time"` // by its clock
	// Troubles keep the host from an upgrade: engine, proxy, disk; a line each.
	Troubles []string `json:"troubles,omitempty"`
	// Definition is the digest of the service's definition; Applied says that the
	// live release is by it.
	Definition string `json:"definition,omitempty"`
	// Routed: the service takes requests, through the host's proxy.
	Routed bool   `json:"routed,omitempty"`
	Live   string `json:"live,omitempty"` // revision
	// Kept are the revisions besides that a rollback may go to.
	Kept      []string `json:"kept,omitempty"`
	State     string   `json:"state"`               // of the service, as service status has it
	Sound     bool     `json:"sound"`               // all instances are healthy, and nothing is under way
	InFlight  int      `json:"in_flight"`           // requests, at all instances
	Reference string   `json:"reference,omitempty"` // by which it goes there
	Image     string   `json:"image,omitempty"`     // ID of the revision's image, if it is there
	Marks     []Mark   `json:"marks,omitempty"`     // of the revision
	Holder    string   `json:"holder,omitempty"`    // who has the fleet's lock
}

// Deploy is what is asked for.
type Deploy struct {
	Service  string
	Revision string
	Hosts    []string // in the fleet's order
	Others   []string // hosts of the service that this deploy leaves alone
	// Definition is the digest of the service's definition where the deploy runs,
	// which the hosts Synced are to have; "": there is none.
	Definition string
	Synced     []string
	Strategy   rollout.Strategy
	// MaxFailed hosts may fail before no other is begun.
	MaxFailed int
	Test      []string
	Migrate   []string
	// Timeouts; 0: the defaults.
	TestTimeout, MigrateTimeout, DrainTimeout time.Duration
	Wait                                      bool // for who has the lock
	// Rollback: the revision is one that the hosts have kept.
	Rollback bool
	// Back: when it fails, the hosts that it changed go back to what they ran.
	Back bool
	// Confirm asks whether to go on after the first host; nil: yes.
	Confirm func(ctx context.Context, host string) (bool, error)
	// Targets brings to the revision what is no host, when all hosts are there;
	// nil: there is nothing. What it fails of is the deploy's failure.
	Targets func(ctx context.Context) ([]HostOutcome, error)
	Hooks   Hooks
}

// Hooks are run at their time, on the machine of the deploy; an error stops
// what has not begun.
type Hooks interface {
	// Run runs the hook of the name, if there is one; host is "" for those of
	// the whole deploy.
	Run(ctx context.Context, name, host string, d Deploy, failure error) error
}

// Names of hooks.
const (
	BeforeDeploy = "before_deploy"
	BeforeHost   = "before_host"
	AfterHost    = "after_host"
	AfterDeploy  = "after_deploy"
	OnFailure    = "on_failure"
)

// Fleet is the parts that a deploy is done with.
type Fleet struct {
	Hosts    Hosts
	Balancer balancer.Balancer // nil: there is none
	Emit     event.Sink
	// Watch is told how far a deploy is, whenever that may have changed; nil:
	// nobody is. It must not block for long.
	Watch func(Progress)
	// Version of this program, which the hosts' have to be compatible with.
	Version string
}

// HostOutcome is what became of a host.
type HostOutcome struct {
	Host     string `json:"host"`
	Revision string `json:"revision"`          // that it runs now; "?": it is not known
	Balanced bool   `json:"balanced"`          // the balancer knows it
	In       bool   `json:"in"`                // and sends it requests
	Away     bool   `json:"away,omitempty"`    // a person took it out
	Changed  bool   `json:"changed"`           // by this deploy
	Failure  string `json:"failure,omitempty"` // why it does not run what it should
	Hint     string `json:"hint,omitempty"`    // what to do about that
	Err      error  `json:"-"`
}

// Outcome is what became of a deploy.
type Outcome struct {
	Service  string        `json:"service"`
	Revision string        `json:"revision"`
	Took     time.Duration `json:"-"`
	Hosts    []HostOutcome `json:"hosts"`
}

// unknown is the revision of a host that does not say.
const unknown = "?"

const (
	drainTimeout = 30 * time.Second
	// upTimeout is how long the balancer may take to see an admitted host well.
	upTimeout = 30 * time.Second
	// quiet is for how long no request may come to any host before one that is
	// let in counts as taking requests without having had any.
	quiet = 2 * time.Second
	// look is how often what is awaited is looked at.
	look = 250 * time.Millisecond
	// lastLook is how long hosts may take to say what they run, at the end.
	lastLook = 10 * time.Second
	// maxSkew is how far a host's clock may be off before that is told.
	maxSkew = 5 * time.Second
)
