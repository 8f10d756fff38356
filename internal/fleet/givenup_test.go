package fleet

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"conductor/internal/fault"
	"conductor/internal/rollout"
)

// when does something to the fleet as soon as so many steps of the verb have begun.
func (f *inMemory) when(verb string, n int, how func()) {
	go func() {
		for f.count(verb) < n {
			time.Sleep(10 * time.Millisecond)
		}
		f.change(how)
	}()
}

// loseLock has a host let go of the deploy's lock.
func (f *inMemory) loseLock(name string) {
	f.hosts[name].holder = ""
	f.hosts[name].lost <- fault.New(fault.ErrUnreachable, "see whether it is up", "%s: it has not answered for 15 s", name)
}

// With max_failed the others are served, and the deploy does not end well. Who is
// left out is out of the balancer as soon as others serve the revision.
func TestDeploy_GoesOnWithoutAFewHosts(t *testing.T) {
	for name, test := range map[string]struct {
		trouble func(f *inMemory)
		class   error
		runs    string // web02
	}{
		"unhealthy":      {func(f *inMemory) { f.hosts["web02"].broken["v2"] = true }, fault.ErrUnhealthy, "v1-"},
		"not there":      {func(f *inMemory) { f.hosts["web02"].cut = true }, fault.ErrUnreachable, "v1-"},
		"its disk full":  {func(f *inMemory) { f.hosts["web02"].Troubles = []string{"/var is full"} }, fault.ErrHost, "v1-"},
		"not to be held": {func(f *inMemory) { f.breaks["hold web02"] = fault.New(fault.ErrUnreachable, "", "no session on web02") }, fault.ErrUnreachable, "v1-"},
		"its lock lost before its turn": {func(f *inMemory) {
			f.when("upgrade web01", 1, func() { f.loseLock("web02") })
		}, fault.ErrUnreachable, "v1-"},
		"its lock lost in its turn": {func(f *inMemory) {
			f.when("upgrade web02", 1, func() { f.loseLock("web02") })
		}, fault.ErrUnreachable, "v2-"},
		"cut off in its turn": {func(f *inMemory) {
			f.when("upgrade web02", 1, func() { f.hosts["web02"].cut = true; f.loseLock("web02") })
		}, fault.ErrUnreachable, "v1-"},
	} {
		for _, s := range []rollout.Strategy{single, halves, {Kind: rollout.InPlace}} {
			bubble(t, 4, func(t *testing.T, f *inMemory, d Deploy) {
				d.Strategy, d.MaxFailed = s, 1
				f.change(func() {})
				test.trouble(f)
				o, err := f.fleet().Deploy(t.Context(), d)
				wantError(t, err, test.class)
				runs := f.runs()
				for n, r := range runs {
					switch want := "v2+"; {
					case n == 1 && name == "its lock lost before its turn" && s.Kind != rollout.Rolling:
						// Its turn was at once, and it has what others have.
					case n == 1 && strings.HasPrefix(r, "v2") && s.Kind == rollout.InPlace:
						// It serves what the others serve.
					case n == 1 && r != test.runs, n != 1 && r != want:
						t.Errorf("%s, %v: %v\n%s", name, s, runs, strings.Join(f.said, "\n"))
					}
				}
				if o.Hosts[1].Err == nil || !strings.Contains(o.Hosts[1].Failure+"web02 did not become healthy", "web02") {
					t.Errorf("%s, %v: %+v", name, s, o.Hosts[1])
				}
				// Repaired.
				f.change(func() {
					clear(f.breaks)
					h := f.hosts["web02"]
					h.cut, h.Troubles, h.holder = false, nil, ""
					clear(h.broken)
				})
				if _, err := f.fleet().Deploy(t.Context(), d); err != nil {
					t.Errorf("%s, %v: repaired: %v", name, s, err)
				}
				wantRuns(t, f, "v2+ v2+ v2+ v2+")
			})
		}
	}
}

