package fleet

import (
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

// Join is a host that is to run what the others of its services run.
type Join struct {
	Host     string
	Services []Deploy // of the host, each with all of its hosts; no revision
}

// Joined is what became of a service on the host that joins.
type Joined struct {
	Service  string `json:"service"`
	Revision string `json:"revision,omitempty"` // that the others run
	Changed  bool   `json:"changed"`
	// Left is why the service was left alone; empty: it runs.
	Left string `json:"left,omitempty"`

	differ bool // what the others run is not known, so the host cannot be whole
	marks  []Mark
}

// PlanJoin tells what the host would run, and changes nothing.
func (f *Fleet) PlanJoin(ctx context.Context, j Join) (all []Joined) {
	for _, d := range j.Services {
		all = append(all, f.followed(ctx, j.Host, d))
	}
	return all
}

// Join has the host run what the others of its services run, and lets it into
// the balancer, if that knows it, when it answers. Where the others differ the
// service is left, and so is the balancer: that is an error, told when all else
// is done. Running it again is safe.
func (f *Fleet) Join(ctx context.Context, j Join) (all []Joined, err error) {
	whole := context.WithoutCancel(ctx)
	if err := f.Withhold(whole, j.Host, false); err != nil {
		return nil, err
	}
	var left []error
	for _, d := range j.Services {
		if ctx.Err() != nil {
			return all, fmt.Errorf("%s: %w", j.Host, context.Cause(ctx))
		}
		joined, err := f.join(ctx, j.Host, d)
		all = append(all, joined)
		if err != nil {
			return all, fmt.Errorf("%s: %s: %w", j.Host, d.Service, err)
		}
		if joined.Left != "" {
			f.Emit(event.Event{Time: time.Now(), Event: event.Note, Host: j.Host, Service: d.Service, Detail: "left alone: " + joined.Left})
		}
		if joined.differ {
			left = append(left, fmt.Errorf("%s is left alone: %s", d.Service, joined.Left))
		}
	}
	if err := errors.Join(left...); err != nil {
		return all, fault.New(fault.ErrUnhealthy, "deploy it to all hosts (conductor deploy), or run this again when they agree; conductor fleet status shows them", "%s is not let into the balancer: %w", j.Host, err)
	}
	runs := false
	for _, joined := range all {
		if joined.Left == "" {
			runs = true
			if err := f.Hosts.Verify(ctx, j.Host, joined.Service); err != nil {
				return all, fmt.Errorf("%s: %w", j.Host, err)
			}
			f.Emit(event.Event{Time: time.Now(), Event: event.Verified, Host: j.Host, Service: joined.Service, Revision: joined.Revision})
		}
	}
	if !runs { // a deploy lets it in
		return all, nil
	}
	return all, f.letIn(whole, j.Host)
}

// Withhold takes a host that does not serve yet out of the balancer, which would
// send it requests as soon as anything answers there: an nginx that was just
// installed has a page for all of them. One that is bare, and yet answers, is
// taken out where another host serves.
func (f *Fleet) Withhold(ctx context.Context, host string, bare bool) error {
	at, err := f.state(ctx)
	s, known := at[host]
	if err != nil || !known || !s.In || s.Up && !(bare && othersServe(at, host)) {
		return err
	}
	if err := f.Balancer.Set(ctx, balancer.Change{Drain: []string{host}}); err != nil {
		return err
	}
	f.Emit(event.Event{Time: time.Now(), Event: event.Withdrawn, Host: host, Cause: "it does not serve yet"})
	return nil
}

// othersServe: the balancer sends requests to another host, too.
func othersServe(at map[string]balancer.Server, host string) bool {
	for name, s := range at {
		if name != host && s.In && s.Up {
			return true
		}
	}
	return false
}

// letIn puts the host into the balancer when its check sees it well, unless a
// person took it out.
func (f *Fleet) letIn(ctx context.Context, host string) error {
	at, err := f.state(ctx)
	s, known := at[host]
	switch {
	case err != nil || !known || s.In:
		return err
	case s.Away:
		f.Emit(event.Event{Time: time.Now(), Event: event.Note, Host: host, Detail: "it stays out of the balancer, which a person took it out of: conductor fleet admit " + host})
		return nil
	}
	if err := f.awaitUp(ctx, host); err != nil {
		return err
	}
	if err := f.Balancer.Set(ctx, balancer.Change{Admit: []string{host}}); err != nil {
		return err
	}
	f.Emit(event.Event{Time: time.Now(), Event: event.Admitted, Host: host, Cause: host + " answers"})
	return f.awaitUp(ctx, host)
}

func (f *Fleet) state(ctx context.Context) (map[string]balancer.Server, error) {
	if f.Balancer == nil {
		return nil, nil
	}
	at, err := f.Balancer.State(ctx)
	if err != nil {
		return nil, fmt.Errorf("look at the balancer: %w", err)
	}
	return at, nil
}

// join brings one service to the host, while no deploy of it can change what the
// others run.
func (f *Fleet) join(ctx context.Context, host string, d Deploy) (Joined, error) {
	for _, h := range d.Hosts {
		if h == host {
			continue
		}
		held, err := f.Hosts.Hold(ctx, h, Question{Service: d.Service}, d.Wait)
		switch {
		case errors.Is(err, fault.ErrUnreachable):
			f.Emit(event.Event{Time: time.Now(), Event: event.Warning, Host: h, Service: d.Service, Detail: fmt.Sprintf("it is not asked: %v", err)})
		case err != nil:
			return Joined{Service: d.Service}, fmt.Errorf("%s: %w", h, err)
		default:
			defer held.Release()
		}
	}
	j := f.followed(ctx, host, d)
	if j.Left != "" || !j.Changed {
		return j, nil
	}
	if err := f.mark(ctx, host, d, j); err != nil {
		return j, err
	}
	// No balancer: the host is let in when all of its services are there.
	alone := *f
	alone.Balancer = nil
	d.Revision, d.Hosts, d.Strategy, d.Test = j.Revision, []string{host}, rollout.Strategy{Kind: rollout.Rolling, Width: 1}, nil
	d.Hooks, d.Confirm, d.MaxFailed = nil, nil, 0
	_, err := alone.Deploy(ctx, d)
	return j, err
}

// mark tells the host what is true of the revision: what runs elsewhere is
// migrated.
func (f *Fleet) mark(ctx context.Context, host string, d Deploy, j Joined) error {
	marks := j.marks
	if len(d.Migrate) > 0 && !slices.Contains(marks, Migrated) {
		marks = append(marks, Migrated)
	}
	if len(marks) == 0 {
		return nil
	}
	held, err := f.Hosts.Hold(ctx, host, Question{Service: d.Service}, d.Wait)
	if err != nil {
		return err
	}
	defer held.Release()
	for _, m := range marks {
		if err := f.Hosts.Mark(ctx, host, d.Service, j.Revision, m); err != nil {
			return err
		}
	}
	return nil
}

// followed asks the others of a service what they run, and the host itself.
func (f *Fleet) followed(ctx context.Context, host string, d Deploy) Joined {
	j := Joined{Service: d.Service}
	others := slices.DeleteFunc(slices.Clone(d.Hosts), func(h string) bool { return h == host })
	seen := make([]Seen, len(others))
	errs := make([]error, len(others))
	var looking sync.WaitGroup
	for n, h := range others {
		looking.Go(func() { seen[n], errs[n] = f.Hosts.Look(ctx, h, Question{Service: d.Service}) })
	}
	looking.Wait()
	by := map[string][]string{}
	asked := 0
	for n, h := range others {
		if errs[n] == nil {
			asked++
			if seen[n].Live != "" {
				by[seen[n].Live] = append(by[seen[n].Live], h)
			}
		}
	}
	switch {
	case len(others) == 0:
		j.Left = "no other host has it: conductor deploy brings it a revision"
		return j
	case asked == 0:
		j.Left, j.differ = "none of its hosts can be asked what it runs: "+errors.Join(errs...).Error(), true
		return j
	case len(by) == 0:
		j.Left = "none of its hosts runs it: conductor deploy brings it a revision"
		return j
	case len(by) > 1:
		j.Left, j.differ = "its hosts differ: "+told(by), true
		return j
	}
	for revision, hosts := range by {
		j.Revision = revision
		if s, err := f.Hosts.Look(ctx, hosts[0], Question{Service: d.Service, Revision: revision}); err == nil {
			j.marks = s.Marks
		}
	}
	own, err := f.Hosts.Look(ctx, host, Question{Service: d.Service})
	j.Changed = err != nil || own.Live != j.Revision || !own.Sound
	return j
}

// told is who runs what, in words.
func told(by map[string][]string) string {
	var parts []string
	for revision, hosts := range by {
		parts = append(parts, revision+" on "+strings.Join(hosts, ", "))
	}
	slices.Sort(parts)
	return strings.Join(parts, "; ")
}
