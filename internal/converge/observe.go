package converge

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"conductor/internal/engine"
	"conductor/internal/plan"
	"conductor/internal/proxy"
	"conductor/internal/state"
)

// relist is how often a command lists the containers anew although no event came:
// it makes up for events that were lost. A supervisor is told when that happens.
const relist = 2 * time.Second

// clearing is how long the engine may be busy with a container that has ended.
const clearing = 10 * time.Second

// observer knows what is: the service's containers, their health, the routes.
// It remembers only to ask less; forgetting everything costs a listing.
type observer struct {
	h       *Host
	service string
	relist  time.Duration // how old a listing may be

	containers map[string]engine.Container // by name
	stale      map[string]bool             // IDs whose cached details no longer hold
	died       map[string]engine.Event     // the ends that were heard of and that the engine does not show yet, by ID
	listed     time.Time                   // when all of the service's were listed; zero: list anew
	known      time.Time                   // when those that are known were looked at; zero: look anew
	made       []string                    // IDs of those that were created since
	begun      bool                        // it was listed at least once

	routes      state.Routes
	routesKnown bool

	// looked is when it last looked by itself; glance, where it is set, is a later
	// look in place of the next one.
	looked   time.Time
	glance   *glance
	glances  *Glances             // with whom looks are shared; nil: with nobody
	mayRoute bool                 // the proxy, or its file, had a route for the service at the last look
	serves   bool                 // the proxy had one when it last answered
	outSince map[string]time.Time // first seen proved out, where the file does not say
	wasIn    map[string]time.Time // the start of the process that was in
	servedAt map[string]time.Time // when the proxy was last seen to serve it
	inFlight map[string]int
	idle     map[string]bool // it is out, and was seen to have nothing in flight
}

func newObserver(h *Host, service string) *observer {
	return &observer{h: h, service: service, relist: relist, containers: map[string]engine.Container{},
		stale: map[string]bool{}, died: map[string]engine.Event{}, outSince: map[string]time.Time{}, wasIn: map[string]time.Time{}, servedAt: map[string]time.Time{}, inFlight: map[string]int{}, idle: map[string]bool{}}
}

// changed makes the next observation look at the container again; "" lists anew.
func (o *observer) changed(id string) {
	delete(o.died, id)
	o.known = time.Time{}
	if id == "" {
		o.listed = time.Time{}
		return
	}
	o.stale[id] = true
	if !slices.Contains(o.ids(), id) {
		o.listed = time.Time{}
	}
}

// missed makes the next observation list anew, unless it was done since that time, from
// when on events were missed. It says whether it does.
func (o *observer) missed(at time.Time) bool {
	if o.listed.After(at) {
		return false
	}
	o.changed("")
	return true
}

// ids are those of the containers that are known.
func (o *observer) ids() []string {
	ids := slices.Clone(o.made)
	for _, c := range o.containers {
		ids = append(ids, c.ID)
	}
	return ids
}

// stepped makes the next observation look at what is known after a step, which is
// no reason to look for others: the engine would look at all that it has.
func (o *observer) stepped(s plan.Step, made string) {
	o.known = time.Time{}
	if made != "" {
		o.made = append(o.made, made)
	}
	for _, c := range o.containers {
		if c.ID == s.ID || c.Name == s.Instance {
			o.changed(c.ID)
		}
	}
}

// heard takes an event in. From when it tells that a process has ended, the
// engine is busy with clearing up after it, shows it as running meanwhile, and
// lets everybody wait who asks: what the event says is enough to go on. It does
// not say whether a SIGKILL was for want of memory, which limited processes are
// asked about.
func (o *observer) heard(e engine.Event, limited bool) {
	seen, known := o.listed, slices.Contains(o.ids(), e.ID)
	if known {
		seen = o.known
	} else if e.Action == "destroy" {
		delete(o.died, e.ID)
		return // as a removal of its own, after whose step nothing of it is left
	}
	if (e.Action == "create" || e.Action == "start") && e.Time.Before(seen) {
		return // the engine shows these before it tells of them
	}
	// It may be of the time before what is to be looked at already.
	news := !o.stale[e.ID]
	o.changed(e.ID)
	if news && e.Action == "die" && (e.ExitCode != codeKilled || !limited) {
		o.died[e.ID] = e
	}
}

