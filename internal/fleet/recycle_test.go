package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"conductor/internal/event"
	"conductor/internal/fault"
)

// recyclable are hosts in memory that can be made fresh, which takes them down
// for a while.
type recyclable struct {
	*inMemory
	notes map[string]*Recycling
}

func (f *recyclable) Recycling(ctx context.Context, host string, note RecycleNote) (r Recycling, err error) {
	err = f.call(ctx, "look", host, 20*time.Millisecond, func(*machine) error {
		n := f.notes[host]
		switch note {
		case RecycleBegun:
			n.Begun = time.Now()
		case RecycleDone:
			n.Last, n.Begun = time.Now(), time.Time{}
		}
		r = *n
		return nil
	})
	return r, err
}

func (f *recyclable) HoldAll(ctx context.Context, host string, services []string) (Held, error) {
	return f.Hold(ctx, host, Question{Service: strings.Join(services, " ")}, false)
}

// down is something that keeps the host from serving for a while.
func (f *recyclable) down(ctx context.Context, verb, host string, d time.Duration) error {
	return f.call(ctx, verb, host, 0, func(h *machine) error {
		h.Sound = false
		go func() {
			time.Sleep(d)
			f.change(func() { h.Sound = !h.broken["any"] })
		}()
		return nil
	})
}

func (f *recyclable) Refresh(ctx context.Context, host string, _ event.Sink) error {
	return f.down(ctx, "refresh", host, 5*time.Second)
}

func (f *recyclable) Images(ctx context.Context, host string, _ event.Sink) error {
	return f.call(ctx, "images", host, time.Second, func(*machine) error { return nil })
}

func (f *recyclable) Restart(ctx context.Context, host, service string, _ event.Sink) error {
	return f.down(ctx, "restart", host, 2*time.Second)
}

func (f *recyclable) Reboot(ctx context.Context, host string) error {
	return f.call(ctx, "reboot", host, 0, func(h *machine) error {
		h.cut = true
		if h.holder != "" {
			h.holder = ""
			h.lost <- errors.New("it reboots")
		}
		go func() {
			time.Sleep(30 * time.Second)
			f.change(func() { h.cut, f.notes[host].Boot = false, f.notes[host].Boot+" more" })
		}()
		return nil
	})
}

// recycleBubble runs the test on a fleet of n hosts, all of which have shop.
func recycleBubble(t *testing.T, n int, test func(t *testing.T, f *recyclable, ask Recycle)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := &recyclable{newFleet(t, n), map[string]*Recycling{}}
		for n, name := range f.order {
			f.notes[name] = &Recycling{Last: time.Now().Add(time.Duration(n-100) * time.Hour), Boot: "one"}
		}
		ctx, cancel := context.WithCancel(t.Context())
		go f.traffic(ctx)
		defer time.Sleep(time.Minute) // what is down comes back
		defer cancel()
		test(t, f, Recycle{Hosts: f.order, Services: []Placed{{Service: "shop", Hosts: f.order}}})
		if f.failed > 0 {
			t.Errorf("%d of %d requests failed\n%s", f.failed, f.requests, strings.Join(f.said, "\n"))
		}
		for name, h := range f.hosts {
			if h.holder != "" {
				t.Errorf("the lock on %s is left", name)
			}
		}
	})
}

func (f *recyclable) recycle(t *testing.T, ask Recycle) (Recycled, error) {
	t.Helper()
	return f.fleet().Recycle(t.Context(), f, ask)
}

// Each host has its turn, those that never had one first.
func TestRecycle_TakesTurns(t *testing.T) {
	recycleBubble(t, 3, func(t *testing.T, f *recyclable, ask Recycle) {
		f.notes["web03"].Last = time.Time{}
		var turns []string
		for range 4 {
			r, err := f.recycle(t, ask)
			if err != nil {
				t.Fatal(err)
			}
			turns = append(turns, r.Host)
			time.Sleep(time.Second)
		}
		if want := []string{"web03", "web01", "web02", "web03"}; !slices.Equal(turns, want) {
			t.Errorf("turns %q, want %q", turns, want)
		}
		wantRuns(t, f.inMemory, "v1+ v1+ v1+")
		if !f.notes["web01"].Begun.IsZero() {
			t.Error("it counts as under way")
		}
	})
}

