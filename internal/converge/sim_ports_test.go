package converge

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"conductor/internal/engine"
	"conductor/internal/goal"
	"conductor/internal/proxy"
	"conductor/internal/secret"
	"conductor/internal/spec"
	"conductor/internal/state"
	"conductor/internal/state/statetest"
)

// process is one run of the program: one command.
type process struct {
	sim     *sim
	n       int
	a       act
	store   *statetest.Memory
	ctx     context.Context
	cancel  context.CancelCauseFunc
	life    context.Context // ends when it is killed
	kill    context.CancelFunc
	dead    bool
	done    bool
	err     error
	outs    []Outcome
	began   time.Time
	ended   time.Time      // or killed
	beat    int            // of its last look at the containers
	decided map[string]int // the beat of its last decision on a service's route
	before  before
	judged  bool
}

// simEngine is the engine as a process sees it.
type simEngine struct{ *process }

func (e simEngine) Info(ctx context.Context) (out engine.Info, err error) {
	err = e.pass(ctx, "Info", "", func(ctx context.Context) error { out, err = e.sim.eng.Info(ctx); return err })
	return out, err
}

func (e simEngine) Image(ctx context.Context, ref string) (out engine.Image, err error) {
	err = e.pass(ctx, "Image", ref, func(ctx context.Context) error { out, err = e.sim.eng.Image(ctx, ref); return err })
	return out, err
}

func (e simEngine) Pull(ctx context.Context, ref string) (out engine.Image, err error) {
	err = e.pass(ctx, "Pull", ref, func(ctx context.Context) error { out, err = e.sim.eng.Pull(ctx, ref); return err })
	return out, err
}

func (e simEngine) Tag(ctx context.Context, image, ref string) error {
	return e.pass(ctx, "Tag", ref, func(ctx context.Context) error { return e.sim.eng.Tag(ctx, image, ref) })
}

func (e simEngine) Untag(ctx context.Context, ref string) error {
	return e.pass(ctx, "Untag", ref, func(ctx context.Context) error { return e.sim.eng.Untag(ctx, ref) })
}

func (e simEngine) Tags(ctx context.Context, prefix string) (out []string, err error) {
	err = e.pass(ctx, "Tags", prefix, func(ctx context.Context) error { out, err = e.sim.eng.Tags(ctx, prefix); return err })
	return out, err
}

func (e simEngine) Network(ctx context.Context, name string, subnet netip.Prefix, labels map[string]string) (out engine.Network, err error) {
	err = e.pass(ctx, "Network", name, func(ctx context.Context) error {
		out, err = e.sim.eng.Network(ctx, name, subnet, labels)
		return err
	})
	return out, err
}

func (e simEngine) List(ctx context.Context, labels map[string]string, ids ...string) (out []engine.Container, err error) {
	err = e.pass(ctx, "List", labels[LabelService], func(ctx context.Context) error {
		out, err = e.sim.eng.List(ctx, labels, ids...)
		if err == nil {
			e.sim.mu.Lock()
			e.sim.beat++
			e.beat = e.sim.beat
			e.sim.mu.Unlock()
		}
		return err
	})
	return out, err
}

func (e simEngine) Inspect(ctx context.Context, id string) (out engine.Container, err error) {
	err = e.pass(ctx, "Inspect", id, func(ctx context.Context) error {
		out, err = e.sim.eng.Inspect(ctx, id)
		out.PID = 0 // nobody is to look it up on the machine that runs the test
		return err
	})
	return out, err
}

func (e simEngine) Create(ctx context.Context, c engine.Create) (id string, err error) {
	made := make(chan string, 1) // a create whose caller is gone has its effect all the same
	if err := e.park(&call{op: "Create", arg: c.Name, ctx: ctx, inner: func(ctx context.Context) error {
		id, err := e.sim.eng.Create(ctx, c)
		if err == nil {
			e.sim.created(id, c, ctx == context.Background())
			made <- id
		}
		return err
	}}); err != nil {
		return "", err
	}
	return <-made, nil
}

func (e simEngine) Start(ctx context.Context, id string) error {
	return e.park(&call{op: "Start", arg: id, ctx: ctx, inner: func(ctx context.Context) error {
		before, _ := e.sim.eng.Inspect(ctx, id)
		err := e.sim.eng.Start(ctx, id)
		if err == nil && before.State != engine.Running {
			e.sim.mu.Lock()
			i := e.sim.insts[before.ID]
			e.sim.mu.Unlock()
			e.sim.started(i)
		}
		return err
	}})
}