// ended is a container of whose end was heard, as long as the engine shows it
// as running.
func (o *observer) ended(c, old engine.Container, now time.Time) (engine.Container, bool) {
	e, ok := o.died[c.ID]
	if !ok {
		return c, false
	}
	if c.State != engine.Running || old.ID != c.ID || !old.StartedAt.Before(e.Time) || now.Sub(e.Time) > clearing {
		delete(o.died, c.ID)
		o.stale[c.ID] = true // whatever else there is to know of its end
		return c, false
	}
	old.State, old.FinishedAt, old.ExitCode = engine.Exited, e.Time, e.ExitCode
	return old, true
}

// distrust makes the next observation look at everything again: a container that
// was stopped and started looks as it did, until its event comes. What is dead, and
// still is, is not asked once more of what.
func (o *observer) distrust() {
	for _, c := range o.containers {
		if c.State != engine.Exited {
			o.changed(c.ID)
		}
	}
	o.changed("")
	o.routesKnown, o.glance = false, nil
}

// refresh brings the containers up to date, but for those that a step in
// flight is changing: the engine answers for such a one when the change is
// done, and all others would wait for it. The end of the step makes it stale.
func (o *observer) refresh(ctx context.Context, now time.Time, changing map[string]bool) error {
	whole := o.listed.IsZero() || !now.Before(o.listed.Add(o.relist))
	if !whole && !o.known.IsZero() {
		return nil
	}
	list, at, err := o.list(ctx, now, whole)
	if err != nil {
		return err
	}
	first := !o.begun
	seen := map[string]engine.Container{}
	for _, c := range list {
		old, ok := o.containers[c.Name]
		if dead, is := o.ended(c, old, now); is {
			seen[c.Name] = dead
			continue
		}
		switch {
		case ok && old.ID == c.ID && (changing[c.Name] || old.State == c.State && !o.stale[c.ID]):
			c = old
		case !first && o.neverStarted(c, old), c.State == engine.Removing:
			// A listing has all there is to know, but why it could not be
			// started: the loop knows, unless another process tried.
		default:
			full, err := o.h.Engine.Inspect(ctx, c.ID)
			if notFound(err) {
				continue
			}
			if err != nil {
				return err
			}
			c = full
		}
		seen[c.Name] = c
	}
	o.containers, o.stale, o.known, o.made, o.begun = seen, map[string]bool{}, at, nil, true
	if whole {
		o.listed = at
	}
	return nil
}

// neverStarted: the listing may be believed that the container was created, and
// no more. Of one that was started it may be wrong for good: where the disk was
// full, the engine lists what it could write last.
func (o *observer) neverStarted(c, old engine.Container) bool {
	return c.State == engine.Created && (old.ID != c.ID || old.State == engine.Created && !o.stale[c.ID])
}

// list returns the service's containers, or those that are known, and when they were
// that.
func (o *observer) list(ctx context.Context, now time.Time, whole bool) ([]engine.Container, time.Time, error) {
	if g := o.glance; g != nil {
		return g.containers[o.service], g.at, nil
	}
	var ids []string
	if !whole {
		if ids = o.ids(); len(ids) == 0 {
			return nil, now, nil
		}
	}
	o.looked = now
	list, err := o.h.Engine.List(ctx, o.h.mine(o.service, KindService), ids...)
	return list, now, err
}

// proxied returns what the proxy serves.
func (o *observer) proxied(ctx context.Context, now time.Time) (proxy.Observed, error) {
	if g := o.glance; g != nil {
		return g.seen, g.err
	}
	o.looked = now
	return o.glances.proxied(ctx, o.h)
}

// routed returns the routes that are to be served.
func (o *observer) routed() (state.Routes, error) {
	if g := o.glance; g != nil {
		return g.routes, nil
	}
	return o.h.Store.Routes()
}

// instances are the containers as the planner sees them, ordered by name.
func (o *observer) instances() []plan.Instance {
	names := make([]string, 0, len(o.containers))
	for n := range o.containers {
		names = append(names, n)
	}
	slices.Sort(names)
	is := make([]plan.Instance, len(names))
	for n, name := range names {
		is[n] = instance(o.containers[name])
	}
	return is
}