// Where no host may fail, a lock that is lost stops the deploy: nothing more is
// begun, and nothing is taken out of the balancer.
func TestDeploy_LosesALock(t *testing.T) {
	bubble(t, 4, func(t *testing.T, f *inMemory, d Deploy) {
		d.Strategy = single
		f.when("upgrade web02", 1, func() { f.loseLock("web03") })
		_, err := f.fleet().Deploy(t.Context(), d)
		wantError(t, err, fault.ErrUnreachable, "web03", "lock", "has not answered for 15 s")
		if errors.Is(err, fault.ErrInterrupted) {
			t.Errorf("nobody has interrupted it: %v", err)
		}
		if fault.Hint(err) != "see whether it is up" {
			t.Errorf("what to do is %q", fault.Hint(err))
		}
		wantRuns(t, f, "v2+ v2+ v1+ v1+")
	})
}

// The first host is there to fail before others do: max_failed does not count it.
func TestDeploy_FirstHostFails(t *testing.T) {
	bubble(t, 4, func(t *testing.T, f *inMemory, d Deploy) {
		d.Strategy, d.MaxFailed = rollout.Strategy{Kind: rollout.Rolling, Width: 1, First: "web03"}, 2
		f.change(func() { f.hosts["web03"].broken["v2"] = true })
		_, err := f.fleet().Deploy(t.Context(), d)
		wantError(t, err, fault.ErrUnhealthy)
		wantRuns(t, f, "v1+ v1+ v1- v1+")
	})
}

// A host that is cut off while it tests leaves that to another.
func TestDeploy_TestsElsewhere(t *testing.T) {
	bubble(t, 4, func(t *testing.T, f *inMemory, d Deploy) {
		d.MaxFailed, d.Test = 1, []string{"bin/test"}
		f.when("test web01", 1, func() { f.hosts["web01"].cut = true })
		_, err := f.fleet().Deploy(t.Context(), d)
		wantError(t, err, fault.ErrUnreachable, "web01")
		wantRuns(t, f, "v1- v2+ v2+ v2+")
	})
}

// A balancer that knows some hosts of a service, and not others, is a mistake in
// a name; one that knows none is not before this service.
func TestDeploy_BalancerKnowsSomeHosts(t *testing.T) {
	for _, hosts := range [][]string{{"web01", "web02", "web03"}, {"web03"}, {"web01"}} {
		bubble(t, 3, func(t *testing.T, f *inMemory, d Deploy) {
			f.change(func() { f.hidden = map[string]bool{"web03": true} })
			d.Hosts = hosts
			for _, name := range f.order {
				if !strings.Contains(strings.Join(hosts, " "), name) {
					d.Others = append(d.Others, name)
				}
			}
			_, err := f.fleet().Deploy(t.Context(), d)
			wantError(t, err, fault.ErrDefinition, "web03", "it knows web01, web02")
			if len(f.said) > 0 {
				t.Errorf("something was done: %v", f.said)
			}
			f.change(func() { f.hidden["web01"], f.hidden["web02"] = true, true })
			if _, err := f.fleet().Deploy(t.Context(), d); err != nil {
				t.Error(err)
			}
			// A service that takes no requests is no matter of the balancer.
			f.change(func() {
				delete(f.hidden, "web01")
				for _, h := range f.hosts {
					h.Routed = false
				}
			})
			d.Revision = "v3"
			if _, err := f.fleet().Deploy(t.Context(), d); err != nil {
				t.Error(err)
			}
		})
	}
}

// Who waits for a lock can be told to end.
func TestDeploy_WaitsForALockNoLonger(t *testing.T) {
	bubble(t, 2, func(t *testing.T, f *inMemory, d Deploy) {
		f.change(func() { f.hosts["web01"].holder = "alice" })
		d.Wait = true
		ctx, cancel := context.WithTimeoutCause(t.Context(), 5*time.Second, fault.ErrTimeout)
		defer cancel()
		_, err := f.fleet().Deploy(ctx, d)
		wantError(t, err, fault.ErrTimeout)
		f.change(func() { f.hosts["web01"].holder = "" })
	})
}
