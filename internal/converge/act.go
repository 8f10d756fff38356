package converge

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"conductor/internal/engine"
	"conductor/internal/event"
	"conductor/internal/fault"
	"conductor/internal/goal"
	"conductor/internal/health"
	"conductor/internal/plan"
	"conductor/internal/secret"
	"conductor/internal/spec"
)

// callTimeout bounds a call of the engine that should take milliseconds: one
// that hangs is tried again.
const callTimeout = 30 * time.Second

// action is one step with all that it needs to know. It runs beside the loop
// and shares nothing with it that changes.
type action struct {
	*Host
	service  string
	begun    time.Time // when it was decided upon
	goal     goal.Goal
	step     plan.Step
	instance plan.Instance // what was observed of the step's instance
	target   health.Instance
	health   spec.Health
	last     *health.Result
	shared   *shared
	starts   chan struct{}
	switches *Switches
	glances  *Glances
	tags     map[string]string        // labels of the instance
	ids      map[string]plan.Instance // all that exist, by name
}

// shared is what the actions of one loop read once. A failure is shared by those
// that were decided upon together, and the next ones try again.
type shared struct {
	network *joint[engine.Network]
	used    *joint[*addresses]

	mu       sync.Mutex
	material map[string]*joint[secret.Material] // by release
}

func newShared() *shared {
	return &shared{network: newJoint[engine.Network](), used: newJoint[*addresses](), material: map[string]*joint[secret.Material]{}}
}

// action prepares a step.
func (l *loop) action(s plan.Step) action {
	a := action{Host: l.Host, service: l.service, goal: l.goal, step: s, shared: l.shared, starts: l.starts, switches: l.switches, glances: l.glances, ids: map[string]plan.Instance{}}
	for name, c := range l.obs.containers {
		i := instance(c)
		i.Served = l.obs.served(name)
		a.ids[name] = i
		if name == s.Instance {
			a.instance, a.tags = instance(c), c.Labels
			a.instance.OutSince, a.instance.InFlight = l.obs.draining(a.instance)
			a.target, a.health = l.target(a.instance), l.healthOf(a.instance)
			if k := l.watch.known[c.ID]; k != nil && k.asked {
				last := k.last
				a.last = &last
			}
		}
	}
	return a
}

// do performs the step and decides nothing.
func (a action) do(ctx context.Context) result {
	r := result{step: a.step}
	switch a.step.Do {
	case plan.Before:
		r.goal, r.err = a.before(ctx)
	case plan.Create:
		// All who come into the line at one time look at the network together.
		if _, _, r.err = a.survey(ctx); r.err == nil {
			r.err = a.inTurn(ctx, func(ctx context.Context) (err error) {
				r.made, err = a.create(ctx)
				return err
			})
		}
	case plan.Start:
		r.err = a.inTurn(ctx, a.start)
	case plan.Route:
		r.err = a.route(ctx)
	case plan.Stop:
		r.err = a.stop(ctx)
	case plan.Remove:
		r.err = a.remove(ctx)
	case plan.Cron:
		r.err = a.cron()
	case plan.Commit:
		r.goal, r.err = a.commit()
	case plan.Drop:
		r.goal, r.failure, r.err = a.drop(ctx)
	default:
		r.err = fmt.Errorf("unknown step %q", a.step.Do)
	}
	if r.err != nil && !transient(r.err) {
		a.say(event.Failed, a.step.Cause, a.step.Name()+": "+r.err.Error())
	}
	return r
}

