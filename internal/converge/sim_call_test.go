package converge

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing/synctest"
	"time"

	"conductor/internal/engine"
	"conductor/internal/fault"
	"conductor/internal/goal"
	"conductor/internal/proxy"
)

// Calls of ports: they wait for the driver's word, and have an effect or not.

// call is a call of a port that waits for the driver's word.
type call struct {
	p       *process
	op, arg string
	seq     int
	beat    int // when it came
	ctx     context.Context
	answer  chan verdict
	inner   func(context.Context) error
	preset  string // what befalls it, decided already
	hangs   bool
	table   proxy.Table // Apply
	goal    *goal.Goal  // PutGoal
	crontab string      // Install
}

// verdict is what becomes of a call.
type verdict struct {
	effect bool
	err    error // returned, instead of the answer
	hang   bool
}

func (c *call) String() string { return fmt.Sprintf("%d %s %s", c.p.n, c.op, c.arg) }

// park keeps the call until the driver says what becomes of it.
func (p *process) park(c *call) error {
	s := p.sim
	c.p, c.answer = p, make(chan verdict, 1)
	s.mu.Lock()
	if p.dead {
		s.mu.Unlock()
		return errDead
	}
	if isEngine(c.op) && time.Now().Before(s.engineDown) {
		s.mu.Unlock()
		return engine.ErrUnreachable
	}
	s.seq++
	c.seq, c.beat = s.seq, s.beat
	s.parked = append(s.parked, c)
	s.mu.Unlock()
	s.ring()
	var v verdict
	select {
	case v = <-c.answer:
	case <-p.life.Done():
		return errDead
	case <-c.ctx.Done():
		s.withdraw(c)
		return p.late(c)
	}
	var err error
	if v.effect {
		ctx, stop := p.with(c.ctx)
		err = c.inner(ctx)
		stop()
		s.mu.Lock()
		if p.dead {
			err = errDead
		}
		s.mu.Unlock()
	}
	if v.hang {
		select {
		case <-p.life.Done():
			return errDead
		case <-c.ctx.Done():
			return p.late(c)
		}
	}
	if v.err != nil {
		return fmt.Errorf("%s %s: %w", c.op, c.arg, v.err)
	}
	return err
}

// late is the error of a call whose caller's time is over.
func (p *process) late(c *call) error {
	// Those of one deadline come back one after the other. But for whom of those
	// who want to know of the network one asks is chance, and all have its answer.
	if c.op != "Network" {
		time.Sleep(p.sim.jitter(c.op, c.arg))
	}
	select {
	case <-p.life.Done():
		return errDead
	default:
		return fmt.Errorf("%s %s: %w", c.op, c.arg, c.ctx.Err())
	}
}

// with returns a context that ends with the process too.
func (p *process) with(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(p.life, cancel)
	return ctx, func() { stop(); cancel() }
}

// pass lets a call through, unless trouble waits for it.
func (p *process) pass(ctx context.Context, op, arg string, inner func(context.Context) error) error {
	s := p.sim
	s.mu.Lock()
	if p.dead {
		s.mu.Unlock()
		return errDead
	}
	if isEngine(op) && time.Now().Before(s.engineDown) {
		s.mu.Unlock()
		return engine.ErrUnreachable
	}
	if s.reads++; s.reads > 100_000 { // and the driver has not had its turn since
		s.violateLocked(0, "%s is asked for ever, and no time passes", op)
		p.dead = true
		s.mu.Unlock()
		return errDead
	}
	t, ok := s.armed[op]
	delete(s.armed, op)
	s.mu.Unlock()
	if !ok {
		return inner(ctx)
	}
	_, what, _ := t.onRead()
	return p.park(&call{op: op, arg: arg, ctx: ctx, inner: inner, preset: what})
}

func isEngine(op string) bool {
	switch op {
	case "Apply", "Observe", "Check", "PutGoal", "PutRoutes", "DeleteGoal", "Routes", "Goal", "Goals", "Address", "Read", "Place", "Clear", "Sweep", "Crontab", "Install", "Uninstall":
		return false
	}
	return true
}

func isProxy(op string) bool { return op == "Apply" || op == "Observe" || op == "Check" }

// errorFor is the error of a call to which something happens.
func errorFor(op, what string) error {
	switch {
	case what == "hard" && (op == "PutGoal" || op == "PutRoutes" || op == "DeleteGoal" || op == "Place" || op == "Clear" || op == "Read" || op == "Address" || op == "Create"):
		return fault.New(fault.ErrHost, "", "no space left on device")
	case (what == "hard" || what == "half") && isEngine(op):
		return errors.New("Error response from daemon: internal error")
	case isProxy(op) && (what == "hard" || what == "refuse"):
		return fault.New(fault.ErrProxyRefused, "", "%w: unknown directive", proxy.ErrRefused)
	case isProxy(op):
		return fault.New(fault.ErrUnreachable, "", "%w", proxy.ErrUnreachable)
	case isEngine(op):
		return fault.New(fault.ErrUnreachable, "", "%w", engine.ErrUnreachable)
	}
	return fault.New(fault.ErrHost, "", "input/output error")
}