func (e simEngine) Stop(ctx context.Context, id string, grace time.Duration) error {
	return e.park(&call{op: "Stop", arg: id, ctx: ctx, inner: func(ctx context.Context) error {
		e.sim.mu.Lock()
		if i := e.sim.find(id); i != nil && i.running {
			i.stopped, i.stoppedBy, i.wasWell = true, e.process, e.sim.well(i)
		}
		e.sim.mu.Unlock()
		return e.sim.eng.Stop(ctx, id, grace+e.sim.jitter("grace", id))
	}})
}

func (e simEngine) Kill(ctx context.Context, id, signal string) error {
	return e.park(&call{op: "Kill", arg: id, ctx: ctx, inner: func(ctx context.Context) error { return e.sim.eng.Kill(ctx, id, signal) }})
}

func (e simEngine) Remove(ctx context.Context, id string) error {
	return e.park(&call{op: "Remove", arg: id, ctx: ctx, inner: func(ctx context.Context) error { return e.sim.eng.Remove(ctx, id) }})
}

func (e simEngine) Attach(ctx context.Context, id string, st engine.Streams, attached func()) error {
	return e.park(&call{op: "Attach", arg: id, ctx: ctx, inner: func(ctx context.Context) error {
		return e.sim.eng.Attach(ctx, id, st, attached)
	}})
}

func (e simEngine) Logs(ctx context.Context, id string, o engine.LogOptions, stdout, stderr io.Writer) error {
	return e.pass(ctx, "Logs", id, func(ctx context.Context) error { return e.sim.eng.Logs(ctx, id, o, stdout, stderr) })
}

func (e simEngine) Exec(ctx context.Context, id string, x engine.Exec) (code int, err error) {
	err = e.pass(ctx, "Exec", id, func(ctx context.Context) error { code, err = e.sim.eng.Exec(ctx, id, x); return err })
	return code, err
}

func (e simEngine) Wait(ctx context.Context, id string) (code int, err error) {
	err = e.park(&call{op: "Wait", arg: id, ctx: ctx, inner: func(ctx context.Context) error { code, err = e.sim.eng.Wait(ctx, id); return err }})
	return code, err
}

// Events come a little after what they tell of.
func (e simEngine) Events(ctx context.Context, labels map[string]string, ready func(), f func(engine.Event)) error {
	ctx, stop := e.with(ctx)
	defer stop()
	return e.pass(ctx, "Events", labels[LabelService], func(ctx context.Context) error {
		return e.sim.eng.Events(ctx, labels, ready, func(ev engine.Event) {
			s := e.sim
			d := s.jitter("event", ev.Action, ev.Name, strconv.Itoa(e.n), ev.Time.Sub(s.began).String())
			select {
			case <-time.After(d):
				f(ev)
			case <-ctx.Done():
			}
		})
	})
}

// simProxy is the proxy as a process sees it.
type simProxy struct{ *process }

func (x simProxy) fake() proxy.Proxy {
	x.sim.mu.Lock()
	defer x.sim.mu.Unlock()
	return x.sim.px
}

func (x simProxy) Check(ctx context.Context, t proxy.Table) error {
	return x.pass(ctx, "Check", "", func(ctx context.Context) error { return x.fake().Check(ctx, t) })
}

func (x simProxy) Apply(ctx context.Context, t proxy.Table) (out proxy.Change, err error) {
	err = x.park(&call{op: "Apply", arg: tableWords(t), ctx: ctx, table: t, inner: func(ctx context.Context) error {
		x.sim.mu.Lock()
		x.sim.busy(t)
		x.sim.mu.Unlock()
		out, err = x.fake().Apply(ctx, t)
		return err
	}})
	return out, err
}

func (x simProxy) Observe(ctx context.Context) (out proxy.Observed, err error) {
	err = x.pass(ctx, "Observe", "", func(ctx context.Context) error { out, err = x.fake().Observe(ctx); return err })
	return out, err
}

// simStore is the disk as a process sees it.
type simStore struct{ *process }

func (d simStore) Lock(ctx context.Context, service string, h state.Holder) (func(), error) {
	return d.store.Lock(ctx, service, h)
}

func (d simStore) LockProxy(ctx context.Context) (func(), error) {
	ctx, stop := d.with(ctx)
	defer stop()
	return d.store.LockProxy(ctx)
}

