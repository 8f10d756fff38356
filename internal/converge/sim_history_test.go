package converge

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"time"

	"conductor/internal/spec"
)

// history is all that a simulation is made from: which services there are,
// what is asked of them, and what goes wrong meanwhile. It is drawn from a seed
// before it begins, so parts of it can be left out to find what matters.
type history struct {
	seed     uint64
	services []simService
	acts     []act
	orderly  bool // calls are let go in order, none is kept waiting
}

// simService is one definition.
type simService struct {
	id       string
	web      bool
	order    spec.Order
	replicas int
	before   bool
	after    int // unhealthy_after
	drain    time.Duration
	host     int // which host name; another one changes the route
	cron     bool
	recycle  bool
}

// act is one command, given when the one before has ended.
type act struct {
	verb     string
	service  int
	revision string
	replicas int // scale; -1: definition
	gap      time.Duration
	// overlap, where it is not 0, lets the command begin after so many steps
	// of the one before, ended or not.
	overlap int
	// define is the definition from then on; nil: as it was.
	define *simService
	// timeout is --timeout; 0: none.
	timeout time.Duration
	trouble []trouble
}

// trouble is one thing that goes wrong, so many steps after its act has begun.
type trouble struct {
	at   int
	kind string
	n    uint64 // chooses whom it befalls
	d    time.Duration
}

// Kinds of trouble that befall the next call that fits.
var callTroubles = []string{"fail", "lost", "hang", "hang late", "hard", "slow", "refuse", "half"}

// Kinds of trouble that befall the next call of a method which is let through
// otherwise; the word after the colon is what happens to it.
var readTroubles = []string{"List", "Inspect", "Observe", "Network", "Image", "Tag", "Untag", "Check", "Address", "Routes", "Info", "Read", "Clear", "Sweep", "Goal"}

// Kinds of trouble that befall the world.
var worldTroubles = []string{
	"die", "die", "die", "oom", "sick", "sick", "recover", "vanish", "reboot", "engine down", "events break", "proxy restart",
	"proxy down", "proxy lies", "proxy refuses", "proxy empty", "foreign", "requests", "requests", "requests", "requests for ever", "disk full", "kill", "kill", "kill", "interrupt",
}

// behaviours of releases, and how often they come; a revision's name begins
// with its behaviour.
var behaviours = []struct {
	name   string
	weight int
}{
	{"good", 50}, {"slow", 8}, {"exits", 5}, {"late", 4}, {"never", 5}, {"cannot", 4}, {"oom", 3}, {"spoils", 3},
	{"missing", 2}, {"fades", 4}, {"dies", 4}, {"crashes", 4}, {"pulled", 4}, {"stubborn", 4},
}

func newHistory(seed uint64) history {
	r := rand.New(rand.NewPCG(seed, 1))
	h := history{seed: seed}
	for n := range 1 + r.IntN(2) {
		h.services = append(h.services, newSimService(r, n))
	}
	rate := []int{0, 0, 1, 2, 4, 8}[r.IntN(6)] // troubles a command
	if r.IntN(12) == 0 {
		h.acts = crashLoop(r)
		return h
	}
	revisions := []string{}
	for n := range 2 + r.IntN(5) {
		a := act{service: r.IntN(len(h.services)), replicas: -1}
		switch k := r.IntN(100); {
		case n < len(h.services):
			a.verb, a.service = "upgrade", n
		case k < 40:
			a.verb = "upgrade"
		case k < 50:
			a.verb = "rollback"
		case k < 58:
			a.verb = "restart"
		case k < 68:
			a.verb = "scale"
			if r.IntN(4) > 0 {
				a.replicas = r.IntN(4)
			}
		case k < 75:
			a.verb = "stop"
		case k < 82:
			a.verb = "start"
		case k < 86:
			a.verb = "remove"
		default:
			a.verb = "converge"
		}
		if a.verb == "upgrade" {
			if len(revisions) > 0 && r.IntN(4) == 0 {
				a.revision = revisions[r.IntN(len(revisions))]
			} else {
				a.revision = fmt.Sprintf("%s%d", behaviour(r, n < len(h.services)), n+1)
				revisions = append(revisions, a.revision)
			}
		}
		if n >= len(h.services) && r.IntN(8) == 0 {
			d := newSimService(r, a.service)
			old := h.services[a.service]
			d.web, d.drain = old.web, old.drain
			a.define = &d
		}
		if n >= len(h.services) && r.IntN(6) == 0 {
			s := act{verb: "supervise", replicas: -1, timeout: span(r, 100*time.Millisecond, 30*time.Second)}
			for range r.IntN(2*rate + 1) {
				s.trouble = append(s.trouble, newTrouble(r))
			}
			h.acts = append(h.acts, s)
			if r.IntN(2) == 0 {
				a.overlap = 1 + r.IntN(60)
			}
		}
		switch r.IntN(4) {
		case 0:
			a.gap = span(r, time.Millisecond, 30*time.Second)
		case 1:
			if n > 0 && r.IntN(3) == 0 {
				a.overlap = 1 + r.IntN(60)
			}
		}
		if rate > 0 && r.IntN(12) == 0 {
			a.timeout = span(r, 10*time.Millisecond, 30*time.Second)
		}
		for range r.IntN(rate + 1) {
			a.trouble = append(a.trouble, newTrouble(r))
		}
		h.acts = append(h.acts, a)
	}
	return h
}

// crashLoop is a release whose instances end soon after they were well, and a
// host that is converged again and again.
func crashLoop(r *rand.Rand) []act {
	acts := []act{{verb: "upgrade", replicas: -1, revision: "crashes1"}}
	for range 3 + r.IntN(4) {
		acts = append(acts, act{verb: "converge", replicas: -1, gap: span(r, 100*time.Millisecond, 3*time.Second)})
	}
	return acts
}

