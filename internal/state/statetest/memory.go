// Package statetest has a store in memory, and the suite that every store
// passes. Only tests and the simulator import it.
package statetest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"conductor/internal/goal"
	"conductor/internal/proxy"
	"conductor/internal/state"
)

// ErrCrashed is the answer to every call of a process that has crashed.
var ErrCrashed = errors.New("this process has crashed: go on with Process")

// Memory is one process's view of a store that is kept in memory. It does no
// I/O and waits only on channels, so it may live in a testing/synctest bubble.
// Waiting locks are given in the order in which they were asked for.
type Memory struct {
	host    *host
	crashed bool // under host.mu
	pid     int
}

// host is what the processes share.
type host struct {
	mu     sync.Mutex
	boot   int
	pids   int
	goals  map[string]goal.Goal
	routes state.Routes
	last   map[netip.Prefix]netip.Addr
	locks  map[string]*lock
	fault  func(call string) error
}

type lock struct {
	by      *Memory
	h       state.Holder
	waiting []*waiter
}

type waiter struct {
	by   *Memory
	h    state.Holder
	all  bool // waits for commands too
	done chan error
}

// NewMemory returns the first process of an empty store.
func NewMemory() *Memory {
	h := &host{
		boot:  1,
		goals: map[string]goal.Goal{},
		last:  map[netip.Prefix]netip.Addr{},
		locks: map[string]*lock{},
	}
	return (&Memory{host: h}).Process()
}

// Process returns another process of the same host: it sees the same goals,
// routes and locks.
func (m *Memory) Process() *Memory {
	m.host.mu.Lock()
	defer m.host.mu.Unlock()
	m.host.pids++
	return &Memory{host: m.host, pid: m.host.pids}
}

// Fault sets a function that is asked before every call of every process, with
// the method's name; the call fails with its error, changing nothing. nil: no
// faults. It may crash the process, or end the goroutine.
func (m *Memory) Fault(f func(call string) error) {
	m.host.mu.Lock()
	defer m.host.mu.Unlock()
	m.host.fault = f
}

// Crash is the death of this process: its locks are free, and what still runs
// of it gets ErrCrashed and changes nothing any more. What it kept stays.
func (m *Memory) Crash() {
	m.host.mu.Lock()
	defer m.host.mu.Unlock()
	m.crash()
}

func (m *Memory) crash() {
	m.crashed = true
	for name, l := range m.host.locks {
		l.waiting = slices.DeleteFunc(l.waiting, func(w *waiter) bool {
			if w.by == m {
				w.done <- ErrCrashed
			}
			return w.by == m
		})
		if l.by == m {
			m.host.pass(name, l)
		}
	}
}

// Reboot is the end of all processes, and another boot.
func (m *Memory) Reboot() {
	m.host.mu.Lock()
	defer m.host.mu.Unlock()
	m.host.boot++
	for _, l := range m.host.locks {
		for _, w := range l.waiting {
			w.by.crashed = true
			w.done <- ErrCrashed
		}
		l.by.crashed = true
	}
	clear(m.host.locks)
	m.crashed = true
}

// enter is the beginning of every call; it returns with the mutex held where
// there is no error.
func (m *Memory) enter(call string) error {
	m.host.mu.Lock()
	f := m.host.fault
	m.host.mu.Unlock()
	if f != nil {
		if err := f(call); err != nil {
			return err
		}
	}
	m.host.mu.Lock()
	if m.crashed {
		m.host.mu.Unlock()
		return ErrCrashed
	}
	return nil
}

// Lock implements converge.Store.
func (m *Memory) Lock(ctx context.Context, service string, h state.Holder) (func(), error) {
	if h.PID == 0 {
		h.PID = m.pid
	}
	if h.Start.IsZero() {
		h.Start = time.Now()
	}
	return m.acquire(ctx, "Lock", service, h, false)
}

// LockProxy implements converge.Store.
func (m *Memory) LockProxy(ctx context.Context) (func(), error) {
	return m.acquire(ctx, "LockProxy", ".proxy", state.Holder{}, true)
}

func (m *Memory) acquire(ctx context.Context, call, name string, h state.Holder, all bool) (func(), error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("take lock %s: %w", name, context.Cause(ctx))
	}
	if err := m.enter(call); err != nil {
		return nil, err
	}
	l := m.host.locks[name]
	if l == nil {
		m.host.locks[name] = &lock{by: m, h: h}
		m.host.mu.Unlock()
		return m.releaser(name), nil
	}
	if !all && !l.h.Supervisor {
		defer m.host.mu.Unlock()
		return nil, state.Locked(name, l.h)
	}
	w := &waiter{by: m, h: h, all: all, done: make(chan error, 1)}
	l.waiting = append(l.waiting, w)
	m.host.mu.Unlock()

	select {
	case err := <-w.done:
		if err != nil {
			return nil, err
		}
		return m.releaser(name), nil
	case <-ctx.Done():
	}
	m.host.mu.Lock()
	defer m.host.mu.Unlock()
	select {
	case err := <-w.done: // it came at the same moment
		if err != nil {
			return nil, err
		}
		m.host.pass(name, m.host.locks[name])
	default:
		l.waiting = slices.DeleteFunc(l.waiting, func(o *waiter) bool { return o == w })
	}
	return nil, fmt.Errorf("wait for lock %s: %w", name, context.Cause(ctx))
}

