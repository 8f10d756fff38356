package converge

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"testing/synctest"
	"time"

	"conductor/internal/fault"
	"conductor/internal/proxy/proxytest"
)

// The troubles that come by themselves.

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
