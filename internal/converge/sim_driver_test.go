package converge

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"
	"testing/synctest"
	"time"

	"conductor/internal/event"
	"conductor/internal/fault"
	"conductor/internal/plan"
)

const (
	// bound is the longest that a command may take, in virtual time: far more
	// than all timeouts and hangs of one history add up to.
	bound = 20 * time.Minute
	// manySteps is more calls than any command needs.
	manySteps = 20000
)

// driver decides what happens next. It is the bubble's main goroutine, and acts
// only when all others wait: so a history depends on its seed alone.
type driver struct {
	*sim
	rng   *rand.Rand
	act   int // the act that began last
	local int // steps since then
	todo  []trouble
	steps int
}

func (s *sim) run() {
	d := &driver{sim: s, rng: rand.New(rand.NewPCG(s.h.seed, 2))}
	for n := range s.h.acts {
		if s.violated != nil {
			break
		}
		d.begin(n)
		d.untilNext()
	}
	d.remaining()
	if s.violated == nil {
		d.finish()
	}
	d.end()
}

// begin starts the act's command.
func (d *driver) begin(n int) {
	a := d.h.acts[n]
	if a.overlap == 0 && a.gap > 0 {
		d.idle(a.gap)
	}
	if a.define != nil {
		d.definitions[a.define.id] = *a.define
	}
	d.act, d.local = n, 0
	d.todo = slices.Clone(a.trouble)
	slices.SortStableFunc(d.todo, func(x, y trouble) int { return cmp.Compare(x.at, y.at) })
	d.command(a)
}

// command runs a command in a process of its own.
func (d *driver) command(a act) *process {
	s := d.sim
	p := &process{sim: s, a: a, store: s.store.Process(), began: time.Now(), decided: map[string]int{}}
	p.life, p.kill = context.WithCancel(context.Background())
	p.ctx, p.cancel = context.WithCancelCause(context.Background())
	s.mu.Lock()
	p.n = len(s.procs) + 1
	s.procs = append(s.procs, p)
	s.logLocked("== %d. %s", p.n, a.words(s.h))
	s.mu.Unlock()
	host := &Host{
		Namespace: simNamespace, Definitions: s.definitionSet(), Subnet: simSubnet,
		Engine: simEngine{p}, Proxy: simProxy{p}, Prober: p, Store: simStore{p}, Secrets: simSecrets{p},
		Crontabs: simCrontabs{p}, Caller: Caller{Program: "/conductor"}, plan: p.next, prints: p.prints,
	}
	if s.verbose {
		host.Emit = func(e event.Event) {
			if p.life.Err() != nil {
				return // its last words come in any order
			}
			s.log("   %d: %s %s %s %s", p.n, e.Event, e.Instance, e.Cause, oneLine(e.Detail))
		}
	}
	p.before = s.look0()
	go func() {
		ctx := p.ctx
		if a.timeout > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeoutCause(ctx, a.timeout, fault.ErrTimeout)
			defer cancel()
		}
		outs, err := perform(ctx, host, a, s.h)
		s.mu.Lock()
		defer s.mu.Unlock()
		p.done, p.err, p.outs = true, err, outs
		if !p.dead {
			p.ended = time.Now()
			s.logLocked("== %d. ended: %v", p.n, err)
		}
		s.ring()
	}()
	return p
}

func perform(ctx context.Context, h *Host, a act, hist history) ([]Outcome, error) {
	id := hist.services[a.service].id
	one := func(o Outcome, err error) ([]Outcome, error) { return []Outcome{o}, err }
	switch a.verb {
	case "supervise":
		return nil, supervised(ctx, h, hist)
	case "upgrade":
		return one(h.Upgrade(ctx, UpgradeRequest{Service: id, Revision: a.revision}))
	case "rollback":
		return one(h.Rollback(ctx, id, ""))
	case "restart":
		return one(h.Restart(ctx, id))
	case "scale":
		if a.replicas < 0 {
			return one(h.Scale(ctx, id, nil))
		}
		return one(h.Scale(ctx, id, &a.replicas))
	case "stop":
		return one(h.Stop(ctx, id))
	case "start":
		return one(h.Start(ctx, id))
	case "remove":
		return one(h.Remove(ctx, id))
	case "converge":
		return h.Converge(ctx)
	}
	panic("unknown verb " + a.verb)
}