// inTurn waits until there is room for one more container to be started.
func (a action) inTurn(ctx context.Context, do func(context.Context) error) error {
	if a.starts == nil {
		return do(ctx)
	}
	select {
	case a.starts <- struct{}{}:
		defer func() { <-a.starts }()
		return do(ctx)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// say tells what happened to the step's instance.
func (a action) say(name event.Name, cause, detail string) {
	a.tell(event.Event{Event: name, Service: a.service, Revision: a.step.Revision, Instance: a.step.Instance,
		Container: a.step.ID, Reason: string(a.step.Reason), Cause: cause, Detail: detail})
}

func (h *Host) tell(e event.Event) {
	e.Time = time.Now()
	if h.Emit != nil {
		h.Emit(e)
	}
	if h.History != nil {
		h.History.Event(e)
	}
}

// release finds a release of the goal by its digest.
func (a action) release(digest string) (goal.Release, error) {
	for _, r := range a.goal.Releases() {
		if r.Digest == digest {
			return r, nil
		}
	}
	return goal.Release{}, fmt.Errorf("release %.12s of %s is not in its goal any more", digest, a.service)
}

// nameTaken is what is between two tries to have a name that the engine says is
// taken by nothing.
const nameTaken = 50 * time.Millisecond

func (a action) create(ctx context.Context) (id string, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := a.release(a.step.Release)
	if err != nil {
		return "", err
	}
	c := engine.Create{Name: a.step.Instance, Image: r.Image, Labels: a.labels(a.service, r, a.goal.Epoch, a.step), Spec: r.Container}
	m, err := a.readMaterial(ctx, r)
	if err != nil {
		return "", err
	}
	c.Env = m.Env
	if c.Files, err = a.Secrets.Place(c.Name, m.Files); err != nil {
		return "", err
	}
	if a.step.ID, err = a.make(ctx, &c); err != nil {
		if !transient(err) { // no container came of it by whose removal the files would go
			err = errors.Join(err, a.Secrets.Clear(c.Name))
		}
		return "", err
	}
	a.say(event.Created, a.step.Cause, c.Address.String())
	return a.step.ID, nil
}

// make creates the container at the next address.
func (a action) make(ctx context.Context, c *engine.Create) (id string, err error) {
	if c.Network, c.Address, err = a.address(ctx); err != nil {
		return "", err
	}
	for {
		id, err = a.Engine.Create(ctx, *c)
		if !errors.Is(err, engine.ErrConflict) {
			return id, err
		}
		if id, err = a.adopt(ctx, *c); !notFound(err) {
			return id, err
		}
		// The engine has given the name away, and has no container of it yet: a
		// create of a process that was killed is under way, or a removal.
		select {
		case <-ctx.Done():
			return "", err
		case <-time.After(nameTaken):
		}
	}
}

// adopt takes a container whose create was answered by nobody: the name is a
// function of what it is, and the labels have to agree.
func (a action) adopt(ctx context.Context, want engine.Create) (string, error) {
	c, err := a.named(ctx, want.Name)
	if err != nil {
		return "", err
	}
	for _, l := range []string{LabelNamespace, LabelService, LabelRelease, LabelSlot, LabelKind} {
		if c.Labels[l] != want.Labels[l] {
			return "", fmt.Errorf("the container name %s is taken by a container that is not ours (%.12s): remove or rename it", want.Name, c.ID)
		}
	}
	return c.ID, nil
}

// readMaterial reads a release's environment once for all instances.
func (a action) readMaterial(ctx context.Context, r goal.Release) (secret.Material, error) {
	s := a.shared
	s.mu.Lock()
	m := s.material[r.Digest]
	if m == nil {
		m = newJoint[secret.Material]()
		s.material[r.Digest] = m
	}
	s.mu.Unlock()
	return m.once(ctx, a.begun, func(ctx context.Context) (secret.Material, error) { return a.Secrets.Read(ctx, r.Container) })
}

func (a action) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := a.Engine.Start(ctx, a.step.ID); err != nil {
		return err
	}
	if a.step.Again {
		a.say(event.Restored, a.step.Cause, "")
		return nil
	}
	a.say(event.Started, "", "")
	return nil
}

func (a action) stop(ctx context.Context) error {
	grace := a.grace()
	ctx, cancel := context.WithTimeout(ctx, grace+callTimeout)
	defer cancel()
	if !a.instance.OutSince.IsZero() {
		detail := "nothing in flight"
		if a.instance.InFlight > 0 {
			detail = fmt.Sprintf("the drain deadline passed with %d in flight", a.instance.InFlight)
		}
		a.say(event.Drained, "", detail)
	}
	if err := a.Engine.Stop(ctx, a.step.ID, grace); err != nil && !notFound(err) {
		return err
	}
	a.say(event.Stopped, a.step.Cause, "")
	return nil
}

// grace is the time that the instance was promised when it was made.
func (a action) grace() time.Duration {
	g, err := time.ParseDuration(a.tags[LabelGrace])
	if err != nil {
		return 10 * time.Second // the engine's own default
	}
	return g
}

// remove clears the instance's files first: once the container is gone, nobody
// knows of them any more.
func (a action) remove(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := a.Secrets.Clear(a.step.Instance); err != nil {
		return err
	}
	if err := a.Engine.Remove(ctx, a.step.ID); err != nil && !notFound(err) {
		return err
	}
	a.say(event.Removed, a.step.Cause, "")
	return nil
}

// commit makes the candidate current.
func (a action) commit() (*goal.Goal, error) {
	g := a.goal
	g.Commit()
	if err := a.Store.PutGoal(g); err != nil {
		return nil, err
	}
	a.say(event.Committed, a.step.Cause, "")
	return &g, nil
}

// drop gives the candidate up, after finding out what was wrong with it.
func (a action) drop(ctx context.Context) (*goal.Goal, error, error) {
	var failure error
	if a.step.Failed {
		failure = a.diagnose(ctx)
	} else {
		a.say(event.Failed, a.step.Cause, "the candidate is given up")
	}
	g := a.goal
	g.Drop(time.Now())
	if err := a.Store.PutGoal(g); err != nil {
		return nil, failure, err
	}
	return &g, failure, nil
}

// diagnose says what is wrong with the step's instance, keeps its last words
// in the history, and returns the error that the verb ends with.
func (a action) diagnose(ctx context.Context) error {
	d := a.examine(ctx)
	class := fault.ErrUnhealthy
	if d.HostFull {
		class = fault.ErrHost
	}
	return fault.New(class, d.Hint, "%s did not become healthy: %s", a.step.Revision, text(d))
}

// examine finds out what is wrong with the step's instance, and tells it.
func (a action) examine(ctx context.Context) health.Diagnosis {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	d := health.Diagnosis{Summary: a.step.Cause}
	if a.step.Instance != "" {
		c, err := a.whyEnded(ctx, a.step.ID, a.target.Memory)
		if err == nil {
			c.Error = firstOf(c.Error, a.instance.Broken)
			d = health.Diagnose(ctx, a.Engine, a.target, a.health, a.last, c)
		}
	}
	a.say(event.Failed, d.Summary, text(d))
	return d
}

// text is a diagnosis in full: the sentence, the facts, the last log lines.
func text(d health.Diagnosis) string {
	var b strings.Builder
	b.WriteString(d.Summary)
	for _, l := range d.Lines {
		b.WriteString("\n  " + l)
	}
	if len(d.Log) > 0 {
		b.WriteString("\n  its last log lines:")
	}
	for _, l := range d.Log {
		b.WriteString("\n    " + l)
	}
	return b.String()
}
