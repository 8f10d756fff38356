package converge

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

	"conductor/internal/engine"
	"conductor/internal/engine/enginetest"
	"conductor/internal/goal"
	"conductor/internal/health"
	"conductor/internal/plan"
	"conductor/internal/proxy"
	"conductor/internal/proxy/proxytest"
	"conductor/internal/spec"
	"conductor/internal/state/statetest"
)

const simNamespace = "conductor"

// sim is a host with all that is on it, and what is true of it, whatever the
// loop believes. Everything of it lives in one testing/synctest bubble.
type sim struct {
	h     history
	began time.Time
	next  func(plan.Input) plan.Output // plan.Next, or one that is broken on purpose

	eng   *enginetest.Fake
	store *statetest.Memory // never crashes: the disk

	mu          sync.Mutex
	px          *proxytest.Fake
	definitions map[string]simService
	images      map[string]string // image ID → revision
	insts       map[string]*inst  // by container ID
	byName      map[string]*inst
	served      proxy.Table // what the proxy serves, as it was at the last look
	inFlight    map[netip.AddrPort]int
	placed      map[string]time.Time // instances with files of secrets, and when those were asked for
	crontabs    map[string]string    // what cron reads, by service
	starts      map[slotID][]time.Time
	goals       map[string]goal.Goal // as they were at the last look
	put         map[string]int       // the number of calls when the goal was written
	reads       int                  // calls let through since the driver's last turn
	shakenAt    int                  // the beat of that
	shaken      int                  // the number of calls when something befell the world
	changes     int                  // calls that changed something
	beat        int                  // counts looks and troubles: what came first, within one instant too

	procs   []*process
	parked  []*call
	zombies []*call // calls whose caller is gone, and which may yet have their effect
	seq     int
	wake    chan struct{}

	armed      map[string]trouble // what befalls the next call of a method
	pending    []trouble          // what befalls the next call that fits
	engineDown time.Time          // until then
	diskFull   time.Time
	calm       bool // nothing goes wrong any more
	disturbed  bool // something has gone wrong in this history

	violated *violation
	verbose  bool
	lines    []string
}

// violation is an invariant that does not hold.
type violation struct {
	invariant int // as docs/ARCHITECTURE.md numbers them; 0: a command does not come to its end, or not to the right one
	text      string
	kind      string // the text without what it is about
}

func (v *violation) Error() string { return fmt.Sprintf("invariant %d: %s", v.invariant, v.text) }

// inst is what is true of one container.
type inst struct {
	id, name, service, release, revision, kind string
	slot, epoch                                int
	addr                                       netip.AddrPort

	fresh       bool // it is no restart, says its label
	running     bool
	started     time.Time
	runs        int       // starts
	wellAt      time.Time // zero: never
	sick        bool
	stopped     bool // by a call of Stop
	stoppedBy   *process
	wasWell     bool      // when it was stopped
	disturbedAt time.Time // when the world last did something to it
	beat        int       // of that
	everIn      bool
	outAt       time.Time // since when the proxy does not serve it
	toldOutAt   time.Time // since when it says so, where it lied
	removed     bool
	vanished    bool // somebody else removed it
	ghost       bool // its create took effect when nobody waited for it any more
	heard       map[*process]heard
}

// heard is what a process knows of an instance's health.
type heard struct {
	run      int
	good     bool
	failures int
}

func newSim(h history, next planner) *sim {
	s := &sim{
		h: h, began: time.Now(),
		eng: enginetest.NewFake(), px: proxytest.NewFake(), store: statetest.NewMemory(),
		definitions: map[string]simService{}, images: map[string]string{},
		insts: map[string]*inst{}, byName: map[string]*inst{}, inFlight: map[netip.AddrPort]int{},
		placed: map[string]time.Time{}, crontabs: map[string]string{}, starts: map[slotID][]time.Time{}, goals: map[string]goal.Goal{}, put: map[string]int{},
		wake: make(chan struct{}, 1), armed: map[string]trouble{},
	}
	if next == nil {
		next = soundPlanner
	}
	s.next = next(s)
	s.eng.Behave = s.behave
	for _, d := range h.services {
		s.definitions[d.id] = d
	}
	for _, a := range h.acts {
		if a.revision == "" || strings.HasPrefix(a.revision, "missing") {
			continue
		}
		ref := h.services[a.service].id + ":" + a.revision
		im := s.eng.AddImage(ref, ref)
		s.images[im.ID] = a.revision
		if strings.HasPrefix(a.revision, "pulled") {
			_ = s.eng.Untag(context.Background(), ref)
			s.eng.Publish(ref, ref)
		}
	}
	ctx := context.Background()
	_, _ = s.eng.Network(ctx, simNamespace, simSubnet, nil)
	for _, n := range []string{"aaa", "zzz"} { // somebody else's
		if _, err := s.eng.AddForeign(n, "", netip.Addr{}); err != nil {
			panic(err)
		}
	}
	// Another installation's, of the same service.
	id, err := s.eng.Create(ctx, engine.Create{Name: "other.shop", Image: s.eng.AddImage("other", "other").ID,
		Labels: map[string]string{LabelNamespace: "other", LabelService: "shop", LabelKind: KindService, LabelRelease: "x", LabelSlot: "1"}})
	if err == nil {
		err = s.eng.Start(ctx, id)
	}
	if err != nil {
		panic(err)
	}
	return s
}

