package converge

import (
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var (
	histories = flag.Int("histories", 200, "how many random histories TestSimulation runs")
	simSeed   = flag.Uint64("seed", 0, "the one history to run, with all its steps printed; 0: many")
	simFrom   = flag.Uint64("from", 1, "the first seed of many")
)

// play runs one history and returns the invariant that does not hold.
func play(t *testing.T, h history, next planner, verbose bool) (v *violation, lines []string) {
	defer func() {
		if r := recover(); r != nil {
			panic(fmt.Sprintf("%v\n%s", r, h))
		}
	}()
	synctest.Test(t, func(t *testing.T) {
		s := newSim(h, next)
		s.verbose = verbose
		s.run()
		v, lines = s.violated, s.lines
	})
	return v, lines
}

// TestSimulation runs random histories of commands, faults and deaths, and
// checks the invariants of docs/ARCHITECTURE.md after every step. A history that breaks
// one is shrunk and printed, and can be run again with -seed.
func TestSimulation(t *testing.T) {
	if *simSeed != 0 {
		h := newHistory(*simSeed)
		v, lines := play(t, h, nil, true)
		t.Logf("%s\n%s", h, strings.Join(lines, "\n"))
		if v != nil {
			t.Errorf("%v", v)
		}
		return
	}
	began := time.Now()
	var next, failed atomic.Int64
	var once sync.Once
	t.Run("histories", func(t *testing.T) {
		for w := range runtime.GOMAXPROCS(0) {
			t.Run(fmt.Sprintf("worker %d", w+1), func(t *testing.T) {
				t.Parallel()
				for failed.Load() == 0 {
					n := next.Add(1) - 1
					if n >= int64(*histories) {
						return
					}
					h := newHistory(*simFrom + uint64(n))
					if v, _ := play(t, h, nil, false); v != nil {
						failed.Add(1)
						once.Do(func() { report(t, h, v) })
					}
				}
			})
		}
	})
	took := time.Since(began)
	done := min(next.Load(), int64(*histories))
	t.Logf("%d histories in %.1f s, %.0f a second", done, took.Seconds(), float64(done)/took.Seconds())
}

// TestSimulation_OnceBroken runs the histories that found something outside of
// the seeds that script/test runs.
func TestSimulation_OnceBroken(t *testing.T) {
	for _, seed := range []uint64{
		23925, 36006, 42592, 47436, 66439, 67352, 76300, 77018, 86225, 214624, 222061, 263358, 285633, 287069, 349012, 474190, 479142, 492986, 628173, 638255, 719271, 859950, 895921,
		2003920, 2077250, 2198225,
	} {
		h := newHistory(seed)
		if v, _ := play(t, h, nil, false); v != nil {
			report(t, h, v)
		}
	}
}

// report prints a history that breaks an invariant, in full and shrunk.
func report(t *testing.T, h history, v *violation) {
	t.Helper()
	small, sv := shrink(h, v, func(h history) *violation { v, _ := play(t, h, nil, false); return v })
	_, lines := play(t, small, nil, true)
	t.Errorf("seed %d: %v\nrun it again with: go test ./internal/converge -run TestSimulation -seed %d -v\n\nshrunk: %v\n%s\n%s",
		h.seed, v, h.seed, sv, small, strings.Join(lines, "\n"))
}

// shrink leaves out what the violation does not need: commands, troubles,
// disorder, services' sizes.
func shrink(h history, v *violation, run func(history) *violation) (history, *violation) {
	try := func(c history) bool {
		if w := run(c); w != nil && w.kind == v.kind {
			h, v = c, w
			return true
		}
		return false
	}
	for again := true; again; {
		again = false
		for n := len(h.acts) - 1; n >= 0; n-- {
			c := h
			c.acts = append(append([]act{}, h.acts[:n]...), h.acts[n+1:]...)
			again = try(c) || again
		}
		for n := range h.acts {
			for m := len(h.acts[n].trouble) - 1; m >= 0; m-- {
				c := h
				c.acts = append([]act{}, h.acts...)
				old := c.acts[n].trouble
				c.acts[n].trouble = append(append([]trouble{}, old[:m]...), old[m+1:]...)
				again = try(c) || again
			}
			for _, simpler := range []func(*act){
				func(a *act) { a.gap = 0 }, func(a *act) { a.overlap = 0 }, func(a *act) { a.define = nil },
				func(a *act) { a.timeout = 0 },
			} {
				c := h
				c.acts = append([]act{}, h.acts...)
				simpler(&c.acts[n])
				if fmt.Sprint(c.acts[n]) != fmt.Sprint(h.acts[n]) {
					again = try(c) || again
				}
			}
		}
		if len(h.services) == 2 && !slices.ContainsFunc(h.acts, func(a act) bool { return a.service == 1 }) {
			c := h
			c.services = h.services[:1]
			again = try(c) || again
		}
		if !h.orderly {
			c := h
			c.orderly = true
			again = try(c) || again
		}
		for n := range h.services {
			for _, simpler := range []func(*simService){
				func(s *simService) { s.replicas = 1 }, func(s *simService) { s.before = false },
				func(s *simService) { s.after = 1 }, func(s *simService) { s.order = "start-first" },
			} {
				c := h
				c.services = append([]simService{}, h.services...)
				simpler(&c.services[n])
				if c.services[n] != h.services[n] {
					again = try(c) || again
				}
			}
		}
	}
	return h, v
}

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(m.Run())
}
