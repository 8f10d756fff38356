package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"conductor/internal/balancer"
	"conductor/internal/event"
	"conductor/internal/fault"
	"conductor/internal/rollout"
)

// Recyclers are hosts that can be made fresh, too. What they tell on the way
// goes to emit.
type Recyclers interface {
	Hosts
	// Recycling tells when the host was last recycled. A note, if there is one,
	// is taken first.
	Recycling(ctx context.Context, host string, note RecycleNote) (Recycling, error)
	// HoldAll is Hold for several services at once, which are not waited for.
	HoldAll(ctx context.Context, host string, services []string) (Held, error)
	// Refresh upgrades the packages there, Images fetches the images of what runs
	// again and lets go of others, Restart replaces a service's instances.
	Refresh(ctx context.Context, host string, emit event.Sink) error
	Images(ctx context.Context, host string, emit event.Sink) error
	Restart(ctx context.Context, host, service string, emit event.Sink) error
	// Reboot has it boot anew, and does not wait for that.
	Reboot(ctx context.Context, host string) error
}

// RecycleNote is what a host notes of its recycling.
type RecycleNote string

const (
	RecycleBegun RecycleNote = "begun"
	RecycleDone  RecycleNote = "done"
)

// Recycling is what a host knows of its recycling.
type Recycling struct {
	Last  time.Time `json:"last,omitzero"`  // when it was done; zero: never
	Begun time.Time `json:"begun,omitzero"` // when it was begun that is not done; zero: none
	Boot  string    `json:"boot"`           // the ID of its boot
}

// Placed is a service, and the hosts that have it.
type Placed struct {
	Service      string
	Hosts        []string
	DrainTimeout time.Duration // 0: the default
}

// Recycle is what is asked for.
type Recycle struct {
	Hosts    []string // of which one is chosen, in the fleet's order
	Services []Placed // all of the fleet
	Reboot   bool
}

// Recycled is the host that was chosen, and what becomes of it.
type Recycled struct {
	Host     string         `json:"host"`
	Last     time.Time      `json:"last,omitzero"`  // when it was recycled before
	Begun    time.Time      `json:"begun,omitzero"` // one was broken off then
	Services []string       `json:"services"`       // that run there
	Steps    []rollout.Step `json:"steps"`
	Took     time.Duration  `json:"-"`
}

const (
	// bootTimeout is how long a host may take to boot, wellTimeout how long its
	// engine, proxy and services may take to be well after a change.
	bootTimeout = 10 * time.Minute
	wellTimeout = 2 * time.Minute
)

// Steps of a recycling, beside those of a deploy.
const (
	refreshPackages rollout.Do = "packages"
	reboot          rollout.Do = "reboot"
	refreshImages   rollout.Do = "images"
	restart         rollout.Do = "restart"
)

// recycling is one that is under way.
type recycling struct {
	*Fleet
	hosts Recyclers
	ask   Recycle
	Recycled
	was Recycling
	at  map[string]balancer.Server
	own func() // releases the host's own locks
}

// PlanRecycle tells which host is next and what would be done, or why not.
func (f *Fleet) PlanRecycle(ctx context.Context, hosts Recyclers, ask Recycle) (Recycled, error) {
	r := &recycling{Fleet: f, hosts: hosts, ask: ask}
	err := r.choose(ctx)
	if err == nil {
		err = r.check(ctx)
	}
	return r.Recycled, err
}

// Recycle takes the one host whose recycling is longest ago out of the balancer,
// makes it fresh, and puts it in again. One whose recycling was broken off comes
// first. When a step fails the host stays out.
func (f *Fleet) Recycle(ctx context.Context, hosts Recyclers, ask Recycle) (Recycled, error) {
	r := &recycling{Fleet: f, hosts: hosts, ask: ask}
	began := time.Now()
	if err := r.choose(ctx); err != nil {
		return r.Recycled, err
	}
	ctx, release, err := r.hold(ctx)
	defer release()
	if err == nil {
		err = r.check(ctx) // nobody changes it from now on
	}
	if err == nil {
		err = r.do(ctx)
	}
	r.Took = time.Since(began)
	return r.Recycled, err
}

// choose finds the host whose turn it is.
func (r *recycling) choose(ctx context.Context) error {
	all := make([]Recycling, len(r.ask.Hosts))
	errs := make([]error, len(r.ask.Hosts))
	var asking sync.WaitGroup
	for n, h := range r.ask.Hosts {
		asking.Go(func() { all[n], errs[n] = r.hosts.Recycling(ctx, h, "") })
	}
	asking.Wait()
	next := -1
	for n, h := range r.ask.Hosts {
		if errs[n] != nil {
			r.say(event.Warning, h, fmt.Sprintf("it is passed over: %v", errs[n]))
		} else if next < 0 || before(all[n], all[next]) {
			next = n
		}
	}
	if next < 0 {
		return errors.Join(errs...)
	}
	r.Host, r.was = r.ask.Hosts[next], all[next]
	r.Last, r.Begun = r.was.Last, r.was.Begun
	return nil
}

// before says whose turn is first.
func before(a, b Recycling) bool {
	if a.Begun.IsZero() != b.Begun.IsZero() {
		return !a.Begun.IsZero()
	}
	return a.Last.Before(b.Last)
}

// placed are the services of the host that was chosen.
func (r *recycling) placed() (here []Placed) {
	for _, p := range r.ask.Services {
		if slices.Contains(p.Hosts, r.Host) {
			here = append(here, p)
		}
	}
	return here
}

