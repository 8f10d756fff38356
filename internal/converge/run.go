package converge

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"time"

	"conductor/internal/engine"
	"conductor/internal/fault"
	"conductor/internal/goal"
	"conductor/internal/plan"
	"conductor/internal/spec"
	"conductor/internal/state"
)

// RunRequest is a command to run in a container of its own.
type RunRequest struct {
	Service  string
	Revision string // empty: that of the release that is live
	Command  []string
	Kind     string // RunCommand, RunGenerate
	// Jitter is the longest time to wait before anything is done, at random:
	// jobs of one minute need not all start at once.
	Jitter time.Duration

	// What differs from the release.
	Env    []string // KEY=VALUE
	User   string
	Memory int64   // bytes; 0: as the release has it
	CPUs   float64 // 0: as the release has it

	entrypoint []string // instead of the image's, without init; nil: the image's

	Lock   string // of this name; empty: none
	OnLock OnLock

	Streams engine.Streams
	// Signals is called before the command is started: what comes through the
	// channel goes to it, by name (SIGTERM). nil: there are none.
	Signals func() <-chan string
	// Started is told the container's name once the command runs; nil: nobody.
	Started func(name string)
}

// OnLock is what a run does whose lock is taken.
type OnLock string

const (
	LockWait    OnLock = "wait"    // until it is free
	LockSkip    OnLock = "skip"    // run nothing, which is no failure
	LockReplace OnLock = "replace" // end who holds it
)

// RunResult is how a run ended.
type RunResult struct {
	Name    string // of its container
	Code    int    // exit code of the command
	Skipped string // why nothing was run; empty: it was
	Notes   []string
}

// Runs keeps what there is of runs besides their containers: locks, logs, and
// the record for people. state's Dir and History are it on disk.
type Runs interface {
	// LockRun takes the lock of that name, which dies with the process. Without
	// wait, one that is taken is fault.ErrLocked.
	LockRun(ctx context.Context, name string, wait bool, h state.Holder) (release func(), err error)
	RunLog(run string) (io.WriteCloser, error)
	// CompleteRunLog has write give the log anew, which replaces what there is
	// of it only if that is no loss.
	CompleteRunLog(run string, write func(io.Writer) error) error
	BeginRun(r state.Run)
	EndRun(r state.Run)
}

// Run runs a command in a container of the service, and removes it. The error
// is about what kept it from running, or from running to its end; a command's
// own failure is its exit code.
func (h *Host) Run(ctx context.Context, r RunRequest) (res RunResult, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("run of %s: %w", r.Service, err)
		}
	}()
	if err := h.known(r.Service); err != nil {
		return res, err
	}
	if err := h.SweepRuns(ctx); err != nil {
		return res, err
	}
	if r.Jitter > 0 {
		select {
		case <-time.After(mathrand.N(r.Jitter)):
		case <-ctx.Done():
			return res, cutShort(ctx)
		}
	}
	unlock, err := h.lockRun(ctx, r)
	if err != nil {
		if r.OnLock == LockSkip && errors.Is(err, fault.ErrLocked) {
			return RunResult{Skipped: err.Error()}, nil
		}
		return res, err
	}
	defer unlock()
	release, err := h.releaseToRun(ctx, r.Service, r.Revision)
	if err != nil {
		return res, err
	}
	return h.run(ctx, r, release)
}

// known refuses a service that has neither a definition nor a goal.
func (h *Host) known(id string) error {
	if _, ok := h.Definitions.Services[id]; ok {
		return nil
	}
	if _, ok, err := h.Store.Goal(id); err != nil || !ok {
		_, unknown := h.Definitions.Get(id)
		return firstOf(err, unknown)
	}
	return nil
}

// lockRun takes the run's lock as the request says.
func (h *Host) lockRun(ctx context.Context, r RunRequest) (release func(), err error) {
	if r.Lock == "" {
		return func() {}, nil
	}
	holder := state.Holder{Verb: "run", Revision: r.Revision, User: h.User}
	release, err = h.Runs.LockRun(ctx, r.Lock, false, holder)
	if err == nil || !errors.Is(err, fault.ErrLocked) || r.OnLock == LockSkip {
		return release, err
	}
	if r.OnLock == LockReplace {
		began := time.Now()
		ending, done := context.WithCancel(ctx)
		defer done()
		// The holder may be on its way to its container yet, so it is looked for
		// until the lock is free. Who came later than this run is left alone.
		go h.endHolders(ending, r.Lock, began)
	}
	return h.Runs.LockRun(ctx, r.Lock, true, holder)
}

func (h *Host) endHolders(ctx context.Context, lock string, before time.Time) {
	want := h.mine("", KindRun)
	want[LabelLock] = lock
	for ctx.Err() == nil {
		runs, err := h.Engine.List(ctx, want)
		for _, c := range runs {
			if err == nil && c.Created.Before(before) {
				_ = h.Engine.Stop(ctx, c.ID, grace(c)) // the next look sees whether it did
			}
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// grace is how long a container has to end, as its label says.
func grace(c engine.Container) time.Duration {
	d, err := time.ParseDuration(c.Labels[LabelGrace])
	if err != nil {
		return 10 * time.Second
	}
	return d
}

// releaseToRun is what the goal knows by that revision, else what the
// definition makes of it now. Of the live release nothing is looked up: what
// runs beside it is the same.
func (h *Host) releaseToRun(ctx context.Context, id, revision string) (goal.Release, error) {
	g, _, err := h.Store.Goal(id)
	if err != nil {
		return goal.Release{}, err
	}
	if revision == "" {
		if g.Current == nil {
			return goal.Release{}, fault.New(fault.ErrUsage, "name the revision: --revision REV", "no release of %s is live on this host", id)
		}
		return *g.Current, nil
	}
	known := g.Releases()
	if i := slices.IndexFunc(known, func(r goal.Release) bool { return r.Revision == revision }); i >= 0 {
		err := limited(ctx, func(ctx context.Context) error {
			_, err := h.Engine.Image(ctx, known[i].Image)
			return err
		})
		if err == nil || !notFound(err) {
			return known[i], err
		}
	}
	s, err := h.Definitions.Get(id)
	if err != nil {
		return goal.Release{}, err
	}
	return h.resolve(ctx, s, revision)
}

// runName is one that no other run has.
func (h *Host) runName(service string, r goal.Release) string {
	var b [4]byte
	_, _ = rand.Read(b[:]) // it never fails
	return plan.RunName(h.Namespace, service, r.Revision, r.Digest, "run-"+hex.EncodeToString(b[:]))
}

// container is what the run's container is made of, but for its environment
// and address.
func (r RunRequest) container(base spec.Container) spec.Container {
	base.Ports = nil // they belong to the instances
	if r.Memory > 0 {
		base.Limits.Memory = r.Memory
	}
	if r.CPUs > 0 {
		base.Limits.CPUs = r.CPUs
	}
	base.User = firstOf(r.User, base.User)
	if r.entrypoint != nil {
		// Without init, a program that is not there is known from one that fails.
		base.Entrypoint, base.Init = r.entrypoint, false
	}
	return base
}

// overlay puts variables over others of the same name.
func overlay(env, over []string) []string {
	name := func(kv string) string { k, _, _ := strings.Cut(kv, "="); return k }
	out := slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		return slices.ContainsFunc(over, func(o string) bool { return name(o) == name(kv) })
	})
	return append(out, over...)
}
