package rollout

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

var (
	histories = flag.Int("histories", 1000, "random histories of a fleet")
	seed      = flag.Uint64("seed", 0, "run this history alone, with its steps")
)

// world is a fleet that does what it is told, or does not.
type world struct {
	r        *rand.Rand
	hosts    []Host
	input    Input
	running  []Step // under way
	broken   map[string]bool
	migrated int
	said     []string
}

// TestNext_Histories runs deploys over fleets on which hosts fail, deploys are
// cut off and begun again, and people take hosts out; and holds at each step
// that what serves goes on serving.
func TestNext_Histories(t *testing.T) {
	n := uint64(*histories)
	if *seed != 0 {
		history(t, *seed)
		return
	}
	for s := range n {
		if !history(t, s+1) {
			t.Fatalf("seed %d", s+1)
		}
	}
}

func history(t *testing.T, seed uint64) (ok bool) {
	r := rand.New(rand.NewPCG(seed, 1))
	w := &world{r: r, broken: map[string]bool{}}
	n := 1 + r.IntN(7)
	if r.IntN(50) == 0 {
		n = 50
	}
	kind := []Kind{Rolling, Halves, InPlace}[r.IntN(3)]
	w.input = Input{
		Strategy: Strategy{Kind: kind, Width: 1 + r.IntN(max(n-1, 1))}, MaxFailed: r.IntN(2),
		Test: r.IntN(2) == 0, Migrate: r.IntN(2) == 0,
	}
	balancer := r.IntN(5) > 0
	for i := range n {
		h := Host{Name: fmt.Sprintf("web%d", i+1), Sound: true, Balanced: balancer, HasImage: r.IntN(3) == 0}
		if balancer {
			h.In = true
			h.Away = r.IntN(20) == 0
			if h.Away {
				h.In = false
			}
		}
		h.Up = h.In && r.IntN(20) > 0
		h.Taking = h.Up
		w.broken[h.Name] = r.IntN(25) == 0
		w.hosts = append(w.hosts, h)
	}
	if kind == Rolling && r.IntN(3) == 0 {
		w.input.Strategy.First = w.hosts[r.IntN(n)].Name
	}
	fail := func(format string, args ...any) bool {
		t.Errorf("seed %d, %v:\n%s\n%s", seed, w.input.Strategy, strings.Join(w.said, "\n"), fmt.Sprintf(format, args...))
		return false
	}
	deploys := 0
	for turn := range 200 * (n + 5) {
		in := w.input
		in.Hosts = slices.Clone(w.hosts)
		out := Next(in)
		again := Next(in)
		if fmt.Sprint(out) != fmt.Sprint(again) || !slices.Equal(in.Hosts, w.hosts) {
			return fail("it is no function: %v, %v", out, again)
		}
		for _, s := range out.Steps {
			w.said = append(w.said, fmt.Sprintf("%d %s %v %v (%s)", turn, s.Do, s.Hosts, s.Out, s.Cause))
			if err := w.begin(s); err != "" {
				return fail("%s", err)
			}
		}
		switch {
		case out.Done:
			return w.done(fail)
		case out.Stopped != "":
			w.said = append(w.said, "stopped: "+out.Stopped)
			if err := w.stopped(); err != "" {
				return fail("%s", err)
			}
			if deploys++; deploys > 3 {
				return true
			}
			w.again(true)
			continue
		case len(out.Steps) == 0 && len(out.Waits) == 0 && len(w.running) == 0:
			return fail("nothing to do, and it is not over: %+v", w.hosts)
		}
		if deploys < 4 && r.IntN(60) == 0 { // killed, with steps under way that go on or do not
			deploys++
			w.said = append(w.said, "the deploy is killed")
			for len(w.running) > 0 {
				w.end(r.IntN(2) == 0)
			}
			w.again(r.IntN(2) == 0)
			continue
		}
		if len(w.running) > 0 && r.IntN(2) == 0 {
			w.end(true)
		}
		w.drift()
	}
	return fail("it does not end: %+v", w.hosts)
}

func (w *world) host(name string) *Host {
	for n := range w.hosts {
		if w.hosts[n].Name == name {
			return &w.hosts[n]
		}
	}
	panic(name)
}