func (d simStore) Goal(service string) (g goal.Goal, ok bool, err error) {
	err = d.pass(context.Background(), "Goal", service, func(context.Context) error { g, ok, err = d.store.Goal(service); return err })
	return g, ok, err
}

func (d simStore) Goals() (gs []goal.Goal, err error) {
	err = d.pass(context.Background(), "Goals", "", func(context.Context) error { gs, err = d.store.Goals(); return err })
	return gs, err
}

func (d simStore) PutGoal(g goal.Goal) error {
	return d.park(&call{op: "PutGoal", arg: goalWords(g), ctx: context.Background(), goal: &g,
		inner: func(context.Context) error { return d.store.PutGoal(g) }})
}

func (d simStore) DeleteGoal(service string) error {
	return d.park(&call{op: "DeleteGoal", arg: service, ctx: context.Background(),
		inner: func(context.Context) error { return d.store.DeleteGoal(service) }})
}

func (d simStore) Routes() (r state.Routes, err error) {
	err = d.pass(context.Background(), "Routes", "", func(context.Context) error { r, err = d.store.Routes(); return err })
	return r, err
}

func (d simStore) PutRoutes(r state.Routes) error {
	return d.park(&call{op: "PutRoutes", arg: tableWords(r.Table), ctx: context.Background(),
		inner: func(context.Context) error { return d.store.PutRoutes(r) }})
}

func (d simStore) Address(ctx context.Context, subnet netip.Prefix, used map[netip.Addr]bool) (a netip.Addr, err error) {
	err = d.pass(ctx, "Address", "", func(ctx context.Context) error { a, err = d.store.Address(ctx, subnet, used); return err })
	return a, err
}

// simSecrets are secrets as a process sees them.
type simSecrets struct{ *process }

func (x simSecrets) Read(ctx context.Context, c spec.Container) (m secret.Material, err error) {
	if _, ok := ctx.Deadline(); ok { // creates side by side: which reads first nobody knows
		m.Sum = sha256.Sum256([]byte(c.Image))
		return m, ctx.Err()
	}
	err = x.pass(ctx, "Read", "", func(context.Context) error {
		m.Sum = sha256.Sum256([]byte(c.Image))
		return nil
	})
	return m, err
}

// Place is parked, so that instances that are created side by side come to
// their addresses in an order that the driver knows.
func (x simSecrets) Place(instance string, _ map[string][]byte) (map[string]string, error) {
	asked := time.Now() // the decision is as old as that
	return nil, x.park(&call{op: "Place", arg: instance, ctx: context.Background(), inner: func(context.Context) error {
		x.sim.mu.Lock()
		defer x.sim.mu.Unlock()
		x.sim.placed[instance] = asked
		return nil
	}})
}

func (x simSecrets) Clear(instance string) error {
	return x.pass(context.Background(), "Clear", instance, func(context.Context) error {
		x.sim.mu.Lock()
		defer x.sim.mu.Unlock()
		delete(x.sim.placed, instance)
		return nil
	})
}

func (x simSecrets) Sweep(prefix string, keep func(string) bool) error {
	return x.pass(context.Background(), "Sweep", prefix, func(context.Context) error {
		x.sim.mu.Lock()
		defer x.sim.mu.Unlock()
		for n := range x.sim.placed {
			if strings.HasPrefix(n, prefix) && !keep(n) {
				delete(x.sim.placed, n)
			}
		}
		return nil
	})
}

// find finds a container by ID or name. s.mu is held.
func (s *sim) find(id string) *inst {
	if i := s.insts[id]; i != nil {
		return i
	}
	if i := s.byName[id]; i != nil && !i.removed {
		return i
	}
	return nil
}

func tableWords(t proxy.Table) string {
	w := ""
	for _, r := range t.Routes {
		w += r.Service + "["
		for n, t := range r.Targets {
			if n > 0 {
				w += " "
			}
			w += t.Instance
		}
		w += "] "
	}
	return w
}

func goalWords(g goal.Goal) string {
	w := g.Service
	if g.Running {
		w += " running"
	}
	if g.Removing {
		w += " removing"
	}
	if g.Current != nil {
		w += " current " + g.Current.Revision
	}
	if g.Candidate != nil {
		w += " candidate " + g.Candidate.Revision
	}
	if g.Replicas != nil {
		w += fmt.Sprintf(" replicas %d", *g.Replicas)
	}
	return w + fmt.Sprintf(" epoch %d", g.Epoch)
}
