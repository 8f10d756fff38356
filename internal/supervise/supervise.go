// Package supervise keeps all services of the host at their goals, for as long
// as it runs. It decides nothing about them: each is tended by converge's loop,
// and what is here is who wakes it: events of the engine, goals that change,
// and time.
//
// cli uses it, through what cmd hands it. It uses converge, and engine and
// state through small interfaces.
package supervise

import (
	"context"
	"fmt"
	"sync"
	"time"

	"conductor/internal/converge"
	"conductor/internal/engine"
	"conductor/internal/event"
	"conductor/internal/goal"
	"conductor/internal/notify"
	"conductor/internal/state"
)

const (
	// rescan is how often it is looked which goals have changed.
	rescan = time.Second
	// sweeping is how often runs are looked for whose conductor was killed.
	sweeping = 15 * time.Second
	// atOnce is how many containers are created or started at once over the
	// host: more take the engine as long, one after the other.
	atOnce = 8
	// depends is how long a service waits for those that it depends on.
	depends = time.Minute
	// backlog is how many events of a service are kept while it is busy.
	backlog = 32
	// calming is how long a host counts as busy after containers were started.
	calming = 10 * time.Second
	// silence is how long the engine may be gone before anybody is told.
	silence = 2 * time.Second
)

// Host is what is supervised; converge.Host is it for real.
type Host interface {
	Tend(ctx context.Context, id string, feed converge.Feed) error
	SweepRuns(ctx context.Context) error
}

// Goals are what should be; state.Dir has them.
type Goals interface {
	Stamps() (map[string]state.Stamp, error)
	Goal(service string) (goal.Goal, bool, error)
}

// Events are those of containers with all the labels, as engine.Engine has them.
type Events func(ctx context.Context, labels map[string]string, ready func(), f func(engine.Event)) error

// Supervisor tends all services of a namespace.
type Supervisor struct {
	Namespace string
	Host      Host
	Goals     Goals
	Events    Events
	Emit      event.Sink
	HostName  string
	Tell      Teller // nil: nobody is told of changes
	Log       Log    // nil: of those of others neither
	// Ready is called once all services that there are at the beginning are
	// being tended; nil: nobody.
	Ready func()
	// Beat is called about once a second for as long as the loop goes on, and told
	// whether containers are being created or started, or were a moment ago. Late
	// is told how late each pass over a service begins. nil: nobody.
	Beat func(busy bool)
	Late func(by time.Duration)

	services map[string]*service
	starts   chan struct{}
	recycle  chan struct{}
	glances  *converge.Glances
	switches *converge.Switches
	running  sync.WaitGroup

	mu    sync.Mutex
	feeds map[string]*service // what hears events, by service
}

// service is one that is tended.
type service struct {
	stamp   state.Stamp
	feed    converge.Feed
	look    chan time.Time // has the last that was asked
	asking  sync.Mutex     // of who asks
	done    chan struct{}  // closed when it is tended no more
	settled chan struct{}  // closed when its goal was reached for the first time
	once    sync.Once
}

// Run tends all services until ctx is done. Everything that runs, runs on.
func (s *Supervisor) Run(ctx context.Context) error {
	s.services, s.feeds = map[string]*service{}, map[string]*service{}
	s.starts, s.recycle = make(chan struct{}, atOnce), make(chan struct{}, 1)
	s.glances, s.switches = converge.NewGlances(), &converge.Switches{}
	defer s.running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if err := s.scan(ctx); err != nil {
		return fmt.Errorf("supervise: %w", err)
	}
	s.running.Go(func() { s.listen(ctx) })
	s.running.Go(func() { s.sweep(ctx) })
	s.running.Go(func() { s.read(ctx) })
	if s.Ready != nil {
		s.Ready()
	}
	unreadable, busy := "", time.Now() // there may be much to start, as after a boot
	for tick := time.NewTicker(rescan); ; {
		if len(s.starts) > 0 {
			busy = time.Now()
		}
		if s.Beat != nil {
			s.Beat(time.Since(busy) < calming)
		}
		select {
		case <-ctx.Done():
			tick.Stop()
			return nil
		case <-tick.C:
		}
		text := ""
		if err := s.scan(ctx); err != nil {
			text = err.Error()
		}
		if text != unreadable && text != "" {
			s.warn(text)
		}
		unreadable = text
	}
}

