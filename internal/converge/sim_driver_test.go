package converge

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing/synctest"
	"time"

	"conductor/internal/event"
	"conductor/internal/fault"
	"conductor/internal/plan"
	"conductor/internal/proxy/proxytest"
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

// befall makes trouble.
func (d *driver) befall(t trouble) {
	if d.calm {
		return
	}
	if t.onCall() {
		d.pending = append(d.pending, t)
		return
	}
	if op, _, ok := t.onRead(); ok {
		d.mu.Lock()
		d.armed[op] = t
		d.disturbed = true
		d.mu.Unlock()
		return
	}
	d.mu.Lock()
	var live []*inst
	for _, i := range d.instances("") {
		if i.running {
			live = append(live, i)
		}
	}
	d.disturbed, d.shaken = true, d.seq
	d.beat++
	d.shakenAt = d.beat
	d.mu.Unlock()
	until := time.Now().Add(t.d)
	victim := func() *inst {
		if len(live) == 0 {
			return nil
		}
		return live[t.n%uint64(len(live))]
	}
	v := victim()
	switch t.kind {
	case "die", "oom", "sick", "recover", "vanish", "requests", "requests for ever":
		if v == nil {
			return
		}
	}
	switch t.kind {
	case "die":
		d.die(v, 1, false)
	case "oom":
		d.die(v, 137, true)
	case "sick", "recover":
		d.turn(v, t.kind == "sick")
		if t.kind == "sick" && t.n%3 == 0 {
			time.AfterFunc(t.d, func() { d.turn(v, false) })
		}
	case "vanish":
		d.mu.Lock()
		v.vanished = true
		d.disturb(v)
		delete(d.starts, v.slotID()) // what was known of its restarts went with it
		d.mu.Unlock()
		d.log("! somebody removes %s", v.name)
		d.eng.Vanish(v.id)
	case "requests", "requests for ever":
		if !d.isServed(v.name) {
			return
		}
		life := t.d
		if t.kind != "requests" {
			life = 0
		}
		d.requests(v, 1+int(t.n%3), life)
	case "reboot":
		d.reboot(t.n%4 == 0)
	case "engine down":
		d.log("! the engine is down for %s", t.d)
		d.mu.Lock()
		d.engineDown = until
		d.mu.Unlock()
		d.eng.BreakEvents()
	case "events break":
		d.log("! the stream of events breaks")
		d.eng.BreakEvents()
	case "proxy restart":
		d.log("! the proxy restarts")
		d.cut()
		d.px.Restart()
	case "proxy empty":
		d.log("! the proxy restarts and has lost its file")
		d.empty()
	case "proxy down":
		d.log("! the proxy is down for %s", t.d)
		d.cut()
		px := d.px
		px.Down(true)
		time.AfterFunc(t.d, func() { d.proxyIs(px, func() { px.Down(false) }) })
	case "proxy lies":
		d.log("! the proxy lies for %s", t.d)
		px := d.px
		px.Lie(true)
		time.AfterFunc(t.d, func() { d.proxyIs(px, func() { px.Lie(false) }) })
	case "proxy refuses":
		d.log("! the proxy refuses for %s", t.d)
		px := d.px
		px.Refuse(fmt.Errorf("unknown directive in another file"))
		time.AfterFunc(t.d, func() { d.proxyIs(px, func() { px.Refuse(nil) }) })
	case "foreign":
		d.log("! somebody else starts a container")
		_, _ = d.eng.AddForeign(fmt.Sprintf("foreign%d", d.steps), simNamespace, netip.Addr{})
		d.mu.Lock()
		d.edit()
		d.mu.Unlock()
	case "disk full":
		d.log("! the disk is full for %s", t.d)
		d.mu.Lock()
		d.diskFull = until
		d.mu.Unlock()
	case "kill", "interrupt":
		running := d.running()
		if len(running) == 0 {
			return
		}
		p := running[t.n%uint64(len(running))]
		if t.kind == "kill" {
			d.killed(p)
			return
		}
		d.log("! interrupt %d", p.n)
		p.cancel(fault.ErrInterrupted)
	default:
		panic("unknown trouble " + t.kind)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.look()
	d.sync(nil)
}

// proxyIs changes the proxy, if it is still the one.
func (d *driver) proxyIs(px *proxytest.Fake, change func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.px == px {
		change()
		d.beat++
		d.shakenAt = d.beat
		d.sync(nil)
	}
}

// cut ends all requests in flight.
func (d *driver) cut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.inFlight)
}

// empty is a proxy that starts with no file.
func (d *driver) empty() {
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.inFlight)
	d.px = proxytest.NewFake()
	d.sync(nil)
}

// killed is kill -9.
func (d *driver) killed(p *process) {
	d.log("! kill -9 %d", p.n)
	d.mu.Lock()
	p.dead, p.ended = true, time.Now()
	var last []*call
	for _, c := range d.parked {
		if c.p != p {
			continue
		}
		d.orphan(c)
		if c.op == "Apply" && d.jitter("last", c.arg)%2 == 0 {
			last = append(last, c) // it was on its way already
		}
	}
	d.parked = slices.DeleteFunc(d.parked, func(c *call) bool { return c.p == p })
	d.mu.Unlock()
	p.store.Crash()
	p.kill()
	p.cancel(errDead)
	synctest.Wait()
	for _, c := range last {
		d.log("~ %s, the last thing it did", c)
		_ = c.inner(context.Background())
		d.mu.Lock()
		d.sync(nil)
		d.mu.Unlock()
	}
}

// reboot is the host going down and coming up; the proxy's file may be lost.
func (d *driver) reboot(lost bool) {
	d.log("! the host reboots")
	for _, p := range d.running() {
		d.killed(p)
	}
	d.mu.Lock()
	for _, i := range d.insts {
		d.disturb(i)
	}
	d.zombies = nil
	clear(d.inFlight)
	d.mu.Unlock()
	d.eng.Reboot()
	d.store.Process().Reboot()
	d.px.Restart()
	if lost {
		d.empty()
	}
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
