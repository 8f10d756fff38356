package fleet

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"conductor/internal/event"
	"conductor/internal/fault"
	"conductor/internal/rollout"
)

// Deploy brings the revision to all hosts. The outcome names each host's state
// also beside an error, which is the first failure.
func (f *Fleet) Deploy(ctx context.Context, d Deploy) (Outcome, error) {
	l := f.loop(d)
	defer l.leave()
	if err := l.preflight(ctx, l.attend); err != nil {
		return l.outcome(), err
	}
	l.tell("taking the locks")
	if err := l.hold(); err != nil {
		return l.outcome(), err
	}
	held := time.Now()
	if err := l.hook(ctx, BeforeDeploy, "", nil); err != nil {
		return l.outcome(), err
	}
	if time.Since(held) > look { // that was a while ago, or the hook has changed something
		for _, h := range l.hosts {
			h.stale = true
		}
	}
	from := l.from()
	err := l.run(ctx)
	if err != nil && d.Back {
		l = l.back(ctx, from)
	}
	var targets []HostOutcome
	if err == nil && d.Targets != nil {
		targets, err = d.Targets(ctx)
	}
	after := AfterDeploy
	if err != nil {
		after = OnFailure
	}
	if e := l.hook(context.WithoutCancel(ctx), after, "", err); e != nil {
		l.say(event.Warning, "", fmt.Sprintf("hook %s: %v", after, e), "")
		if err == nil {
			err = e
		}
	}
	l.lookAgain(context.WithoutCancel(ctx))
	o := l.outcome()
	o.Hosts = append(o.Hosts, targets...)
	return o, err
}

// lookAgain looks at hosts that were given up and still answer: they may not run
// any more what they ran when they were last looked at.
func (l *loop) lookAgain(ctx context.Context) {
	ctx, cancel := context.WithTimeoutCause(ctx, lastLook, fault.ErrTimeout)
	defer cancel()
	var looking sync.WaitGroup
	for _, h := range l.hosts {
		if !h.stale || errors.Is(h.err, fault.ErrUnreachable) {
			continue
		}
		looking.Go(func() {
			seen, err := l.Hosts.Look(ctx, h.name, Question{Service: l.d.Service})
			if err != nil {
				seen.Live = unknown
			}
			h.seen = seen
		})
	}
	looking.Wait()
}

// from is what all hosts run before the deploy, "" where they differ.
func (l *loop) from() (revision string) {
	for _, h := range l.hosts {
		switch {
		case h.err != nil:
		case revision == "":
			revision = h.seen.Live
		case h.seen.Live != revision && h.seen.Live != l.d.Revision:
			return ""
		}
	}
	return revision
}

// back has the hosts go back to the revision, in the same way as they came. The
// loop that it returns knows how the hosts are now, and why it was begun.
func (l *loop) back(ctx context.Context, to string) *loop {
	if to == "" || to == l.d.Revision {
		l.say(event.Warning, "", "the hosts did not all run one other revision before: nothing is rolled back", "")
		return l
	}
	d := l.d
	d.Revision, d.Rollback, d.Test, d.Migrate, d.MaxFailed, d.Confirm, d.Strategy.First = to, true, nil, nil, len(l.hosts), nil, ""
	b := l.Fleet.loop(d)
	b.began, b.lost = l.began, l.lost
	for n, h := range b.hosts {
		h.seen, h.changed, h.stale = l.hosts[n].seen, l.hosts[n].changed, true
		if errors.Is(l.hosts[n].err, fault.ErrUnreachable) {
			h.err = l.hosts[n].err
		}
	}
	l.say(event.Note, "", "going back to "+to, "the deploy failed")
	if err := b.run(context.WithoutCancel(ctx)); err != nil {
		l.say(event.Warning, "", fmt.Sprintf("going back to %s: %v", to, err), "")
	}
	for n, h := range b.hosts {
		if h.err == nil { // it is well, and does not run what it should
			h.err = l.hosts[n].err
		}
	}
	return b
}

// Plan is what a deploy would begin with: what each host runs, and the steps in
// their order if all goes well.
func (f *Fleet) Plan(ctx context.Context, d Deploy) ([]rollout.Step, Outcome, error) {
	l := f.loop(d)
	if err := l.preflight(ctx, l.look); err != nil {
		return nil, l.outcome(), err
	}
	if err := l.observe(ctx); err != nil {
		return nil, l.outcome(), err
	}
	return rollout.Foresee(l.view()), l.outcome(), nil
}

func (f *Fleet) loop(d Deploy) *loop {
	l := &loop{Fleet: f, d: d, done: make(chan result), over: make(chan struct{}), began: time.Now()}
	l.input = rollout.Input{Strategy: d.Strategy, MaxFailed: d.MaxFailed, Test: len(d.Test) > 0, Migrate: len(d.Migrate) > 0}
	for _, name := range d.Hosts {
		l.hosts = append(l.hosts, &host{name: name})
	}
	return l
}

// look asks how the host is.
func (l *loop) look(ctx context.Context, h *host) (err error) {
	h.seen, err = l.Hosts.Look(ctx, h.name, l.whole())
	return err
}

// whole is the question for all that may keep a host from an upgrade.
func (l *loop) whole() Question {
	return Question{Service: l.d.Service, Revision: l.d.Revision, Whole: true}
}