// next is the planner as the loop sees it: what it decides is checked.
func (p *process) next(in plan.Input) plan.Output {
	out := p.sim.next(in)
	p.sim.decided(p, in, out)
	return out
}

// running are the processes that are not at their end; those that have come to
// it are judged.
func (d *driver) running() []*process {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reads = 0
	var out []*process
	for _, p := range d.procs {
		switch {
		case p.dead:
		case !p.done:
			out = append(out, p)
		case !p.judged:
			p.judged = true
			d.judge(p, p.before)
		}
	}
	return out
}

// untilNext drives until the next act is to begin.
func (d *driver) untilNext() {
	overlap := 0
	if d.act+1 < len(d.h.acts) {
		overlap = d.h.acts[d.act+1].overlap
	}
	for d.violated == nil {
		synctest.Wait()
		running := d.running()
		if len(running) == 0 || overlap > 0 && d.local >= overlap {
			return
		}
		d.step(running)
	}
}

// remaining lets what is left of the last act's trouble happen, and commands
// that still run end.
func (d *driver) remaining() {
	for d.violated == nil {
		synctest.Wait()
		running := d.running()
		if len(running) == 0 {
			return
		}
		d.step(running)
	}
}

// step is one decision.
func (d *driver) step(running []*process) {
	d.steps++
	if d.steps > manySteps {
		d.violate(0, "no end after %d steps of %s", d.steps, running[0].a.words(d.h))
		return
	}
	for _, p := range running {
		if time.Since(p.began) > bound {
			d.violate(0, "%s has not ended after %s", p.a.words(d.h), bound)
			return
		}
	}
	d.local++
	for len(d.todo) > 0 && d.todo[0].at < d.local {
		t := d.todo[0]
		d.todo = d.todo[1:]
		d.befall(t)
		synctest.Wait()
	}
	if len(d.zombies) > 0 && d.rng.IntN(3) == 0 {
		d.haunt()
		return
	}
	calls := d.waiting()
	if len(calls) == 0 {
		wait := 5 * time.Second
		if len(d.todo) > 0 || len(d.h.acts) > d.act+1 && d.h.acts[d.act+1].overlap > 0 {
			wait = span(d.rng, time.Millisecond, 2*time.Second)
		}
		d.sleepUntil(wait)
		return
	}
	k := 0
	if !d.h.orderly {
		if d.rng.IntN(6) == 0 {
			d.sleepUntil(span(d.rng, 10*time.Microsecond, 50*time.Millisecond))
			return
		}
		k = d.rng.IntN(len(calls))
	}
	d.release(calls[k])
}

// sleepUntil lets time pass until something happens, or d at most.
func (d *driver) sleepUntil(at time.Duration) {
	t := time.NewTimer(at)
	defer t.Stop()
	select {
	case <-d.wake:
	case <-t.C:
	}
}

// idle lets time pass, whatever happens.
func (d *driver) idle(t time.Duration) {
	end := time.Now().Add(t)
	for time.Now().Before(end) && d.violated == nil {
		d.sleepUntil(time.Until(end))
		synctest.Wait()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sync(nil)
}

// end takes everything down, whatever state it is in.
func (d *driver) end() {
	for _, p := range d.procs {
		if !p.done && !p.dead {
			d.killed(p)
		}
	}
	d.eng.Reboot() // a stop whose caller is gone waits no longer
	for range 1000 {
		synctest.Wait()
		open := false
		for _, p := range d.procs {
			open = open || !p.done
		}
		if !open {
			return
		}
		d.sleepUntil(time.Second)
	}
	d.violate(0, "a killed process does not end")
}