func TestRecycle_Reboots(t *testing.T) {
	recycleBubble(t, 2, func(t *testing.T, f *recyclable, ask Recycle) {
		ask.Reboot = true
		r, err := f.recycle(t, ask)
		if err != nil || r.Host != "web01" || f.notes["web01"].Boot != "one more" || f.count("reboot") != 1 {
			t.Errorf("%+v, %v", r, err)
		}
		wantRuns(t, f.inMemory, "v1+ v1+")
	})
}

// Where nobody would stand in for the host nothing is touched.
func TestRecycle_RefusesWithoutSpare(t *testing.T) {
	for name, test := range map[string]struct {
		breaks func(f *recyclable, ask *Recycle)
		says   string
	}{
		"out":         {func(f *recyclable, _ *Recycle) { f.hosts["web02"].in = false }, "web02 is out of the balancer"},
		"away":        {func(f *recyclable, _ *Recycle) { f.hosts["web02"].in, f.hosts["web02"].away = false, true }, "web02 is out of the balancer"},
		"not sound":   {func(f *recyclable, _ *Recycle) { f.hosts["web02"].Sound, f.hosts["web02"].in = false, false }, "web02: shop is"},
		"cut":         {func(f *recyclable, _ *Recycle) { f.hosts["web02"].cut = true }, "web02"},
		"only one":    {func(_ *recyclable, ask *Recycle) { ask.Services = []Placed{{Service: "shop", Hosts: ask.Hosts[:1]}} }, "the only host of shop"},
		"self is out": {func(f *recyclable, _ *Recycle) { f.hosts["web01"].in = false }, "no recycling took it out"},
	} {
		t.Run(name, func(t *testing.T) {
			recycleBubble(t, 3, func(t *testing.T, f *recyclable, ask Recycle) {
				f.change(func() { test.breaks(f, &ask) })
				before := f.runs()
				_, err := f.recycle(t, ask)
				if err == nil || !strings.Contains(err.Error(), test.says) || fault.Hint(err) == "" && !errors.Is(err, fault.ErrUnreachable) {
					t.Errorf("%v, want %s", err, test.says)
				}
				if f.set > 0 || f.count("refresh") > 0 || !slices.Equal(before, f.runs()) {
					t.Errorf("something was touched: %q", f.said)
				}
			})
		})
	}
}

// A host on which a step fails stays out, and is the next one's turn.
func TestRecycle_FailureLeavesItOut(t *testing.T) {
	for _, verb := range []string{"refresh", "images", "restart", "verify", "reboot"} {
		t.Run(verb, func(t *testing.T) {
			recycleBubble(t, 3, func(t *testing.T, f *recyclable, ask Recycle) {
				ask.Reboot = true
				f.notes["web02"].Last = time.Time{}
				f.breaks[verb+" web02"] = fault.New(fault.ErrHost, "do this", "no %s today", verb)
				_, err := f.recycle(t, ask)
				wantError(t, err, fault.ErrHost, "recycle web02", "no "+verb+" today", "out of the balancer, and stays out")
				if hint := fault.Hint(err); !strings.Contains(hint, "do this") || !strings.Contains(hint, "takes web02 first") {
					t.Errorf("hint %q", hint)
				}
				wantRuns(t, f.inMemory, "v1+ v1- v1+")
				f.change(func() { delete(f.breaks, verb+" web02") })
				r, err := f.recycle(t, ask)
				if err != nil || r.Host != "web02" {
					t.Errorf("%s, %v", r.Host, err)
				}
				wantRuns(t, f.inMemory, "v1+ v1+ v1+")
			})
		})
	}
}

// A plan touches nothing, and names the host.
func TestPlanRecycle(t *testing.T) {
	recycleBubble(t, 3, func(t *testing.T, f *recyclable, ask Recycle) {
		ask.Reboot = true
		r, err := f.fleet().PlanRecycle(t.Context(), f, ask)
		var steps []string
		for _, s := range r.Steps {
			steps = append(steps, string(s.Do))
		}
		if want := "drain packages reboot images restart verify admit"; err != nil || r.Host != "web01" || strings.Join(steps, " ") != want {
			t.Errorf("%s: %q, %v", r.Host, steps, err)
		}
		if f.set > 0 || len(f.said) > 0 {
			t.Errorf("something was done: %q", f.said)
		}
	})
}

