package fleet

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"conductor/internal/fault"
	"conductor/internal/rollout"
)

var (
	halves = rollout.Strategy{Kind: rollout.Halves}
	single = rollout.Strategy{Kind: rollout.Rolling, Width: 1}
)

// bubble runs the test on a fleet of n hosts under traffic.
func bubble(t *testing.T, n int, test func(t *testing.T, f *inMemory, d Deploy)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t, n)
		ctx, cancel := context.WithCancel(t.Context())
		go f.traffic(ctx)
		defer time.Sleep(time.Second) // it ends, also after t.Fatal
		defer cancel()
		test(t, f, Deploy{Service: "shop", Revision: "v2", Hosts: f.order, Strategy: halves})
		if f.failed > 0 {
			t.Errorf("%d of %d requests failed", f.failed, f.requests)
		}
		for name, h := range f.hosts {
			if h.holder != "" {
				t.Errorf("the lock on %s is left", name)
			}
		}
	})
}

func wantRuns(t *testing.T, f *inMemory, want string) {
	t.Helper()
	if got := strings.Join(f.runs(), " "); got != want {
		t.Errorf("the hosts run %s, want %s\n%s", got, want, strings.Join(f.said, "\n"))
	}
}

func wantError(t *testing.T, err, class error, words ...string) {
	t.Helper()
	if !errors.Is(err, class) {
		t.Fatalf("%v, want it to be: %v", err, class)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q is not told: %v", w, err)
		}
	}
}

func TestDeploy_Strategies(t *testing.T) {
	for name, s := range map[string]rollout.Strategy{
		"halves": halves, "one at a time": single, "all": {Kind: rollout.InPlace}, "two, the last first": {Kind: rollout.Rolling, Width: 2, First: "web04"},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, 4, func(t *testing.T, f *inMemory, d Deploy) {
				d.Strategy, d.Test, d.Migrate = s, []string{"bin/test"}, []string{"bin/migrate"}
				o, err := f.fleet().Deploy(t.Context(), d)
				if err != nil {
					t.Fatal(err)
				}
				wantRuns(t, f, "v2+ v2+ v2+ v2+")
				for _, h := range o.Hosts {
					if h.Revision != "v2" || !h.Changed || !h.In || h.Err != nil {
						t.Errorf("%+v", h)
					}
				}
				if f.count("migrate") != 1 || f.count("test") != 1 || f.count("upgrade") != 4 || f.count("bring") != 4 {
					t.Errorf("%s", strings.Join(f.said, "\n"))
				}
				// Again: nothing is left to do.
				before := len(f.said)
				if o, err = f.fleet().Deploy(t.Context(), d); err != nil || o.Hosts[0].Changed || len(f.said) != before {
					t.Errorf("again: %+v, %v\n%s", o, err, strings.Join(f.said[before:], "\n"))
				}
			})
		})
	}
}

