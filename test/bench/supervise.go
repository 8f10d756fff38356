package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"time"

	"conductor/test/bench/container"
)

// restartGap is how long after its last start a slot is filled again at once.
const restartGap = 5 * time.Second

// stage is where supervision is measured: an installation, and what is heard
// of its engine.
type stage struct {
	*host
	heard *happenings
	image string // the ID of v1
	made  int    // containers of the floor so far
}

// supervision measures conductor supervise.
func supervision(ctx context.Context, h *host, r *report) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := stage{host: h}
	if s.image, err = container.ImageID(ctx, h.engine, repo+":v1"); err != nil {
		return err
	}
	if s.heard, err = listen(ctx, h.engine); err != nil {
		return err
	}
	for _, part := range []struct {
		name    string
		measure func(context.Context, *report) error
	}{
		{"deaths", s.deaths},
		{"hangs", s.hangs},
		{"row", s.inARow},
		{"boot", s.boots},
		{"idle", s.idle},
	} {
		if !h.wants("supervise." + part.name) {
			continue
		}
		fmt.Fprintf(os.Stderr, "           supervise.%s\n", part.name)
		if perr := part.measure(ctx, r); perr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", part.name, perr))
		}
	}
	return err
}

// supervised runs f while a supervisor looks after the services.
func (s *stage) supervised(ctx context.Context, f func(*supervisor) error) error {
	sup, err := s.supervise(ctx)
	if err != nil {
		return err
	}
	err = f(sup)
	return errors.Join(err, sup.stop())
}

// deploy brings services to v1, a few at a time.
func (s *stage) deploy(ctx context.Context, ids ...string) error {
	return atATime(4, len(ids), func(n int) error {
		if out, err := s.command(ctx, "service", "upgrade", "--id", ids[n], "--revision", "v1").CombinedOutput(); err != nil {
			return fmt.Errorf("upgrade %s: %w: %s", ids[n], err, out)
		}
		return nil
	})
}

// live are the running containers of a service of Conductor's, of all with "".
func (s *stage) live(ctx context.Context, id string) (ids []string, err error) {
	labels := []string{"conductor.namespace=" + namespace}
	if id != "" {
		labels = append(labels, "conductor.service="+id)
	}
	cs, err := s.engine.Containers(ctx, labels...)
	for _, c := range cs {
		if c.State == "running" {
			ids = append(ids, c.ID)
		}
	}
	return ids, err
}

// victim is the instance of the service that has run for longest, once it has
// run for so long that its slot is filled again at once.
func (s *stage) victim(ctx context.Context, id string) (victim string, p container.Process, err error) {
	ids, err := s.live(ctx, id)
	if err != nil {
		return "", p, err
	}
	for _, c := range ids {
		q, err := container.Inspect(ctx, s.engine, c, namespace)
		if errors.Is(err, container.ErrEnded) {
			continue // the engine's list is a little late
		}
		if err != nil {
			return "", p, err
		}
		if victim == "" || q.Started.Before(p.Started) {
			victim, p = c, q
		}
	}
	if victim == "" {
		return "", p, fmt.Errorf("%s has no instance that runs", id)
	}
	return victim, p, pause(ctx, time.Until(p.Started.Add(restartGap)))
}

// replaced returns when another container than the victim serves the service,
// with its ID and when each phase was over, from began on.
func (s *stage) replaced(ctx context.Context, sup *supervisor, since int, id, victim string, at netip.AddrPort, began time.Time) (fresh string, d death, err error) {
	d = death{}
	if err := sup.each(ctx, since, func(e told) bool {
		if e.Service != id || e.Container == victim {
			return false
		}
		d[e.Event], fresh = e.Time.Sub(began), e.Container
		return e.Event == "healthy"
	}); err != nil {
		return "", nil, fmt.Errorf("%s: %w", id, err)
	}
	if err := servedBy(ctx, at.String(), fresh); err != nil {
		return "", nil, err
	}
	d["serving"] = time.Since(began)
	return fresh, d, nil
}

// floorSpec is the next container of the floor's.
func (s *stage) floorSpec() container.Spec {
	s.made++
	return container.Spec{Name: fmt.Sprintf("%s.floor-%d", namespace, s.made), Image: s.image, Namespace: namespace + "-floor",
		Network: s.network.name, Addr: netip.AddrPortFrom(s.addr(10+s.made%200), 8080)}
}

// floorStart creates and starts one and returns at its first good answer, with
// when each phase was over, from began on.
func (s *stage) floorStart(ctx context.Context, spec container.Spec, began time.Time) (id string, d death, err error) {
	d = death{}
	if id, err = container.Create(ctx, s.engine, spec); err != nil {
		return "", nil, err
	}
	d["created"] = time.Since(began)
	if err := container.Start(ctx, s.engine, id); err != nil {
		return "", nil, err
	}
	d["started"] = time.Since(began)
	if err := container.Answer(ctx, spec.Addr); err != nil {
		return "", nil, err
	}
	d["serving"] = time.Since(began)
	return id, d, nil
}

// turns measures the two of a pair, the one or the other first.
func turns[S ~[]T, T any](n int, keep bool, a *S, one func() (T, error), b *S, other func() (T, error)) error {
	type turn struct {
		to  *S
		run func() (T, error)
	}
	both := []turn{{a, one}, {b, other}}
	if n%2 == 1 {
		slices.Reverse(both)
	}
	for _, t := range both {
		v, err := t.run()
		if err != nil {
			return err
		}
		if keep { // the first ones make what later ones find
			*t.to = append(*t.to, v)
		}
	}
	return nil
}

// atATime does n things, so many at a time.
func atATime(most, n int, f func(int) error) error {
	next := make(chan int)
	errs := make(chan error, most)
	for range most {
		go func() {
			var all []error
			for k := range next {
				all = append(all, f(k))
			}
			errs <- errors.Join(all...)
		}()
	}
	for k := range n {
		next <- k
	}
	close(next)
	var all []error
	for range most {
		all = append(all, <-errs)
	}
	return errors.Join(all...)
}
