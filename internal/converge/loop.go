package converge

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"conductor/internal/engine"
	"conductor/internal/event"
	"conductor/internal/goal"
	"conductor/internal/health"
	"conductor/internal/plan"
	"conductor/internal/spec"
)

const (
	// patience is how long an engine or a proxy that does not answer is waited
	// for: a restart of either takes less.
	patience = 20 * time.Second
	// proofs is how often a switch that was taken without being served is
	// handed to the proxy again, before it counts as refused.
	proofs = 3
	// prompt is how soon after its start an instance is well that has little to
	// do before.
	prompt = 250 * time.Millisecond
)

// loop brings one service to its goal: observe, plan, act, observe again. It
// holds the service's lock for as long as it runs, so it may keep the goal in
// memory, and writes every change of it before acting on it.
type loop struct {
	*Host
	service string
	goal    goal.Goal
	unsure  bool                         // a write of the goal failed: which one the file has is not known
	next    func(plan.Input) plan.Output // plan.Next; tests break it on purpose

	obs   *observer
	watch *watcher
	work  context.Context // ends with run, not with the caller's patience

	check   func(context.Context) error // of the proxy, before any switch; nil: done
	checked chan error

	doing   map[string]plan.Step
	results chan *result
	events  chan engine.Event
	asked   <-chan time.Time // since when to look anew; nil: nobody asks
	running sync.WaitGroup

	before   context.CancelFunc // ends upgrade.before
	held     map[string]hold    // steps that have to wait, by key: they failed for now, or the engine is busy
	broken   map[string]string  // containers that could not be started, by ID
	refused  []plan.Refusal
	made     map[string]bool // instances that this loop created
	shared   *shared
	starts   chan struct{} // room for creations and starts, over the host; nil: as many as one likes
	switches *Switches     // with whose switches its own are done; nil: with nobody's
	glances  *Glances      // with whom looks are shared; nil: with nobody
	unproved int           // switches in a row that were taken and not served
	abort    string
	failure  error // why the candidate was given up
	changed  bool
	settled  bool // it ended with nothing left to do
	outage   outage
}

func (h *Host) loop(g goal.Goal) *loop {
	next := h.plan
	if next == nil {
		next = plan.Next
	}
	return &loop{
		Host: h, service: g.Service, goal: g, next: next,
		obs: newObserver(h, g.Service), watch: newWatcher(h.Prober),
		doing: map[string]plan.Step{}, results: make(chan *result, 16), checked: make(chan error, 1),
		held: map[string]hold{}, broken: map[string]string{}, made: map[string]bool{},
		shared: newShared(),
	}
}

// run returns when the goal is reached, when it cannot be, or when ctx is done
// and what can be taken back is. The goal it left is in l.goal.
func (l *loop) run(ctx context.Context) error {
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l.work = work
	defer func() {
		cancel()
		l.watch.close()
		l.running.Wait()
	}()
	ready := l.listen()
	select {
	case <-ready:
	case <-ctx.Done():
	}
	trial := l.goal.Candidate != nil
	if l.check != nil {
		l.running.Go(func() { l.checked <- l.check(work) })
	}
	lost := hold{} // observations that failed
	for {
		now := time.Now()
		in, err := l.observe(now)
		if err != nil {
			if !transient(err) {
				return err
			}
			lost = lost.again(now, err)
			if now.Sub(lost.since) > patience || ctx.Err() != nil {
				return l.giveUp(err)
			}
			l.obs.changed("")
			l.wait(nil, lost.until)
			continue
		}
		lost = hold{}
		out := l.next(in)
		started := l.start(in, out)
		if started == 0 && len(l.doing) == 0 && l.check == nil {
			if out.Settled(in) {
				err := l.sweepSecrets()
				l.settled = err == nil
				return firstOf(l.failure, err)
			}
			if err := l.stuck(in, out); err != nil {
				return err
			}
		}
		done := ctx.Done()
		if ctx.Err() != nil {
			done = nil
			if !trial {
				return interruption(ctx)
			}
			if l.abort == "" {
				l.giveWay(ctx)
				continue
			}
		}
		l.wait(done, l.wakeAt(in, out, relist))
	}
}

// sweepSecrets clears the files of instances that were never created: a process
// that died had written them.
func (l *loop) sweepSecrets() error {
	return l.Secrets.Sweep(plan.Prefix(l.Namespace, l.service), func(name string) bool {
		_, exists := l.obs.containers[name]
		return exists || !plan.IsName(name)
	})
}