func newSimService(r *rand.Rand, n int) simService {
	s := simService{id: []string{"shop", "mail"}[n], web: r.IntN(4) > 0, order: spec.StartFirst,
		replicas: 1 + r.IntN(3), before: r.IntN(6) == 0, after: 1 + r.IntN(3), drain: time.Duration(1+r.IntN(10)) * time.Second}
	if r.IntN(3) == 0 {
		s.order = spec.StopFirst
	}
	s.host = r.IntN(5) / 4
	s.cron = r.IntN(3) == 0
	s.recycle = r.IntN(4) == 0 && s.order == spec.StartFirst
	return s
}

func behaviour(r *rand.Rand, first bool) string {
	if first && r.IntN(4) > 0 {
		return "good"
	}
	sum := 0
	for _, b := range behaviours {
		sum += b.weight
	}
	k := r.IntN(sum)
	for _, b := range behaviours {
		if k -= b.weight; k < 0 {
			return b.name
		}
	}
	panic("unreachable")
}

func newTrouble(r *rand.Rand) trouble {
	t := trouble{n: r.Uint64(), d: span(r, time.Millisecond, 20*time.Second)}
	// Most commands take some 20 to 60 steps; what comes early hits more often.
	t.at = r.IntN([]int{10, 30, 60, 120}[r.IntN(4)])
	switch r.IntN(5) {
	case 0, 1:
		t.kind = callTroubles[r.IntN(len(callTroubles))]
	case 2:
		t.kind = readTroubles[r.IntN(len(readTroubles))] + ":" + []string{"fail", "hang", "park", "park", "hard"}[r.IntN(5)]
	default:
		t.kind = worldTroubles[r.IntN(len(worldTroubles))]
	}
	return t
}

// span draws a time whose logarithm is even.
func span(r *rand.Rand, from, to time.Duration) time.Duration {
	d := from
	for d < to && r.IntN(4) > 0 {
		d *= 3
	}
	d = min(d, to)
	return d + time.Duration(r.Int64N(int64(d)))
}

func (t trouble) onCall() bool {
	for _, k := range callTroubles {
		if t.kind == k {
			return true
		}
	}
	return false
}

func (t trouble) onRead() (op, what string, ok bool) { return strings.Cut(t.kind, ":") }

func (s simService) spec() spec.Service {
	out := spec.Service{ID: s.id}
	out.Container.Image = s.id
	out.Container.StopGracePeriod = spec.Duration(2 * time.Second)
	p := &out.Policy
	p.Kind, p.PullPolicy, p.Replicas, p.Retain = spec.Worker, spec.PullMissing, s.replicas, 3
	p.Upgrade = spec.Upgrade{Order: s.order, DrainTimeout: spec.Duration(s.drain)}
	if s.before {
		p.Upgrade.Before = []string{"migrate"}
	}
	p.Health = spec.Health{Kind: spec.HealthUptime, Uptime: spec.Duration(time.Second), Interval: spec.Duration(5 * time.Second),
		Timeout: spec.Duration(2 * time.Second), UnhealthyAfter: s.after, StartTimeout: spec.Duration(8 * time.Second)}
	if s.recycle {
		p.Recycle = &spec.Recycle{Every: spec.Duration(6 * time.Second), Jitter: spec.Duration(2 * time.Second)}
	}
	if s.cron {
		p.Cron = &spec.Cron{Command: []string{"generate-cron"}}
	}
	if s.web {
		p.Kind = spec.Web
		p.HTTP = &spec.HTTP{Hosts: []string{fmt.Sprintf("%s%d.example.com", s.id, s.host)}, Path: "/", Listen: spec.Listen{Port: 80}}
		p.Health.Kind, p.Health.Uptime = spec.HealthHTTP, 0
		out.Container.HTTPPort = 8080
	}
	return out
}

func (s simService) String() string {
	kind := "worker"
	if s.web {
		kind = "web"
	}
	t := fmt.Sprintf("%s: %s, %s, %d replicas, unhealthy_after %d, drain %s, host %d", s.id, kind, s.order, s.replicas, s.after, s.drain, s.host)
	if s.before {
		t += ", upgrade.before"
	}
	if s.cron {
		t += ", cron"
	}
	if s.recycle {
		t += ", recycled"
	}
	return t
}

func (h history) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d", h.seed)
	if h.orderly {
		b.WriteString(", calls in order")
	}
	for _, s := range h.services {
		fmt.Fprintf(&b, "\n  service %s", s)
	}
	for n, a := range h.acts {
		fmt.Fprintf(&b, "\n  %d. %s", n+1, a.words(h))
		if a.define != nil {
			fmt.Fprintf(&b, "\n     after its definition has become: %s", a.define)
		}
		for _, t := range a.trouble {
			fmt.Fprintf(&b, "\n     after %d steps: %s (%d, %s)", t.at, t.kind, t.n%16, t.d)
		}
	}
	return b.String()
}

func (a act) words(h history) string {
	t := a.verb + " " + h.services[a.service].id
	if a.revision != "" {
		t += " to " + a.revision
	}
	if a.verb == "scale" {
		t += fmt.Sprintf(" to %d", a.replicas)
	}
	if a.timeout > 0 {
		t += fmt.Sprintf(" --timeout %s", a.timeout)
	}
	if a.overlap > 0 {
		t += fmt.Sprintf(" (%d steps after the one before, ended or not)", a.overlap)
	} else if a.gap > 0 {
		t += fmt.Sprintf(" (%s after the one before)", a.gap)
	}
	return t
}

// simSubnet is small, so that addresses come back soon.
var simSubnet = netip.MustParsePrefix("10.9.0.0/26")