func (s *sim) definitionSet() spec.Set {
	set := spec.Set{Services: map[string]spec.Service{}}
	for id, d := range s.definitions {
		set.Services[id] = d.spec()
	}
	return set
}

// behave is how the process of a container behaves: its revision says so.
func (s *sim) behave(c engine.Create) enginetest.Behaviour {
	rev := s.images[c.Image]
	if s.mended() {
		rev = "good"
	}
	switch {
	case c.Labels[LabelNamespace] != simNamespace:
		return enginetest.Behaviour{}
	case c.Labels[LabelKind] == KindRun:
		b := enginetest.Behaviour{Exits: true}
		if strings.HasPrefix(rev, "spoils") {
			b.Code = 3
		}
		return b
	case strings.HasPrefix(rev, "exits"):
		return enginetest.Behaviour{Exits: true, Code: 1, Stderr: "no database\n"}
	case strings.HasPrefix(rev, "oom"):
		return enginetest.Behaviour{Exits: true, OOM: true, Code: 137}
	case strings.HasPrefix(rev, "cannot"):
		return enginetest.Behaviour{CannotRun: "exec: \"bin/server\": not found"}
	case strings.HasPrefix(rev, "stubborn"):
		return enginetest.Behaviour{IgnoresTerm: true}
	}
	return enginetest.Behaviour{TermAfter: s.jitter("term", c.Name) * 50}
}

// mended: all releases are good in the end, or converging would never come to
// one: with no replicas a bad one can be committed.
func (s *sim) mended() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calm
}

// jitter is a time below 4 ms that depends on the words and the seed alone. It
// keeps things from happening at the same instant, in an order nobody knows.
func (s *sim) jitter(words ...string) time.Duration {
	x := s.h.seed ^ 0xcbf29ce484222325
	for _, w := range words {
		for i := range len(w) {
			x = (x ^ uint64(w[i])) * 0x100000001b3
		}
		x ^= x >> 29
	}
	x ^= x >> 32
	x *= 0xd6e8feb86659fd93
	x ^= x >> 32
	return time.Duration(100_000 + x%3_900_000)
}

// created notes a container.
func (s *sim) created(id string, c engine.Create, ghost bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := c.Labels
	i := &inst{id: id, name: c.Name, service: l[LabelService], release: l[LabelRelease], revision: l[LabelRevision], kind: l[LabelKind],
		ghost: ghost, fresh: l[LabelAttempt] == "", heard: map[*process]heard{}}
	i.slot, _ = strconv.Atoi(l[LabelSlot])
	i.epoch, _ = strconv.Atoi(l[LabelEpoch])
	port, _ := strconv.Atoi(l[LabelPort])
	i.addr = netip.AddrPortFrom(c.Address, uint16(port))
	s.insts[id], s.byName[c.Name] = i, i
}