// listen subscribes to the engine's events; the channel closes when none is
// missed any more, or when the engine cannot be listened to for now.
func (l *loop) listen() <-chan struct{} {
	l.events = make(chan engine.Event, 64)
	ready := make(chan struct{})
	var once sync.Once
	open := func() { once.Do(func() { close(ready) }) }
	l.running.Go(func() {
		defer open()
		for l.work.Err() == nil {
			_ = l.Engine.Events(l.work, l.mine(l.service, KindService), open, func(e engine.Event) {
				select {
				case l.events <- e:
				case <-l.work.Done():
				}
			})
			open()
			select {
			case <-time.After(250 * time.Millisecond):
			case <-l.work.Done():
			}
		}
	})
	return ready
}

// observe takes one snapshot of reality.
func (l *loop) observe(now time.Time) (plan.Input, error) {
	if l.unsure {
		g, ok, err := l.Store.Goal(l.service)
		if err != nil {
			return plan.Input{}, err
		}
		if l.unsure = false; ok {
			l.goal = g
		}
	}
	ctx, cancel := context.WithTimeout(l.work, callTimeout)
	defer cancel()
	if err := l.obs.refresh(ctx, now, l.changing()); err != nil {
		return plan.Input{}, fmt.Errorf("list the containers of %s: %w", l.service, err)
	}
	is := l.obs.instances()
	for n := range is {
		is[n].Broken = firstOf(l.broken[is[n].ID], is[n].Broken)
	}
	http := l.goal.Policy.HTTP != nil || l.goal.Candidate != nil && l.goal.Candidate.Policy.HTTP != nil
	px, err := l.obs.route(ctx, http, is, now)
	if err != nil {
		return plan.Input{}, err
	}
	if px.HTTP != nil {
		l.unproved = 0
	}
	l.probe(is)
	l.catchUp()
	l.watch.fill(is, l.healthOf)
	crontab, err := l.installed(l.goal)
	if err != nil {
		return plan.Input{}, err
	}
	in := plan.Input{Namespace: l.Namespace, Goal: l.goal, Instances: is, Proxy: px, Crontab: crontab,
		Refused: l.refused, Abort: l.abort, Now: now}
	for _, s := range l.doing {
		in.Doing = append(in.Doing, s)
	}
	return in, nil
}

// probe keeps a watch on every instance that may serve, and on no other: one
// that drains is left alone.
func (l *loop) probe(is []plan.Instance) {
	alive := map[string]bool{}
	for _, i := range is {
		_, inFlight := l.doing[string(plan.Start)+" "+i.Name]
		if i.State != engine.Running || inFlight || !l.wanted(i) {
			continue
		}
		alive[i.ID] = true
		l.watch.watch(l.work, l.target(i), l.healthOf(i))
	}
	for id := range l.watch.known {
		if !alive[id] {
			l.watch.unwatch(id)
		}
	}
}

// wanted: the goal names the instance's release, and the instance is not
// leaving. One of the goal's epoch that is out may have to come in again.
func (l *loop) wanted(i plan.Instance) bool {
	g := l.goal
	switch {
	case !g.Running:
		return false
	case g.Candidate != nil && g.Candidate.Digest == i.Release:
		return true
	case g.Current == nil || g.Current.Digest != i.Release:
		return false
	}
	return i.Epoch == g.Epoch || i.Route != plan.Out || i.OutSince.IsZero()
}

// served: the proxy sends it requests, or did, so it was well at some time,
// whichever process saw it.
func served(i plan.Instance) bool { return i.Route != plan.Out || !i.OutSince.IsZero() }

func (l *loop) policyOf(i plan.Instance) spec.Policy {
	if c := l.goal.Candidate; c != nil && c.Digest == i.Release {
		return c.Policy
	}
	return l.goal.Policy
}

func (l *loop) healthOf(i plan.Instance) spec.Health { return l.policyOf(i).Health }

// target is the instance as a probe asks it: as a client of the proxy would.
func (l *loop) target(i plan.Instance) health.Instance {
	t := health.Instance{Name: i.Name, Container: i.ID, Addr: i.Addr, StartedAt: i.StartedAt, Proto: "http", Serving: served(i)}
	if r, ok := releaseOf(l.goal, i.Release); ok {
		t.Memory = r.Container.Limits.Memory
	}
	if h := l.policyOf(i).HTTP; h != nil {
		if len(h.Hosts) > 0 {
			t.Host = h.Hosts[0]
		}
		if h.TLS != nil {
			t.Proto = "https"
		}
	}
	return t
}

// start begins the steps that are due, and returns how many.
func (l *loop) start(in plan.Input, out plan.Output) int {
	due := l.due(in, out)
	for _, s := range due {
		l.doing[s.Key()] = s
		ctx := l.work
		if s.Do == plan.Before {
			ctx, l.before = context.WithCancel(ctx)
		}
		a := l.action(s)
		a.begun = in.Now
		l.running.Go(func() {
			r := a.do(ctx)
			r.at = time.Now()
			select {
			case l.results <- &r:
			case <-l.work.Done():
			}
		})
	}
	return len(due)
}