// hold takes the locks of the host's services, on all of their hosts. The
// context ends when one is lost.
func (r *recycling) hold(ctx context.Context) (context.Context, func(), error) {
	ctx, cancel := context.WithCancelCause(ctx)
	var releases []func()
	release := func() {
		cancel(nil)
		for _, f := range releases {
			f()
		}
		if r.own != nil {
			r.own()
		}
	}
	shared := map[string][]string{}
	for _, p := range r.placed() {
		for _, h := range p.Hosts {
			shared[h] = append(shared[h], p.Service)
		}
	}
	names := make([]string, 0, len(shared))
	for h := range shared {
		names = append(names, h)
	}
	slices.Sort(names)
	for _, h := range names {
		if h == r.Host {
			if err := r.holdOwn(ctx); err != nil {
				return ctx, release, err
			}
			continue
		}
		held, err := r.hosts.HoldAll(ctx, h, shared[h])
		if err != nil {
			return ctx, release, fmt.Errorf("%s: %w", h, err)
		}
		releases = append(releases, held.Release)
		go func() {
			select {
			case why := <-held.Lost:
				cancel(fault.New(fault.ErrUnreachable, cmp.Or(fault.Hint(why), "run it again when the host answers"), "the lock on %s is lost: %w", h, why))
			case <-ctx.Done():
			}
		}()
	}
	return ctx, release, nil
}

// holdOwn takes the locks on the host itself. That they are lost is known by the
// steps there, which are refused without.
func (r *recycling) holdOwn(ctx context.Context) error {
	var services []string
	for _, p := range r.placed() {
		services = append(services, p.Service)
	}
	if len(services) == 0 {
		return nil
	}
	held, err := r.hosts.HoldAll(ctx, r.Host, services)
	if err != nil {
		return fmt.Errorf("%s: %w", r.Host, err)
	}
	r.own = held.Release
	return nil
}

// check refuses where nobody would stand in for the host, and works out what is
// to be done.
func (r *recycling) check(ctx context.Context) error {
	if r.Balancer != nil {
		at, err := r.Balancer.State(ctx)
		if err != nil {
			return fmt.Errorf("look at the balancer: %w", err)
		}
		r.at = at
	}
	self, known := r.at[r.Host]
	if known && !self.In && !self.Away && r.was.Begun.IsZero() {
		return r.refused("bring that to its end (conductor deploy), or put it in: conductor fleet admit "+r.Host,
			"it is out of the balancer already, and no recycling took it out")
	}
	r.Services = []string{}
	var troubles []error
	for _, p := range r.placed() {
		seen, err := r.hosts.Look(ctx, r.Host, Question{Service: p.Service})
		if err != nil {
			return fmt.Errorf("%s: %w", r.Host, err)
		}
		if seen.Live == "" {
			continue // not deployed there
		}
		r.Services = append(r.Services, p.Service)
		troubles = append(troubles, r.spare(ctx, p)...)
	}
	if known && self.In && !othersServe(r.at, r.Host) {
		troubles = append(troubles, errors.New("no other host is in the balancer, and well"))
	}
	if err := errors.Join(unique(troubles)...); err != nil {
		return r.refused("put that right first; conductor fleet status shows all hosts", "nobody would stand in for it: %w", err)
	}
	for _, s := range r.steps() {
		r.Steps = append(r.Steps, s.Step)
	}
	return nil
}

func (r *recycling) refused(hint, format string, args ...any) error {
	return fault.New(fault.ErrUnhealthy, hint, "recycle %s: %w", r.Host, fmt.Errorf(format, args...))
}

// spare is why nobody would serve a service meanwhile.
func (r *recycling) spare(ctx context.Context, p Placed) (troubles []error) {
	others := slices.DeleteFunc(slices.Clone(p.Hosts), func(h string) bool { return h == r.Host })
	if len(others) == 0 {
		return []error{fmt.Errorf("it is the only host of %s", p.Service)}
	}
	found := make([]error, len(others))
	var looking sync.WaitGroup
	for n, h := range others {
		looking.Go(func() {
			seen, err := r.hosts.Look(ctx, h, Question{Service: p.Service})
			s, known := r.at[h]
			switch {
			case err != nil:
				found[n] = fmt.Errorf("%s: %w", h, err)
			case !seen.Sound:
				found[n] = fmt.Errorf("%s: %s is %s there", h, p.Service, orElseWord(seen.State, "not deployed"))
			case known && !s.In:
				found[n] = fmt.Errorf("%s is out of the balancer", h)
			case known && !s.Up:
				found[n] = fmt.Errorf("%s is not well at the balancer (%s)", h, s.Says)
			}
		})
	}
	looking.Wait()
	return slices.DeleteFunc(found, func(err error) bool { return err == nil })
}

func orElseWord(word, other string) string {
	if word == "" {
		return other
	}
	return word
}

// unique leaves out what is said already.
func unique(errs []error) (all []error) {
	said := map[string]bool{}
	for _, err := range errs {
		if !said[err.Error()] {
			said[err.Error()] = true
			all = append(all, err)
		}
	}
	return all
}

// say emits an event of a host.
func (r *recycling) say(name event.Name, host, detail string) {
	r.Emit(event.Event{Time: time.Now(), Event: name, Host: host, Detail: strings.TrimSpace(detail)})
}
