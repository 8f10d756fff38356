package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"conductor/internal/cli"
	"conductor/internal/control"
	"conductor/internal/converge"
	"conductor/internal/event"
	"conductor/internal/metrics"
	"conductor/internal/notify"
	"conductor/internal/spec"
	"conductor/internal/state"
	"conductor/internal/supervise"
)

// standstill is how long the supervisor's loop, which turns each second, is
// silent before it counts as dead.
const standstill = 10 * time.Second

// lastWords is how long the end may wait for messages on their way.
const lastWords = 700 * time.Millisecond

// How much garbage a supervisor may have beside what it needs, in percent; Go's
// default is 100. It does little for a long time, and the memory is the services':
// what it leaves behind is picked up early. While it starts containers the
// processor is what they wait for.
const (
	gcCalm = 10
	gcBusy = 200
)

// collecting sets how much garbage there may be.
type collecting struct{ percent int }

func (c *collecting) set(busy bool) {
	percent := gcCalm
	if busy {
		percent = gcBusy
	}
	if percent == c.percent {
		return
	}
	c.percent = percent
	debug.SetGCPercent(percent)
	if !busy {
		debug.FreeOSMemory()
	}
}

// supervisor is one that can be watched.
type supervisor struct {
	setup   cli.Setup
	dir     *state.Dir
	history *state.History
	host    *converge.Host
}

// run looks after all services until ctx is done, and has metrics at the
// address, unless that is empty.
func (s supervisor) run(ctx context.Context, address string) error {
	release, err := s.dir.LockSupervisor(ctx, state.Holder{Verb: "supervise", User: s.setup.User})
	if err != nil {
		return err
	}
	defer release()
	m := metrics.New(metrics.Sources{
		Namespace: s.host.Namespace,
		Status:    func(ctx context.Context) ([]converge.Status, error) { return s.status(ctx, nil, false) },
		Upgrades:  s.history.Upgrades,
		Proxy:     s.host.Proxy.Observe,
		Version:   s.setup.Version,
		Commit:    s.setup.Commit,
	})
	pulse := &control.Pulse{Within: standstill}
	server := &control.Server{
		Status:  func(ctx context.Context, ids []string, brief bool) (any, error) { return s.status(ctx, ids, brief) },
		As:      goesBy(s.setup),
		Metrics: m.Handler(),
		Alive:   pulse.Alive,
	}
	host := *s.host
	host.Prober = m.Prober(host.Prober)
	host.Emit = func(e event.Event) {
		s.setup.Emit(e)
		m.Event(e)
		server.Publish(e)
	}
	var at net.Listener
	if address != "" {
		if at, err = control.ListenAt(address); err != nil {
			return err
		}
	}
	socket, err := control.Listen(control.Path(host.Namespace))
	if err != nil { // nobody can watch it there, and it does its work
		host.Emit(event.Event{Time: time.Now(), Event: event.Warning, Detail: err.Error()})
	}
	ctx, cancel := context.WithCancel(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel()
	watching.Go(func() {
		if err := server.Serve(ctx, socket, at); err != nil {
			host.Emit(event.Event{Time: time.Now(), Event: event.Warning, Detail: "it cannot be watched any more: " + err.Error()})
		}
	})
	name, err := os.Hostname()
	if err != nil {
		name = "unknown"
	}
	people := notify.FromConfig(s.setup.Config, notify.Options{Last: lastWords, Warn: func(target string, givenUp bool, err error) {
		what := "a message to %s is tried again: %v"
		if givenUp {
			what = "a message to %s is given up: %v"
		}
		host.Emit(event.Event{Time: time.Now(), Event: event.Warning, Detail: fmt.Sprintf(what, target, err)})
	}})
	watching.Go(func() { people.Run(ctx) })
	n := newNotifier(func() (int, error) {
		all, err := s.dir.Stamps()
		return len(all), err
	})
	defer context.AfterFunc(ctx, n.stopping)()
	var garbage collecting
	return (&supervise.Supervisor{
		Namespace: host.Namespace, Host: &host, Goals: s.dir, Events: host.Engine.Events, Emit: host.Emit,
		HostName: name, Tell: people, Log: s.history,
		Ready: func() { n.ready(time.Now()) },
		Beat: func(busy bool) {
			pulse.Beat()
			n.beat(time.Now())
			garbage.set(busy)
		},
		Late: m.Late,
	}).Run(ctx)
}

// status is what service status says, with the definitions as they are now;
// brief: without what the instances use.
func (s supervisor) status(ctx context.Context, ids []string, brief bool) ([]converge.Status, error) {
	dir := s.setup.Config.ServicesDir
	set, err := spec.LoadServices(os.DirFS(dir), dir)
	if err != nil {
		return nil, err
	}
	host := *s.host
	host.Definitions = set
	look := host.Status
	if brief {
		look = host.Brief
	}
	all, err := look(ctx, ids...)
	if all == nil {
		all = []converge.Status{}
	}
	return all, err
}

// watchedHost is a host whose supervisor is asked where there is one.
type watchedHost struct {
	*converge.Host
	supervisor control.Client
}

// Status has the supervisor look, which probes all instances anyway, and looks
// itself where none answers for this program and configuration.
func (w watchedHost) Status(ctx context.Context, ids ...string) ([]converge.Status, error) {
	var all []converge.Status
	if w.supervisor.Status(ctx, &all, false, ids...) {
		return all, nil
	}
	return w.Host.Status(ctx, ids...)
}

// Brief is that without what the instances use.
func (w watchedHost) Brief(ctx context.Context, ids ...string) ([]converge.Status, error) {
	var all []converge.Status
	if w.supervisor.Status(ctx, &all, true, ids...) {
		return all, nil
	}
	return w.Host.Brief(ctx, ids...)
}

// goesBy is a digest of all that decides what a status says but for what is on
// the host.
func goesBy(s cli.Setup) string {
	// Marshalling fails for no configuration that was read.
	config, _ := json.Marshal(s.Config)
	return fmt.Sprintf("%x", sha256.Sum256(fmt.Appendf(nil, "%s %s %s", s.Version, s.Commit, config)))
}
