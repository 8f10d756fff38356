package cli

import (
	"context"
	"io"
	"time"

	"conductor/internal/converge"
	"conductor/internal/engine"
	"conductor/internal/event"
	"conductor/internal/goal"
	"conductor/internal/proxy"
	"conductor/internal/session"
	"conductor/internal/ship"
	"conductor/internal/spec"
	"conductor/internal/state"
)

// Core is what the commands ask of the host; converge.Host is it for real.
//
// When the context ends with the cause fault.ErrInterrupted or
// fault.ErrTimeout, a verb rolls back before its commit, or finishes after it.
// Outcomes are returned beside an error too, for the services that have one.
type Core interface {
	Upgrade(ctx context.Context, u converge.UpgradeRequest) (converge.Outcome, error)
	// Bring has the image of a revision on the host, and returns its ID.
	Bring(ctx context.Context, id, revision string) (image string, err error)
	// Rollback goes to the release before, or to the newest kept one of the
	// revision where it is not empty.
	Rollback(ctx context.Context, id, revision string) (converge.Outcome, error)
	PlanUpgrade(ctx context.Context, id, revision string) ([]converge.Step, error)
	PlanRollback(ctx context.Context, id, revision string) ([]converge.Step, error)
	Stop(ctx context.Context, id string) (converge.Outcome, error)
	Start(ctx context.Context, id string) (converge.Outcome, error)
	Restart(ctx context.Context, id string) (converge.Outcome, error)
	// Scale sets the number of replicas; nil: what the definition says.
	Scale(ctx context.Context, id string, replicas *int) (converge.Outcome, error)
	Remove(ctx context.Context, id string) (converge.Outcome, error)
	// Converge brings the services to their goals; none named: all.
	Converge(ctx context.Context, ids ...string) ([]converge.Outcome, error)
	// Prune takes away the names of images that no goal needs.
	Prune(ctx context.Context, ids ...string) ([]converge.Outcome, error)
	// Pause keeps the supervisor from a service, or lets it look after it again.
	Pause(ctx context.Context, id string, paused bool) (converge.Outcome, error)
	// Status tells of the services, ordered by id; none named: all.
	Status(ctx context.Context, ids ...string) ([]converge.Status, error)
	// Brief is Status without what the instances use, which takes a while to be
	// measured.
	Brief(ctx context.Context, ids ...string) ([]converge.Status, error)
	// Run runs a command in a container of its own.
	Run(ctx context.Context, r converge.RunRequest) (converge.RunResult, error)
	// GenerateCrontab is the crontab that runs the jobs of a revision.
	GenerateCrontab(ctx context.Context, r converge.CrontabRequest) (goal.Crontab, error)
	InstallCrontab(ctx context.Context, r converge.CrontabRequest) (converge.Outcome, error)
	RemoveCrontab(ctx context.Context, id string) (converge.Outcome, error)
	// Crons are the crontabs of the services, ordered by id; none named: all.
	Crons(ctx context.Context, ids ...string) ([]converge.Cron, error)
	// LiveRuns are the containers of runs, of one service or of all.
	LiveRuns(ctx context.Context, service string) ([]engine.Container, error)
	StopRun(ctx context.Context, name string) error
	SweepRuns(ctx context.Context) error
}

// Parts are the host, opened.
type Parts struct {
	Core    Core
	Engine  engine.Engine // logs, exec, doctor
	Proxy   proxy.Proxy   // doctor
	Routes  func() (state.Routes, error)
	History History
	RunLog  func(run string, to io.Writer) error // of one that has ended
	// CronDaemon tells the process of the host's cron daemon, 0 for none, and
	// the zone that its clock goes by.
	CronDaemon func() (pid int, zone *time.Location)
	// Supervise looks after all services until ctx is done, and has metrics at
	// the address, unless that is empty.
	Supervise func(ctx context.Context, address string) error
	// Supervisor tells the process of the one that runs, 0 for none.
	Supervisor func() (pid int, since time.Time)
	// Ship takes images that a fleet's deploy sends to this host.
	Ship ship.Target
	// FleetState is what this host knows of the fleet that it is part of.
	FleetState session.State
	// Recycling is when this host was last recycled.
	Recycling session.RecyclingState
	// Close lets go of what was opened; nil: nothing.
	Close func() error
}

// History is what was done; state.History is it for real.
type History interface {
	// List returns operations, newest first, at most limit (0: all), of one
	// service or, with an empty id, of all.
	List(ctx context.Context, service string, limit int) ([]state.Operation, error)
	// Runs returns runs in the same way.
	Runs(ctx context.Context, service string, limit int) ([]state.Run, error)
}

// Setup is what is known when the host is opened.
type Setup struct {
	Config      spec.Config
	Definitions spec.Set
	Emit        event.Sink
	Warn        func(error) // told what a person should know; not fatal
	User        string
	Reason      string          // given for what is done; may be empty
	Caller      converge.Caller // how crontabs call this program
	// Version and Commit of this program; Commit may be empty.
	Version, Commit string
	// Look: nothing on the host may be made or changed, not even state_dir.
	// Core and History are nil where they cannot be had without.
	Look bool
}

// Opener opens the host. It returns what could be opened beside an error, so
// that doctor can look at the rest.
type Opener func(ctx context.Context, s Setup) (*Parts, error)