// started notes a start that took effect, and what will become of it.
func (s *sim) started(i *inst) {
	now := time.Now()
	s.mu.Lock()
	i.started, i.running, i.stopped = now, true, false
	i.runs++
	i.sick = false
	rev := s.images[s.imageOf(i)]
	if s.calm {
		rev = "good"
	}
	boot := s.jitter("boot", i.name) * 10
	if strings.HasPrefix(rev, "slow") {
		boot += time.Second + s.jitter("slow", i.name)*500
	}
	i.wellAt = now.Add(boot)
	if strings.HasPrefix(rev, "never") {
		i.wellAt = time.Time{}
	}
	if !s.definitions[i.service].web {
		i.wellAt = now.Add(time.Second) // it has only to run
	}
	run, life := i.runs, s.jitter("life", i.name, strconv.Itoa(i.runs))*2000
	s.mu.Unlock()
	switch {
	case i.kind != KindService:
	case strings.HasPrefix(rev, "late"): // ends while it is starting
		time.AfterFunc(s.jitter("late", i.name)*20, func() { s.ifRun(i, run, func() { s.die(i, 2, false) }) })
		s.mu.Lock()
		i.wellAt = time.Time{}
		s.mu.Unlock()
	case strings.HasPrefix(rev, "fades"):
		time.AfterFunc(boot+life, func() { s.ifRun(i, run, func() { s.turn(i, true) }) })
	case strings.HasPrefix(rev, "crashes"):
		time.AfterFunc(boot+life/20, func() { s.ifRun(i, run, func() { s.die(i, 1, false) }) })
	case strings.HasPrefix(rev, "dies"):
		time.AfterFunc(boot+life, func() { s.ifRun(i, run, func() { s.die(i, 1, false) }) })
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.look()
}

func (s *sim) imageOf(i *inst) string {
	made, _ := s.eng.Made(i.id)
	return made.Image
}

func (s *sim) ifRun(i *inst, run int, f func()) {
	s.mu.Lock()
	ok := !s.calm && i.running && i.runs == run
	s.mu.Unlock()
	if ok {
		f()
	}
}

// disturb notes that the world does something to an instance. s.mu is held.
func (s *sim) disturb(i *inst) {
	s.beat++
	i.disturbedAt, i.beat, s.disturbed = time.Now(), s.beat, true
}

// die ends an instance's process as the world does.
func (s *sim) die(i *inst, code int, oom bool) {
	s.mu.Lock()
	s.disturb(i)
	s.mu.Unlock()
	s.log("! %s dies (%d)", i.name, code)
	s.eng.Die(i.id, code, oom)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.look()
}

func (s *sim) turn(i *inst, sick bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i.sick = sick
	s.disturb(i)
	s.logLocked("! %s turns sick: %v", i.name, sick)
}

// well: a probe of the instance would be answered well.
func (s *sim) well(i *inst) bool {
	return i != nil && i.running && !i.removed && !i.sick && !i.wellAt.IsZero() && !time.Now().Before(i.wellAt)
}

// look brings what is known of the containers up to date. s.mu is held.
func (s *sim) look() {
	live := map[string]bool{}
	for _, c := range s.eng.Containers() {
		i := s.insts[c.ID]
		if i == nil {
			continue
		}
		live[c.ID] = true
		running := c.State == engine.Running
		if i.running && !running {
			delete(s.inFlight, i.addr) // its connections are cut
			s.px.SetInFlight(i.addr, 0)
		}
		i.running = running
	}
	for id, i := range s.insts {
		if !live[id] && !i.removed {
			i.removed, i.running = true, false
			delete(s.inFlight, i.addr)
			s.px.SetInFlight(i.addr, 0)
		}
	}
}

// requests puts requests in flight on an instance that is served; they end
// after d, 0: never by themselves.
func (s *sim) requests(i *inst, n int, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ask(i, n, d)
}

func (s *sim) ask(i *inst, n int, d time.Duration) {
	s.inFlight[i.addr] += n
	s.px.SetInFlight(i.addr, s.inFlight[i.addr])
	s.logLocked("! %d requests at %s for %s", n, i.name, d)
	if d == 0 {
		return
	}
	run := i.runs
	time.AfterFunc(d, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if i.running && i.runs == run && s.inFlight[i.addr] >= n {
			s.inFlight[i.addr] -= n
			s.px.SetInFlight(i.addr, s.inFlight[i.addr])
		}
	})
}

// Probe answers from what is true.
func (p *process) Probe(ctx context.Context, t health.Instance, h spec.Health) health.Result {
	s := p.sim
	d := s.jitter("probe", t.Name, strconv.Itoa(p.n), time.Since(s.began).String())
	select {
	case <-time.After(d):
	case <-ctx.Done():
		return health.Result{At: time.Now(), Text: "cut short"}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if p.dead || ctx.Err() != nil {
		return health.Result{At: time.Now(), Text: "cut short"}
	}
	i := s.insts[t.Container]
	r := health.Result{At: time.Now(), Text: "not well"}
	if i == nil {
		return r
	}
	switch h.Kind {
	case spec.HealthUptime:
		r.OK = i.running && !time.Now().Before(t.StartedAt.Add(h.Uptime.D()))
	default:
		if i.running && i.addr != t.Addr {
			s.violateLocked(1, "%s is probed at %s, and is at %s", i.name, t.Addr, i.addr)
		}
		r.OK = s.well(i)
	}
	if r.OK {
		r.Text = "well"
	}
	k := i.heard[p]
	if k.run != i.runs {
		k = heard{run: i.runs}
	}
	if r.OK {
		k.good, k.failures = true, 0
	} else {
		k.failures++
	}
	i.heard[p] = k
	return r
}

func (s *sim) log(format string, args ...any) {
	if !s.verbose {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.logLocked(format, args...)
}

func (s *sim) logLocked(format string, args ...any) {
	if s.verbose {
		s.lines = append(s.lines, fmt.Sprintf("%12.6f  ", time.Since(s.began).Seconds())+fmt.Sprintf(format, args...))
	}
}

func (s *sim) violate(invariant int, format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.violateLocked(invariant, format, args...)
}

func (s *sim) violateLocked(invariant int, format string, args ...any) {
	if s.violated == nil {
		s.violated = &violation{invariant, fmt.Sprintf(format, args...), format}
		s.logLocked("VIOLATED %s", s.violated)
		s.ring()
	}
}

func (s *sim) ring() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// instances are those of a service that exist, ordered by name. s.mu is held.
func (s *sim) instances(service string) []*inst {
	var out []*inst
	for _, i := range s.insts {
		if !i.removed && i.kind == KindService && (service == "" || i.service == service) {
			out = append(out, i)
		}
	}
	slices.SortFunc(out, func(a, b *inst) int { return strings.Compare(a.name, b.name) })
	return out
}

var errDead = errors.New("the process is dead")