// route observes the service's route, and fills it into the instances.
func (o *observer) route(ctx context.Context, http bool, is []plan.Instance, now time.Time) (plan.Proxy, error) {
	if !o.routesKnown {
		r, err := o.routed()
		if err != nil {
			return plan.Proxy{}, err
		}
		// A supervisor has one of these for each service: of the others nothing is kept.
		own, has := r.Table.Route(o.service)
		r.Table.Routes = nil
		if has {
			r.Table.Routes = []proxy.Route{own}
		}
		o.routes, o.routesKnown = r, true
	}
	file, has := o.routes.Table.Route(o.service)
	if o.mayRoute = has; !http && !has {
		return plan.Proxy{Known: true}, nil
	}
	seen, err := o.proxied(ctx, now)
	served, serves := seen.Targets[o.service]
	if err == nil {
		o.serves = serves
	}
	px := plan.Proxy{Known: err == nil, Has: has || o.serves, Targets: served}
	o.mayRoute = px.Has || !px.Known
	if px.Known && seen.Routes && !o.routes.Changing[o.service] && has && serves && slices.Equal(file.Targets, served) {
		px.HTTP = &file.HTTP
	}
	// By name and address: where somebody has removed a container, the next one
	// of its name has another address, and is not what the proxy serves.
	type place struct {
		name string
		addr netip.AddrPort
	}
	places := func(ts []proxy.Target) map[place]bool {
		m := map[place]bool{}
		for _, t := range ts {
			m[place{t.Instance, t.Addr}] = true
		}
		return m
	}
	inFile, inProxy := places(file.Targets), places(served)
	for n := range is {
		i := &is[n]
		at := place{i.Name, i.Addr}
		i.Served = inProxy[at] || !px.Known && inFile[at]
		switch {
		case !px.Known && !px.Has:
			i.Route = plan.Out // there never was a route
		case !px.Known || inFile[at] != inProxy[at]:
			i.Route = plan.Unproved
		case inProxy[at]:
			i.Route = plan.In
		default:
			i.Route = plan.Out
		}
		if px.Known {
			o.inFlight[i.Name] = seen.InFlight[i.Addr]
		}
		if i.Route == plan.Out {
			o.out(i, px.Known, now)
			continue
		}
		i.InFlight = o.inFlight[i.Name]
		o.wasIn[i.Name] = i.StartedAt
		delete(o.outSince, i.Name)
		delete(o.idle, i.Name)
		if inProxy[at] {
			o.servedAt[i.Name] = now
		}
	}
	return px, nil
}

// out fills in since when an instance is out, and what it still has in flight.
// A proxy that is silent may have requests in flight, unless it was seen that
// there are none.
func (o *observer) out(i *plan.Instance, known bool, now time.Time) {
	if in, ok := o.wasIn[i.Name]; ok && i.StartedAt.After(in) {
		delete(o.wasIn, i.Name) // another process of the same container
		delete(o.outSince, i.Name)
		delete(o.idle, i.Name)
		delete(o.inFlight, i.Name)
	}
	t, noted := o.drain(*i)
	if !noted {
		_, wasIn := o.wasIn[i.Name]
		if _, ok := o.outSince[i.Name]; !ok && (wasIn || o.inFlight[i.Name] > 0) {
			o.outSince[i.Name] = now
		}
		t = o.outSince[i.Name]
	}
	i.OutSince = t
	switch {
	case known:
		o.idle[i.Name] = o.inFlight[i.Name] == 0
	case !t.IsZero() && !o.idle[i.Name]:
		o.inFlight[i.Name] = max(o.inFlight[i.Name], 1)
	}
	i.InFlight = o.inFlight[i.Name]
}

// draining says since when an instance is proved out, and what it still has in
// flight; zero where it never was in.
func (o *observer) draining(i plan.Instance) (since time.Time, inFlight int) {
	if t, ok := o.drain(i); ok {
		return t, o.inFlight[i.Name]
	}
	return o.outSince[i.Name], o.inFlight[i.Name]
}

// drain reads the file's note of a drain. Names come back with their release:
// a note from before the instance's start is of another one.
func (o *observer) drain(i plan.Instance) (time.Time, bool) {
	t, ok := o.routes.Drains[i.Name]
	return t, ok && !t.Before(i.StartedAt) && t.After(o.servedAt[i.Name])
}

// served: the proxy was seen to serve the instance although the file notes that
// it is out.
func (o *observer) served(name string) bool {
	at, ok := o.servedAt[name]
	return ok && !o.routes.Drains[name].After(at)
}