func (m *Memory) releaser(name string) func() {
	return sync.OnceFunc(func() {
		m.host.mu.Lock()
		defer m.host.mu.Unlock()
		if l := m.host.locks[name]; l != nil && l.by == m && !m.crashed {
			m.host.pass(name, l)
		}
	})
}

// pass gives the lock to who waited longest. Those that would not have waited
// for that one are told so.
func (h *host) pass(name string, l *lock) {
	if len(l.waiting) == 0 {
		delete(h.locks, name)
		return
	}
	next := l.waiting[0]
	l.by, l.h = next.by, next.h
	l.waiting = slices.DeleteFunc(l.waiting[1:], func(w *waiter) bool {
		refused := !w.all && !next.h.Supervisor
		if refused {
			w.done <- state.Locked(name, next.h)
		}
		return refused
	})
	next.done <- nil
}

// Goal implements converge.Store.
func (m *Memory) Goal(service string) (goal.Goal, bool, error) {
	if err := m.enter("Goal"); err != nil {
		return goal.Goal{}, false, err
	}
	defer m.host.mu.Unlock()
	g, ok := m.host.goals[service]
	return cloneGoal(g), ok, nil
}

// PutGoal implements converge.Store.
func (m *Memory) PutGoal(g goal.Goal) error {
	if err := m.enter("PutGoal"); err != nil {
		return err
	}
	defer m.host.mu.Unlock()
	m.host.goals[g.Service] = cloneGoal(g)
	return nil
}

// DeleteGoal implements converge.Store.
func (m *Memory) DeleteGoal(service string) error {
	if err := m.enter("DeleteGoal"); err != nil {
		return err
	}
	defer m.host.mu.Unlock()
	delete(m.host.goals, service)
	return nil
}

// Goals implements converge.Store.
func (m *Memory) Goals() ([]goal.Goal, error) {
	if err := m.enter("Goals"); err != nil {
		return nil, err
	}
	defer m.host.mu.Unlock()
	var goals []goal.Goal
	for _, g := range m.host.goals {
		goals = append(goals, cloneGoal(g))
	}
	slices.SortFunc(goals, func(a, b goal.Goal) int { return strings.Compare(a.Service, b.Service) })
	return goals, nil
}

// Routes implements converge.Store.
func (m *Memory) Routes() (state.Routes, error) {
	if err := m.enter("Routes"); err != nil {
		return state.Routes{}, err
	}
	defer m.host.mu.Unlock()
	return cloneRoutes(m.host.routes).In(m.host.bootID()), nil
}

// PutRoutes implements converge.Store.
func (m *Memory) PutRoutes(r state.Routes) error {
	if err := m.enter("PutRoutes"); err != nil {
		return err
	}
	defer m.host.mu.Unlock()
	r = cloneRoutes(r)
	r.BootID = m.host.bootID()
	m.host.routes = r
	return nil
}

// Address implements converge.Store.
func (m *Memory) Address(_ context.Context, subnet netip.Prefix, used map[netip.Addr]bool) (netip.Addr, error) {
	if err := m.enter("Address"); err != nil {
		return netip.Addr{}, err
	}
	defer m.host.mu.Unlock()
	a, err := state.NextAddress(subnet, m.host.last[subnet.Masked()], used)
	if err == nil {
		m.host.last[subnet.Masked()] = a
	}
	return a, err
}

func (h *host) bootID() string { return "boot-" + strconv.Itoa(h.boot) }

// cloneGoal copies what a caller may change. Maps and slices inside a release
// are never changed in place, and are shared: a simulation copies goals often.
func cloneGoal(g goal.Goal) goal.Goal {
	if g.Current != nil {
		r := *g.Current
		g.Current = &r
	}
	if g.Candidate != nil {
		c := *g.Candidate
		c.Since = c.Since.Round(0) // as a file would keep it
		g.Candidate = &c
	}
	if g.Replicas != nil {
		n := *g.Replicas
		g.Replicas = &n
	}
	if g.Policy.HTTP != nil {
		p := *g.Policy.HTTP
		g.Policy.HTTP = &p
	}
	g.Kept = slices.Clone(g.Kept)
	g.Resume, g.Dropped = g.Resume.Round(0), g.Dropped.Round(0)
	return g
}

func cloneRoutes(r state.Routes) state.Routes {
	r.Table.Routes = slices.Clone(r.Table.Routes)
	for i := range r.Table.Routes {
		r.Table.Routes[i].Targets = append([]proxy.Target{}, r.Table.Routes[i].Targets...)
	}
	drains := r.Drains
	r.Drains = nil
	for name, t := range drains {
		if r.Drains == nil {
			r.Drains = make(map[string]time.Time, len(drains))
		}
		r.Drains[name] = t.Round(0)
	}
	return r
}