// A host that a person took out is made fresh, and stays out.
func TestRecycle_AwayStaysAway(t *testing.T) {
	recycleBubble(t, 3, func(t *testing.T, f *recyclable, ask Recycle) {
		f.change(func() { f.hosts["web01"].in, f.hosts["web01"].away = false, true })
		if r, err := f.recycle(t, ask); err != nil || r.Host != "web01" {
			t.Errorf("%s, %v", r.Host, err)
		}
		wantRuns(t, f.inMemory, "v1- v1+ v1+")
	})
}

// The lock of a deploy is respected.
func TestRecycle_NotDuringADeploy(t *testing.T) {
	recycleBubble(t, 3, func(t *testing.T, f *recyclable, ask Recycle) {
		held, err := f.Hold(t.Context(), "web03", Question{Service: "shop"}, false)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.recycle(t, ask)
		wantError(t, err, fault.ErrLocked, "web03")
		if f.set > 0 {
			t.Errorf("%q", f.said)
		}
		held.Release()
	})
}

// Join brings a host to what the others run, and in.
func TestJoin(t *testing.T) {
	for name, test := range map[string]struct {
		before func(f *inMemory)
		runs   string
		says   string // of the error
	}{
		"bare":             {func(f *inMemory) {}, "v1+ v1+ v1+", ""},
		"taken out before": {func(f *inMemory) { f.hosts["web03"].in = false }, "v1+ v1+ v1+", ""},
		"by a person":      {func(f *inMemory) { f.hosts["web03"].in, f.hosts["web03"].away = false, true }, "v1+ v1+ v1-", ""},
		"others differ":    {func(f *inMemory) { f.hosts["web01"].Live = "v2" }, "v2+ v1+ -", "v1 on web02; v2 on web01"},
		"one is cut":       {func(f *inMemory) { f.hosts["web01"].cut = true }, "v1+ v1+ v1+", ""},
		"it fails":         {func(f *inMemory) { f.hosts["web03"].broken["v1"] = true }, "v1+ v1+ -", "did not become healthy"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 3, func(t *testing.T, f *inMemory, d Deploy) {
				f.change(func() {
					h := f.hosts["web03"]
					h.Live, h.Sound, h.State = "", false, "not deployed"
					test.before(f)
				})
				d.Migrate, d.Revision = []string{"migrate"}, ""
				joined, err := f.fleet().Join(t.Context(), Join{Host: "web03", Services: []Deploy{d}})
				if (err == nil) != (test.says == "") || err != nil && !strings.Contains(err.Error(), test.says) {
					t.Errorf("%+v, %v, want %q", joined, err, test.says)
				}
				wantRuns(t, f, test.runs)
				if f.count("migrate") > 0 {
					t.Error("it was migrated again")
				}
				if err != nil {
					return
				}
				before := len(f.said)
				again, err := f.fleet().Join(t.Context(), Join{Host: "web03", Services: []Deploy{d}})
				if err != nil || again[0].Changed || fmt.Sprint(f.said[before:]) != "[verify web03]" {
					t.Errorf("again: %+v, %v, %q", again, err, f.said[before:])
				}
			})
		})
	}
}

// Where nothing was ever deployed there is nothing to run, and nobody is let in
// who has nothing to answer with.
func TestJoin_NothingRunsAnywhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, 3)
		for _, h := range f.hosts {
			h.Live, h.Sound, h.State = "", false, "not deployed"
		}
		joined, err := f.fleet().Join(t.Context(), Join{Host: "web03", Services: []Deploy{{Service: "shop", Hosts: f.order}}})
		if err != nil || len(joined) != 1 || !strings.Contains(joined[0].Left, "none of its hosts runs it") {
			t.Errorf("%+v, %v", joined, err)
		}
		wantRuns(t, f, "+ + -")
	})
}