// waiting are the calls that can be let go, in an order that depends on what
// they are.
func (d *driver) waiting() []*call {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []*call
	for _, c := range d.parked {
		if !c.hangs {
			out = append(out, c)
		}
	}
	if d.h.orderly {
		slices.SortStableFunc(out, func(a, b *call) int { return cmp.Compare(a.seq, b.seq) })
		return out
	}
	slices.SortStableFunc(out, func(a, b *call) int {
		return cmp.Or(cmp.Compare(a.p.n, b.p.n), cmp.Compare(a.op, b.op), cmp.Compare(a.arg, b.arg), cmp.Compare(a.seq, b.seq))
	})
	return out
}

// release says what becomes of a call, and sees it happen.
func (d *driver) release(c *call) {
	what := c.preset
	if what == "" || what == "park" {
		what = ""
		for n, t := range d.pending {
			if c.fits(t) {
				what = t.kind
				d.pending = slices.Delete(d.pending, n, n+1)
				if what == "slow" {
					d.log("~ %s is slow, %s", c, t.d)
					d.sleepUntil(t.d)
					return
				}
				break
			}
		}
	}
	patient := c.op == "Read" || c.op == "Pull" // they take what they take
	if (c.ctx.Done() == nil || patient) && (what == "hang" || what == "hang late") {
		what = "fail"
	}
	if c.op == "Wait" && what != "" {
		what = "lost" // it waits as long as it takes, or its connection breaks
	}
	v := verdict{effect: what == "" || what == "lost" || what == "hang late"}
	d.mu.Lock()
	diskFull := time.Now().Before(d.diskFull) && (c.op == "PutGoal" || c.op == "PutRoutes" || c.op == "Place" || c.op == "Install")
	down := time.Now().Before(d.engineDown) && isEngine(c.op)
	d.mu.Unlock()
	switch {
	case diskFull:
		v, what = verdict{err: errorFor(c.op, "hard")}, "disk full"
	case down:
		v, what = verdict{err: errorFor(c.op, "fail")}, "engine down"
	case what == "hang" || what == "hang late":
		v.hang = true
		c.hangs = true
	case what != "":
		v.err = errorFor(c.op, what)
	}
	if what != "" {
		d.log("~ %s: %s", c, what)
		d.disturbed = true
	} else {
		d.log("- %s", c.words(d.sim))
	}
	d.mu.Lock()
	d.parked = slices.DeleteFunc(d.parked, func(o *call) bool { return o == c })
	if v.effect {
		d.allowed(c)
	}
	half := what == "half" && c.op == "Apply"
	if half { // written, not served
		d.px.Lie(true)
		v.effect = true
	}
	if what == "half" && c.op == "Start" {
		d.eng.Unwritten(c.arg)
		v = verdict{effect: true}
		d.allowed(c)
	}
	if what == "half" && c.op == "Remove" {
		d.allowed(c)
		d.eng.HalfRemove(c.arg)
	}
	d.mu.Unlock()
	c.answer <- v
	synctest.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	if half {
		d.px.Lie(false)
	} else if v.effect && c.op == "Apply" {
		d.told(c)
	}
	if v.effect {
		d.effected(c)
	}
	d.look()
	d.sync(c)
}

func (c *call) fits(t trouble) bool {
	switch t.kind {
	case "refuse":
		return c.op == "Apply"
	case "half":
		return c.op == "Apply" || c.op == "Remove" || c.op == "Start"
	}
	return true
}

// withdraw takes back a call whose caller does not wait any more. It may have
// its effect all the same.
func (s *sim) withdraw(c *call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.parked)
	s.parked = slices.DeleteFunc(s.parked, func(o *call) bool { return o == c })
	if len(s.parked) < n {
		s.orphan(c)
	}
}

// orphan makes a call, whose caller is gone, have its effect later, or never.
// s.mu is held.
func (s *sim) orphan(c *call) {
	switch c.op {
	case "Create", "Start", "Stop", "Remove":
		if !s.calm && s.jitter("orphan", c.op, c.arg)%2 == 0 {
			s.zombies = append(s.zombies, c)
		}
	}
}

// haunt lets a call have its effect whose caller is gone.
func (d *driver) haunt() {
	d.mu.Lock()
	slices.SortStableFunc(d.zombies, func(a, b *call) int {
		return cmp.Or(cmp.Compare(a.p.n, b.p.n), cmp.Compare(a.op, b.op), cmp.Compare(a.arg, b.arg))
	})
	c := d.zombies[0]
	d.zombies = d.zombies[1:]
	if i := d.find(c.arg); i != nil {
		d.disturb(i)
	}
	d.disturbed = true
	d.mu.Unlock()
	d.log("~ %s, whose caller is gone", c.words(d.sim))
	go func() { _ = c.inner(context.Background()) }()
	synctest.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.look()
	d.sync(nil)
}