// due are the steps that nothing holds back. What is dead is in nobody's way, and
// to remove it takes the engine as long as to create another: a supervisor leaves
// it until what it starts serves.
func (l *loop) due(in plan.Input, out plan.Output) (due []plan.Step) {
	for _, s := range out.Steps {
		h, held := l.held[s.Key()]
		if !(held && in.Now.Before(h.until) || s.Do == plan.Route && l.check != nil) {
			due = append(due, s)
		}
	}
	if l.starts != nil && (len(l.starts) == cap(l.starts) || l.replacing(in, due)) {
		due = slices.DeleteFunc(due, func(s plan.Step) bool { return s.Do == plan.Remove })
	}
	return due
}

// replacing: an instance is on its way in.
func (l *loop) replacing(in plan.Input, due []plan.Step) bool {
	is := func(s plan.Step) bool { return s.Do == plan.Create || s.Do == plan.Start || s.Do == plan.Route }
	return slices.ContainsFunc(due, is) || slices.ContainsFunc(in.Doing, is) || in.Now.Before(l.promptUntil(in))
}

// promptUntil is until when the instance that was started last, and was not well
// yet, may become so at once; in the past where there is none.
func (l *loop) promptUntil(in plan.Input) (until time.Time) {
	for _, i := range in.Instances {
		// The clock may have been set back since.
		if age := in.Now.Sub(i.StartedAt).Abs(); age < prompt && i.Running() && !i.EverWell && l.wanted(i) {
			until = later(until, i.StartedAt.Add(prompt))
		}
	}
	return until
}

// wakeAt is the earliest time at which something changes by itself, so much
// later at most.
func (l *loop) wakeAt(in plan.Input, out plan.Output, most time.Duration) time.Time {
	at := time.Now().Add(most)
	if !out.LookAt.IsZero() && out.LookAt.Before(at) {
		at = out.LookAt
	}
	for _, s := range out.Steps {
		// What is past holds nothing back: such a step waits for something else.
		if h, ok := l.held[s.Key()]; ok && h.until.After(in.Now) && h.until.Before(at) {
			at = h.until
		}
	}
	return at
}

// wait returns when there is something new to see, or at the given time.
func (l *loop) wait(done <-chan struct{}, at time.Time) {
	timer := time.NewTimer(time.Until(at))
	defer timer.Stop()
	for news := false; !news; {
		news = true
		select {
		case r := <-l.results:
			l.ended(*r)
		case e := <-l.events:
			news = l.happened(e)
		case since := <-l.asked:
			news = l.obs.missed(since)
		case p := <-l.watch.found:
			l.answered(*p)
		case err := <-l.checked:
			l.check = nil
			if l.refuse(err); err != nil && l.failure == nil {
				l.failure = err
			}
		case <-timer.C:
			if l.obs.routesKnown && len(l.doing) == 0 {
				l.obs.routesKnown = false
			}
		case <-done:
		}
	}
	for { // whatever else has come by now belongs to the same look
		select {
		case r := <-l.results:
			l.ended(*r)
		case e := <-l.events:
			l.happened(e)
		case p := <-l.watch.found:
			l.answered(*p)
		default:
			return
		}
	}
}

// happened says whether the event is news: what a step in flight does to its
// container is looked at when the step has ended.
func (l *loop) happened(e engine.Event) bool {
	if l.changing()[e.Name] {
		return false
	}
	l.heard(e)
	return true
}

// heard takes in what happened to a container.
func (l *loop) heard(e engine.Event) {
	l.obs.heard(e, slices.ContainsFunc(l.goal.Releases(), func(r goal.Release) bool { return r.Container.Limits.Memory > 0 }))
}

// catchUp takes in what instances have answered while the engine and the proxy
// were asked, which may have taken half a minute.
func (l *loop) catchUp() {
	for {
		select {
		case p := <-l.watch.found:
			l.answered(*p)
		default:
			return
		}
	}
}

// changing are the names of the containers that a step in flight is changing.
func (l *loop) changing() map[string]bool {
	m := map[string]bool{}
	for _, s := range l.doing {
		switch s.Do {
		case plan.Create, plan.Start, plan.Stop, plan.Remove:
			m[s.Instance] = true
		}
	}
	return m
}

func (l *loop) answered(p probed) {
	if !l.watch.take(p) {
		return
	}
	for _, c := range l.obs.containers {
		if i := instance(c); c.ID == p.id && (l.made[i.Name] || l.goal.Candidate != nil && l.goal.Candidate.Digest == i.Release) {
			l.tell(event.Healthy, i.Name, i.ID, i.Revision, "", p.result.Text)
		}
	}
}

// tell emits an event, and records it.
func (l *loop) tell(name event.Name, instance, id, revision, cause, detail string) {
	l.Host.tell(event.Event{Event: name, Service: l.service, Revision: revision, Instance: instance,
		Container: id, Cause: cause, Detail: detail})
}
