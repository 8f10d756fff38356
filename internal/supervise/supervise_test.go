package supervise

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"conductor/internal/converge"
	"conductor/internal/engine"
	"conductor/internal/event"
	"conductor/internal/goal"
	"conductor/internal/spec"
	"conductor/internal/state"
)

// fakeHost notes who is tended, and what wakes them.
type fakeHost struct {
	mu     sync.Mutex
	goals  map[string]goal.Goal
	writes uint64
	stamps map[string]state.Stamp
	log    []string
	slow   map[string]time.Duration // until its goal is reached
}

func newHost() *fakeHost {
	return &fakeHost{goals: map[string]goal.Goal{}, stamps: map[string]state.Stamp{}, slow: map[string]time.Duration{}}
}

func (h *fakeHost) put(id string, dependsOn ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.writes++
	h.goals[id] = goal.Goal{Service: id, Policy: spec.Policy{DependsOn: dependsOn}}
	h.stamps[id] = state.Stamp{Inode: h.writes}
}

func (h *fakeHost) remove(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.goals, id)
	delete(h.stamps, id)
}

func (h *fakeHost) note(format string, args ...any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.log = append(h.log, fmt.Sprintf(format, args...))
}

// took returns what was noted since the last time.
func (h *fakeHost) took() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.log
	h.log = nil
	return l
}

func (h *fakeHost) Stamps() (map[string]state.Stamp, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return maps.Clone(h.stamps), nil
}

func (h *fakeHost) Goal(id string) (goal.Goal, bool, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	g, ok := h.goals[id]
	return g, ok, nil
}

func (h *fakeHost) Tend(ctx context.Context, id string, feed converge.Feed) error {
	h.note("tend %s", id)
	reached := time.After(h.slow[id])
	for {
		select {
		case e := <-feed.Events:
			h.note("%s hears %s", id, e.Action)
		case <-feed.Look:
			h.note("%s looks", id)
			if _, ok, _ := h.Goal(id); !ok {
				return nil
			}
		case <-reached:
			feed.Settled(true)
		case <-ctx.Done():
			return nil
		}
	}
}

func (h *fakeHost) SweepRuns(context.Context) error { return nil }

// supervised runs f beside a supervisor, in virtual time.
func supervised(t *testing.T, h *fakeHost, events Events, f func(emitted func() []string)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var told []string
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		s := &Supervisor{Namespace: "conductor", Host: h, Goals: h, Events: events, Emit: func(e event.Event) {
			mu.Lock()
			defer mu.Unlock()
			told = append(told, string(e.Event)+": "+e.Detail)
		}}
		go func() { ended <- s.Run(ctx) }()
		synctest.Wait()
		f(func() []string {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(told)
		})
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// quiet is an engine of which nothing is heard.
func quiet(ctx context.Context, _ map[string]string, ready func(), _ func(engine.Event)) error {
	ready()
	<-ctx.Done()
	return ctx.Err()
}

func TestSupervisor_WakesWhoIsConcerned(t *testing.T) {
	h := newHost()
	h.put("shop")
	h.put("blog")
	var say chan engine.Event
	events := func(ctx context.Context, labels map[string]string, ready func(), f func(engine.Event)) error {
		if labels[converge.LabelNamespace] != "conductor" {
			t.Errorf("it asks for %v", labels)
		}
		say = make(chan engine.Event) // of the bubble that runs it
		ready()
		for {
			select {
			case e := <-say:
				f(e)
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	supervised(t, h, events, func(func() []string) {
		begun := h.took()
		slices.Sort(begun)
		if want := []string{"blog looks", "shop looks", "tend blog", "tend shop"}; !slices.Equal(begun, want) {
			t.Errorf("at the beginning: %v, want %v", begun, want)
		}
		for _, c := range []struct {
			what string
			do   func()
			want []string
		}{
			{"an event", func() { say <- engine.Event{Action: "die", Labels: map[string]string{converge.LabelService: "shop"}} }, []string{"shop hears die"}},
			{"a stranger's event", func() { say <- engine.Event{Action: "die", Labels: map[string]string{converge.LabelService: "other"}} }, nil},
			{"another goal", func() { h.put("blog") }, []string{"blog looks"}},
			{"a new goal", func() { h.put("mail") }, []string{"tend mail"}},
			{"no goal any more", func() { h.remove("shop") }, []string{"shop looks"}},
			{"a goal again", func() { time.Sleep(rescan); h.put("shop") }, []string{"tend shop"}},
			{"nothing", func() {}, nil},
		} {
			c.do()
			time.Sleep(rescan)
			synctest.Wait()
			if got := h.took(); !slices.Equal(got, c.want) {
				t.Errorf("%s: %v, want %v", c.what, got, c.want)
			}
		}
	})
}

// A service waits for those that it depends on, but not for ever.
func TestSupervisor_KeepsTheOrder(t *testing.T) {
	h := newHost()
	h.put("web", "db")
	h.put("db")
	h.put("late", "never")
	h.put("never")
	h.slow = map[string]time.Duration{"db": 10 * time.Second, "never": 24 * time.Hour}
	supervised(t, h, quiet, func(func() []string) {
		tended := func(id string) bool {
			h.mu.Lock()
			defer h.mu.Unlock()
			return slices.Contains(h.log, "tend "+id)
		}
		for _, c := range []struct {
			after time.Duration
			want  map[string]bool
		}{
			{9 * time.Second, map[string]bool{"db": true, "never": true, "web": false, "late": false}},
			{2 * time.Second, map[string]bool{"web": true, "late": false}},
			{depends, map[string]bool{"late": true}},
		} {
			time.Sleep(c.after)
			synctest.Wait()
			for id, want := range c.want {
				if tended(id) != want {
					t.Errorf("%s is tended: %v, want %v", id, !want, want)
				}
			}
		}
	})
}

// However long the engine is gone, and however many services there are, it is
// told once that it is, and once that it is back.
func TestSupervisor_TellsOnceThatTheEngineIsGone(t *testing.T) {
	h := newHost()
	for n := range 50 {
		h.put(fmt.Sprintf("s%d", n))
	}
	var mu sync.Mutex
	gone := true
	events := func(ctx context.Context, _ map[string]string, ready func(), _ func(engine.Event)) error {
		for {
			mu.Lock()
			is := gone
			mu.Unlock()
			if is {
				return errors.New("no such socket")
			}
			ready()
			select {
			case <-time.After(time.Minute):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	supervised(t, h, events, func(emitted func() []string) {
		time.Sleep(time.Minute)
		if got := emitted(); len(got) != 1 || !strings.Contains(got[0], "no such socket") {
			t.Errorf("told: %v", got)
		}
		mu.Lock()
		gone = false
		mu.Unlock()
		time.Sleep(time.Second)
		if got := emitted(); len(got) != 2 || !strings.Contains(got[1], "answers again") {
			t.Errorf("told: %v", got)
		}
	})
}