// scan begins to tend goals that are new, and wakes those that have changed.
func (s *Supervisor) scan(ctx context.Context) error {
	stamps, err := s.Goals.Stamps()
	if err != nil {
		return err
	}
	for id, old := range s.services {
		select {
		case <-old.done:
			delete(s.services, id)
			s.mu.Lock()
			delete(s.feeds, id)
			s.mu.Unlock()
		default:
		}
	}
	for id, svc := range s.services {
		if stamp, ok := stamps[id]; !ok || stamp != svc.stamp {
			svc.stamp = stamp
			svc.wake()
		}
	}
	var fresh []string
	for id, stamp := range stamps {
		if s.services[id] != nil {
			continue
		}
		look := make(chan time.Time, 1)
		svc := &service{stamp: stamp, look: look, done: make(chan struct{}), settled: make(chan struct{})}
		svc.feed = converge.Feed{Events: make(chan engine.Event, backlog), Look: look, Starts: s.starts, Recycle: s.recycle, Glances: s.glances, Switches: s.switches,
			Settled: svc.reached, Fares: func(c converge.Condition) { s.fares(id, c) }, Late: s.Late}
		s.services[id] = svc
		fresh = append(fresh, id)
	}
	s.mu.Lock()
	for _, id := range fresh {
		s.feeds[id] = s.services[id]
	}
	s.mu.Unlock()
	for _, id := range fresh {
		s.tend(ctx, id, s.services[id])
	}
	return nil
}

// tend tends a service, once those that it depends on are there.
func (s *Supervisor) tend(ctx context.Context, id string, svc *service) {
	var first []*service
	if g, ok, err := s.Goals.Goal(id); err == nil && ok {
		for _, on := range g.Policy.DependsOn {
			if o := s.services[on]; o != nil && on != id {
				first = append(first, o)
			}
		}
	}
	s.running.Go(func() {
		defer close(svc.done)
		late := time.NewTimer(depends)
		defer late.Stop()
		for _, o := range first {
			select {
			case <-o.settled:
			case <-o.done:
			case <-late.C:
				late.Reset(0)
			case <-ctx.Done():
				return
			}
		}
		if err := s.Host.Tend(ctx, id, svc.feed); err != nil && ctx.Err() == nil {
			s.warn(fmt.Sprintf("%s is not looked after any more: %v", id, err))
		}
	})
}

// listen passes the engine's events on to whom they concern. Whenever some may
// have been missed, everybody looks anew.
func (s *Supervisor) listen(ctx context.Context) {
	labels := map[string]string{converge.LabelNamespace: s.Namespace, converge.LabelKind: converge.KindService}
	gone, told := time.Time{}, false
	for ctx.Err() == nil {
		err := s.Events(ctx, labels, func() {
			if told {
				s.note("the engine answers again")
				s.engine(notify.EngineBack, "")
			}
			gone, told = time.Time{}, false
			s.wakeAll()
		}, s.heard)
		if ctx.Err() != nil {
			return
		}
		if gone.IsZero() {
			gone = time.Now()
		}
		if !told && time.Since(gone) > silence {
			told = true
			s.engine(notify.EngineGone, err.Error())
			s.warn(fmt.Sprintf("the engine is gone, and nothing is looked after until it is back: %v", err))
		}
		select {
		case <-time.After(250 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// heard gives an event to its service. One that is too busy to hear it looks at
// everything anew.
func (s *Supervisor) heard(e engine.Event) {
	s.mu.Lock()
	svc := s.feeds[e.Labels[converge.LabelService]]
	s.mu.Unlock()
	if svc == nil {
		return
	}
	select {
	case svc.feed.Events <- e:
	default:
		svc.wake()
	}
}

func (s *Supervisor) wakeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, svc := range s.feeds {
		svc.wake()
	}
}

// wake asks the service to look at what is from now on.
func (svc *service) wake() {
	svc.asking.Lock()
	defer svc.asking.Unlock()
	select {
	case <-svc.look: // it is asked already
	default:
	}
	svc.look <- time.Now()
}

func (svc *service) reached(is bool) {
	if is {
		svc.once.Do(func() { close(svc.settled) })
	}
}

// sweep ends runs that nobody hears any more.
func (s *Supervisor) sweep(ctx context.Context) {
	for tick := time.NewTicker(sweeping); ; {
		_ = s.Host.SweepRuns(ctx) // what it cannot do now it does the next time
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
	}
}

func (s *Supervisor) warn(text string) { s.emit(event.Warning, text) }
func (s *Supervisor) note(text string) { s.emit(event.Note, text) }

func (s *Supervisor) emit(name event.Name, text string) {
	if s.Emit != nil {
		s.Emit(event.Event{Time: time.Now(), Event: name, Detail: text})
	}
}