// begin does what a step does at once, and says what may not be.
func (w *world) begin(s Step) string {
	serving := 0
	for _, h := range w.hosts {
		if h.In && h.Balanced && h.Up {
			serving++
		}
	}
	for _, name := range slices.Concat(s.Hosts, s.Out) {
		h := w.host(name)
		switch {
		case h.Busy != "":
			return name + " is busy with " + string(h.Busy)
		case h.Failed != "" && s.Do != Confirm && s.Do != Exclude:
			return name + " had failed"
		}
	}
	for _, name := range s.Hosts {
		h := w.host(name)
		h.Busy = s.Do
		switch s.Do {
		case Drain:
			others := serving
			if h.Up {
				others--
			}
			if !h.In || others == 0 && serving > 0 {
				return fmt.Sprintf("%s is drained (in: %v), of %d that serve", name, h.In, serving)
			}
			if w.input.Refused != "" {
				return "drained after it was refused"
			}
			serving = others
			if w.input.Strategy.Kind == Rolling {
				under := 0
				for _, o := range w.hosts {
					if o.present() && o.Balanced && (!o.In || o.Busy != "" || o.Current && !o.Taking) {
						under++
					}
				}
				if under > w.input.Strategy.Width {
					return fmt.Sprintf("%d hosts are under way at once", under)
				}
			}
		case Exclude:
			others := serving
			if h.Up {
				others--
			}
			if h.Failed == "" || !h.In || others == 0 {
				return fmt.Sprintf("%s is excluded (in: %v, failed: %q), of %d that serve", name, h.In, h.Failed, serving)
			}
			serving = others
		case Upgrade:
			switch {
			case h.Current:
				return name + " is upgraded twice"
			case !h.HasImage:
				return name + " lacks the image"
			case w.input.Test && !w.input.Tested:
				return "upgraded before the test"
			case w.input.Migrate && !w.input.Migrated && w.input.Strategy.Kind != Halves && !h.Away:
				return "upgraded before the migration"
			case h.Balanced && h.In && w.input.Strategy.Kind != InPlace && (serving > 1 || serving == 1 && !h.Up):
				return name + " is upgraded while it is in the balancer"
			case h.Balanced && !h.In && !h.Idle:
				return name + " is upgraded with requests in flight"
			}
		case Migrate:
			w.migrated++
			if w.migrated > 1 {
				return "migrated twice"
			}
			if w.input.Migrated {
				return "migrated again"
			}
		case Admit, Swap:
			switch {
			case h.In:
				return name + " is in"
			case h.Away:
				return name + " was taken out by a person"
			case h.Current && !h.Verified:
				return name + " was not verified"
			case h.Current && w.input.Migrate && !w.input.Migrated:
				return name + " is let in before the migration"
			case !h.Current && !h.Sound:
				return name + " is let in and runs nothing"
			}
		}
	}
	w.running = append(w.running, s)
	if s.Do == Confirm {
		for _, name := range s.Hosts {
			w.host(name).Busy = Confirm
		}
	}
	if s.Do == Swap {
		if len(s.Hosts) == 0 {
			return "a swap lets nobody in"
		}
		for _, name := range s.Out {
			w.host(name).Busy = Swap
		}
	}
	return ""
}

// end ends one of the steps under way; heard: the deploy lives to hear of it.
func (w *world) end(heard bool) {
	n := w.r.IntN(len(w.running))
	s := w.running[n]
	w.running = slices.Delete(w.running, n, n+1)
	for _, name := range slices.Concat(s.Hosts, s.Out) {
		w.host(name).Busy = ""
	}
	h := w.host(s.Hosts[0])
	fails := w.broken[h.Name] && w.r.IntN(2) == 0
	w.said = append(w.said, fmt.Sprintf("  %s %v ends (fails: %v)", s.Do, s.Hosts, fails))
	switch s.Do {
	case Image:
		if fails {
			h.Failed = "no image"
			return
		}
		h.HasImage = true
	case Test:
		if fails {
			w.input.Refused = "the test failed"
			return
		}
		w.input.Tested = true
	case Migrate:
		if fails {
			w.migrated--
			w.input.Refused = "the migration failed"
			return
		}
		w.input.Migrated = true
	case Drain, Exclude:
		h.In, h.Up, h.Taking, h.Idle = false, false, false, false
	case Upgrade:
		if fails {
			h.Failed = "not healthy"
			h.Sound = w.r.IntN(2) == 0
			return
		}
		h.Current, h.Sound = true, true
	case Verify:
		if fails {
			h.Failed = "no answer"
			return
		}
		h.Verified = true
	case Admit:
		h.In = true
	case Swap:
		for _, name := range s.Hosts {
			w.host(name).In = true
		}
		if !heard && w.r.IntN(2) == 0 {
			return // cut off in the middle
		}
		for _, name := range s.Out {
			o := w.host(name)
			o.In, o.Up, o.Taking, o.Idle = false, false, false, false
		}
	case Confirm:
		w.input.Confirmed = true
	}
}

// drift: requests end, and come.
func (w *world) drift() {
	for n := range w.hosts {
		h := &w.hosts[n]
		if !h.In && w.r.IntN(3) == 0 {
			h.Idle = true
		}
		if h.In && h.Sound && w.r.IntN(3) == 0 {
			h.Up = true
		}
		if h.In && h.Up && w.r.IntN(3) == 0 {
			h.Taking = true
		}
	}
}

// again begins another deploy, which knows nothing of the one before.
func (w *world) again(repaired bool) {
	for n := range w.hosts {
		h := &w.hosts[n]
		h.Failed, h.Busy, h.Verified = "", "", false
		if repaired {
			w.broken[h.Name] = false
			h.Sound = true
		}
	}
	w.input.Refused, w.input.Confirmed = "", false
}

func (w *world) done(fail func(string, ...any) bool) bool {
	serves := slices.ContainsFunc(w.hosts, func(h Host) bool { return h.present() && h.Current && h.In && h.Up })
	failed := 0
	for _, h := range w.hosts {
		if h.Failed != "" {
			failed++
		}
	}
	for _, h := range w.hosts {
		if h.Failed != "" && h.Balanced && h.In && !h.Current && serves && failed <= w.input.MaxFailed {
			return fail("done, and others serve beside %+v", h)
		}
		if h.Failed == "" && (!h.Current || h.Balanced && !h.Away && !h.In) {
			return fail("done, and %+v", h)
		}
	}
	return true
}

// stopped: whoever is out and well is so for a reason.
func (w *world) stopped() string {
	if len(w.running) > 0 {
		return "steps are under way"
	}
	in := 0
	for _, h := range w.hosts {
		if h.In || !h.Balanced {
			in++
		}
		if h.Failed == "" && h.Balanced && !h.In && !h.Away && h.Sound && !h.Current {
			return h.Name + " runs what it ran, and is left out"
		}
	}
	if in == 0 && slices.ContainsFunc(w.hosts, func(h Host) bool { return !h.Away && h.Failed == "" && !h.Current }) {
		return "nobody serves"
	}
	return ""
}