// preflight looks at all hosts and the balancer at once, and says everything
// that is in the way. The first host's lock is on its way from when that host has
// answered.
func (l *loop) preflight(ctx context.Context, look func(context.Context, *host) error) error {
	answered := l.looks()
	var looking sync.WaitGroup
	errs := make([]error, len(l.hosts))
	for n, h := range l.hosts {
		looking.Go(func() {
			began := time.Now()
			if errs[n] = look(ctx, h); errs[n] == nil {
				errs[n] = l.fit(h, h.seen, began)
			}
			if h == l.first() && h.take != nil && errs[n] == nil {
				h.take()
			}
			answered(h)
		})
	}
	at, balancerErr := l.balancerState(ctx)
	looking.Wait()
	l.at = at
	for n, h := range l.hosts {
		if errs[n] != nil {
			l.giveUp(h, errs[n], "before the deploy")
		}
	}
	l.versions()
	if err := errors.Join(l.inStep(), l.kept(), balancerErr, l.balanced()); err != nil {
		return errors.Join(append(errs, err)...)
	}
	if l.tooMany() {
		return errors.Join(errs...)
	}
	return nil // with max_failed it goes on without some, and does not end well
}

// versions warns of conductors that are of another version than this one, once
// for each version.
func (l *loop) versions() {
	at := map[string][]string{}
	for _, h := range l.hosts {
		if v := h.seen.Version; v != "" && v != l.Version {
			at[v] = append(at[v], h.name)
		}
	}
	for _, v := range slices.Sorted(maps.Keys(at)) {
		l.say(event.Warning, "", fmt.Sprintf("conductor is %s on %s, and %s here", v, strings.Join(at[v], ", "), l.Version), "")
	}
}

// balanced: the balancer knows all hosts of a service that takes requests, or
// none. One that it does not know would get its revision unseen, or none at all.
func (l *loop) balanced() error {
	if !slices.ContainsFunc(l.hosts, func(h *host) bool { return h.seen.Routed }) {
		return nil
	}
	var knows, lacks []string
	for _, name := range slices.Concat(l.d.Hosts, l.d.Others) {
		if _, ok := l.at[name]; ok {
			knows = append(knows, name)
		} else {
			lacks = append(lacks, name)
		}
	}
	if len(knows) == 0 || len(lacks) == 0 {
		return nil
	}
	return fault.New(fault.ErrDefinition, "add them to the balancer's configuration, or let fleet.yml call them as it does; or take them from on: of the service",
		"%s runs on hosts that the balancer does not know: it knows %s, and not %s", l.d.Service, strings.Join(knows, ", "), strings.Join(lacks, ", "))
}

// fit says why a host cannot take part.
func (l *loop) fit(h *host, s Seen, asked time.Time) error {
	// Its clock was read between the question and the answer.
	if skew := max(asked.Sub(s.Time), time.Until(s.Time)); skew > maxSkew {
		l.say(event.Warning, h.name, fmt.Sprintf("its clock is off by %s", skew.Round(time.Second)), "")
	}
	if len(s.Troubles) > 0 {
		var errs []error
		for _, t := range s.Troubles {
			errs = append(errs, errors.New(t))
		}
		return fault.New(fault.ErrHost, "conductor doctor on the host says what to do", "%s cannot upgrade: %w", h.name, errors.Join(errs...))
	}
	return nil
}

// inStep: all hosts have the same definition, and that of here where they have
// theirs from here.
func (l *loop) inStep() error {
	var first *host
	for _, h := range l.hosts {
		switch {
		case h.err != nil:
		case h.seen.Definition == "":
			return fault.New(fault.ErrDefinition, "conductor sync sends definitions to the hosts", "%s: no definition of %s is there", h.name, l.d.Service)
		case l.d.Definition != "" && h.seen.Definition != l.d.Definition && slices.Contains(l.d.Synced, h.name):
			return fault.New(fault.ErrDefinition, "conductor sync --plan shows the difference, conductor sync sends what is here",
				"the definition of %s on %s is not the one that is here", l.d.Service, h.name)
		case first == nil:
			first = h
		case h.seen.Definition != first.seen.Definition:
			return fault.New(fault.ErrDefinition, "conductor sync --plan shows the difference, conductor sync sends what is here",
				"the definitions of %s differ on %s and %s", l.d.Service, first.name, h.name)
		}
	}
	return nil
}

// kept: all hosts have the release that a rollback goes to.
func (l *loop) kept() error {
	var errs []error
	for _, h := range l.hosts {
		if !l.d.Rollback || h.err != nil || h.seen.Live == l.d.Revision || slices.Contains(h.seen.Kept, l.d.Revision) {
			continue
		}
		has := "none at all"
		if len(h.seen.Kept) > 0 {
			has = strings.Join(h.seen.Kept, ", ")
		}
		errs = append(errs, fault.New(fault.ErrUsage, "conductor deploy brings any revision to the hosts", "%s has kept no release of %s to go back to; it has kept %s", h.name, l.d.Revision, has))
	}
	return errors.Join(errs...)
}

// outcome says what each host runs now.
func (l *loop) outcome() Outcome {
	o := Outcome{Service: l.d.Service, Revision: l.d.Revision, Took: time.Since(l.began)}
	for _, h := range l.hosts {
		s, balanced := l.at[h.name]
		out := HostOutcome{Host: h.name, Revision: h.seen.Live, Balanced: balanced, In: s.In, Away: s.Away, Changed: h.changed, Err: h.err}
		if h.err != nil {
			out.Failure, out.Hint = h.err.Error(), fault.Hint(h.err)
		}
		if errors.Is(h.err, fault.ErrUnreachable) {
			out.Revision = unknown
		}
		o.Hosts = append(o.Hosts, out)
	}
	return o
}