// What goes wrong, where the hosts are then, and that the next deploy goes on.
func TestDeploy_Failures(t *testing.T) {
	bad := fault.New(fault.ErrUnhealthy, "", "exit 1")
	for _, test := range []struct {
		name     string
		strategy rollout.Strategy
		trouble  func(f *inMemory)
		class    error
		says     string
		runs     string
	}{
		{"the test fails", halves, func(f *inMemory) { f.breaks["test"] = bad }, fault.ErrUnhealthy, "exit 1", "v1+ v1+ v1+ v1+"},
		{"the image cannot be had", single, func(f *inMemory) { f.breaks["bring web03"] = fault.New(fault.ErrImage, "", "no such tag") }, fault.ErrImage, "no such tag", "v1+ v1+ v1+ v1+"},
		{"the migration fails", halves, func(f *inMemory) { f.breaks["migrate"] = bad }, fault.ErrUnhealthy, "exit 1", "v2- v2- v1+ v1+"},
		{"the migration fails, rolling", single, func(f *inMemory) { f.breaks["migrate"] = bad }, fault.ErrUnhealthy, "exit 1", "v1+ v1+ v1+ v1+"},
		{"unhealthy on the second host", single, func(f *inMemory) { f.hosts["web02"].broken["v2"] = true }, fault.ErrUnhealthy, "healthy", "v2+ v1- v1+ v1+"},
		{"unhealthy in the first half", halves, func(f *inMemory) { f.hosts["web02"].broken["v2"] = true }, fault.ErrUnhealthy, "healthy", "v2- v1- v1+ v1+"},
		{"unhealthy in the second half", halves, func(f *inMemory) { f.hosts["web04"].broken["v2"] = true }, fault.ErrUnhealthy, "healthy", "v2+ v2+ v2+ v1-"},
		{"it does not answer from outside", single, func(f *inMemory) { f.breaks["verify web01"] = bad }, fault.ErrUnhealthy, "exit 1", "v2- v1+ v1+ v1+"},
		{"a host is not there", single, func(f *inMemory) { f.hosts["web03"].cut = true }, fault.ErrUnreachable, "web03", "v1+ v1+ v1+ v1+"},
		{"a host's disk is full", single, func(f *inMemory) { f.hosts["web03"].Troubles = []string{"/var is full"} }, fault.ErrHost, "/var is full", "v1+ v1+ v1+ v1+"},
		{"a definition is another", single, func(f *inMemory) { f.hosts["web03"].Definition = "other" }, fault.ErrDefinition, "web03", "v1+ v1+ v1+ v1+"},
		{"no definition", single, func(f *inMemory) { f.hosts["web03"].Definition = "" }, fault.ErrDefinition, "web03", "v1+ v1+ v1+ v1+"},
		{"somebody has the lock", single, func(f *inMemory) { f.hosts["web03"].holder = "alice" }, fault.ErrLocked, "alice", "v1+ v1+ v1+ v1+"},
		{"the balancer does not answer", single, func(f *inMemory) { f.breaks["state"] = errors.New("no socket") }, fault.ErrUnreachable, "no socket", "v1+ v1+ v1+ v1+"},
		{"the balancer refuses", single, func(f *inMemory) { f.breaks["set"] = bad }, fault.ErrUnhealthy, "exit 1", "v1+ v1+ v1+ v1+"},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, 4, func(t *testing.T, f *inMemory, d Deploy) {
				d.Strategy, d.Test, d.Migrate = test.strategy, []string{"bin/test"}, []string{"bin/migrate"}
				f.change(func() { test.trouble(f) })
				o, err := f.fleet().Deploy(t.Context(), d)
				wantError(t, err, test.class, test.says)
				wantRuns(t, f, test.runs)
				for n, h := range o.Hosts {
					if want, _, _ := strings.Cut(strings.Fields(test.runs)[n], "+"); h.Revision != "?" && h.Revision != strings.TrimSuffix(want, "-") {
						t.Errorf("the outcome says %+v, and it runs %s", h, want)
					}
				}
				// Repaired.
				f.change(func() {
					clear(f.breaks)
					for _, h := range f.hosts {
						h.cut, h.Troubles, h.Definition, h.holder = false, nil, "d", ""
						clear(h.broken)
					}
				})
				if _, err := f.fleet().Deploy(t.Context(), d); err != nil {
					t.Fatalf("repaired: %v", err)
				}
				wantRuns(t, f, "v2+ v2+ v2+ v2+")
				if n := f.count("migrate"); n > 2 || n == 2 && !strings.Contains(test.name, "migration") {
					t.Errorf("migrated %d times", n)
				}
			})
		})
	}
}

// A host that is cut off while it upgrades is given up; the others serve.
func TestDeploy_CutOffInTheMiddle(t *testing.T) {
	bubble(t, 4, func(t *testing.T, f *inMemory, d Deploy) {
		d.Strategy = single
		go func() {
			for f.count("upgrade web02") == 0 {
				time.Sleep(10 * time.Millisecond)
			}
			time.Sleep(time.Second)
			f.mu.Lock()
			f.hosts["web02"].cut = true
			f.mu.Unlock()
		}()
		o, err := f.fleet().Deploy(t.Context(), d)
		wantError(t, err, fault.ErrUnreachable, "web02")
		wantRuns(t, f, "v2+ v1- v1+ v1+")
		if o.Hosts[1].Revision != "?" {
			t.Errorf("%+v", o.Hosts[1])
		}
	})
}

func TestDeploy_GoesBack(t *testing.T) {
	for _, s := range []rollout.Strategy{halves, single} {
		bubble(t, 4, func(t *testing.T, f *inMemory, d Deploy) {
			d.Strategy, d.Back = s, true
			f.change(func() { f.hosts["web04"].broken["v2"] = true })
			_, err := f.fleet().Deploy(t.Context(), d)
			wantError(t, err, fault.ErrUnhealthy)
			wantRuns(t, f, "v1+ v1+ v1+ v1+")
		})
	}
}

// Wherever it is interrupted, nothing fails, and the next one goes on.
func TestDeploy_Interrupted(t *testing.T) {
	for after := 100 * time.Millisecond; after < 12*time.Second; after += 333 * time.Millisecond {
		bubble(t, 3, func(t *testing.T, f *inMemory, d Deploy) {
			d.Migrate = []string{"bin/migrate"}
			ctx, cancel := context.WithCancelCause(t.Context())
			defer time.AfterFunc(after, func() { cancel(fault.ErrInterrupted) }).Stop()
			if _, err := f.fleet().Deploy(ctx, d); err != nil && !errors.Is(err, fault.ErrInterrupted) {
				t.Errorf("after %s: %v", after, err)
			}
			if _, err := f.fleet().Deploy(t.Context(), d); err != nil {
				t.Errorf("after %s, again: %v", after, err)
			}
			wantRuns(t, f, "v2+ v2+ v2+")
			if n := f.count("migrate"); n != 1 {
				t.Errorf("after %s: migrated %d times", after, n)
			}
		})
	}
}

func TestDeploy_TwoAtOnce(t *testing.T) {
	for _, wait := range []bool{false, true} {
		bubble(t, 4, func(t *testing.T, f *inMemory, d Deploy) {
			d.Migrate, d.Wait = []string{"bin/migrate"}, wait
			errs := make(chan error)
			for _, revision := range []string{"v2", "v3"} {
				go func() {
					d := d
					d.Revision = revision
					_, err := f.fleet().Deploy(t.Context(), d)
					errs <- err
				}()
			}
			var failed []error
			for range 2 {
				if err := <-errs; err != nil {
					failed = append(failed, err)
				}
			}
			runs := f.runs()
			if slices.ContainsFunc(runs, func(r string) bool { return r != runs[0] || r == "v1+" }) {
				t.Errorf("half of each: %v", runs)
			}
			if wait && len(failed) > 0 || !wait && (len(failed) != 1 || !errors.Is(failed[0], fault.ErrLocked)) {
				t.Errorf("wait %v: %v", wait, failed)
			}
		})
	}
}

// hooks notes what was run, and fails where it is told to.
type hooks struct {
	f     *inMemory
	fails string // "name host"
	ran   []string
}

func (h *hooks) Run(ctx context.Context, name, host string, d Deploy, failure error) error {
	h.f.mu.Lock()
	defer h.f.mu.Unlock()
	what := strings.TrimSpace(name + " " + host)
	if failure != nil {
		what += ": " + failure.Error()
	}
	h.ran = append(h.ran, what)
	if what == h.fails {
		return errors.New("the hook says no")
	}
	return nil
}

func TestDeploy_Hooks(t *testing.T) {
	bubble(t, 2, func(t *testing.T, f *inMemory, d Deploy) {
		h := &hooks{f: f}
		d.Strategy, d.Hooks = single, h
		if _, err := f.fleet().Deploy(t.Context(), d); err != nil {
			t.Fatal(err)
		}
		want := []string{"before_deploy", "before_host web01", "after_host web01", "before_host web02", "after_host web02", "after_deploy"}
		if !slices.Equal(h.ran, want) {
			t.Errorf("%q, want %q", h.ran, want)
		}
	})
	for fails, want := range map[string]string{
		"before_deploy": "v1+ v1+", "before_host web02": "v2+ v1+", "after_host web01": "v2+ v1+", "after_deploy": "v2+ v2+",
	} {
		bubble(t, 2, func(t *testing.T, f *inMemory, d Deploy) {
			h := &hooks{f: f, fails: fails}
			d.Strategy, d.Hooks = single, h
			_, err := f.fleet().Deploy(t.Context(), d)
			if err == nil || !strings.Contains(err.Error(), "the hook says no") {
				t.Errorf("%s: %v", fails, err)
			}
			wantRuns(t, f, want)
			if last := h.ran[len(h.ran)-1]; strings.HasSuffix(fails, "web01") && last != "on_failure: the hook says no" {
				t.Errorf("%s: the last one is %q", fails, last)
			}
		})
	}
}

// When the balancer falls silent in the middle, what was begun on hosts comes to
// its end, with the locks held.
func TestDeploy_BalancerFallsSilent(t *testing.T) {
	bubble(t, 4, func(t *testing.T, f *inMemory, d Deploy) {
		go func() {
			for f.count("upgrade") == 0 {
				time.Sleep(10 * time.Millisecond)
			}
			f.change(func() { f.breaks["state"] = errors.New("no socket") })
		}()
		_, err := f.fleet().Deploy(t.Context(), d)
		wantError(t, err, fault.ErrUnreachable, "no socket")
		if began, runs := f.count("upgrade"), strings.Count(strings.Join(f.runs(), " "), "v2"); began != runs {
			t.Errorf("%d upgrades were begun, and %d had ended when the locks were let go", began, runs)
		}
		f.change(func() { clear(f.breaks) })
		if _, err := f.fleet().Deploy(t.Context(), d); err != nil {
			t.Error(err)
		}
		wantRuns(t, f, "v2+ v2+ v2+ v2+")
	})
}
