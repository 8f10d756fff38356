package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"conductor/test/bench/container"
)

const (
	bootLimit = 1.2
	// parallel is how many containers are created or started at once over the
	// host: as many as a supervisor does.
	parallel = 8
	// every is how often a service is asked for its health if nothing else is said.
	every = 5 * time.Second
)

// crowd is the many services of a host that is full.
type crowd struct {
	*stage
	ids []string
	at  map[string]string // where the proxy serves each
}

// many is so many services that run, for those parts that are about them.
func (s *stage) many(ctx context.Context, f func(*crowd) error) error {
	n := 100
	if s.quick {
		n = 10
	}
	c := crowd{stage: s, at: map[string]string{}}
	for k := range n {
		id := fmt.Sprintf("many-%03d", k)
		at, err := s.service(id, 1, "interval: "+every.String())
		if err != nil {
			return err
		}
		c.ids, c.at[id] = append(c.ids, id), at.String()
	}
	if err := s.deploy(ctx, c.ids...); err != nil {
		return err
	}
	if err := f(&c); err != nil {
		return err
	}
	// Their containers go at once: nobody asks them any more.
	if err := s.removeContainers(ctx, "conductor.namespace="+namespace); err != nil {
		return err
	}
	return s.clear(ctx, c.ids...)
}

// boots measures how long many services take to come back when all of them are
// dead: conductor supervise, and the engine alone.
func (s *stage) boots(ctx context.Context, r *report) error {
	pairs := 3
	if s.quick {
		pairs = 1
	}
	var own, least times
	services := 0
	if err := s.many(ctx, func(c *crowd) error {
		services = len(c.ids)
		for n := range pairs {
			if err := turns(n, true, &own, func() (time.Duration, error) { return c.boot(ctx) },
				&least, func() (time.Duration, error) { return c.bootFloor(ctx) }); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	q := ratio(own, least)
	r.add(row{section: fmt.Sprintf("%d services are dead, and come back, %d at a time", services, parallel),
		what: fmt.Sprintf("`conductor supervise`, until all serve, median of %d", pairs), value: own.String(),
		baseline: "the engine alone: " + least.String(), ratio: fmt.Sprintf("%.2f", q),
		target: target(fmt.Sprintf("≤ %.1f", bootLimit), q <= bootLimit)})
	return nil
}

// allDead kills every process of the services, once they have run for so long
// that they are started again at once.
func (c *crowd) allDead(ctx context.Context) error {
	ids, err := c.live(ctx, "")
	if err != nil {
		return err
	}
	var last time.Time
	ps := make([]container.Process, len(ids))
	for n, id := range ids {
		if ps[n], err = container.Inspect(ctx, c.engine, id, namespace); err != nil {
			return err
		}
		if ps[n].Started.After(last) {
			last = ps[n].Started
		}
	}
	if err := pause(ctx, time.Until(last.Add(restartGap))); err != nil {
		return err
	}
	for _, p := range ps {
		if err := p.Kill(); err != nil {
			return err
		}
	}
	for deadline := time.Now().Add(time.Minute); len(ids) > 0; {
		if ids, err = c.live(ctx, ""); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d of the killed instances run", len(ids))
		}
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// boot is the time from the start of a supervisor to when all services answer.
func (c *crowd) boot(ctx context.Context) (took time.Duration, err error) {
	if err := c.allDead(ctx); err != nil {
		return 0, err
	}
	err = c.supervised(ctx, func(sup *supervisor) error {
		missing := map[string]bool{}
		for _, id := range c.ids {
			missing[id] = true
		}
		errs := make(chan error, len(c.ids))
		asked := 0
		if err := sup.each(ctx, 0, func(e told) bool {
			if e.Event == "routed" && missing[e.Service] {
				delete(missing, e.Service)
				asked++
				go func() { errs <- servedBy(ctx, c.at[e.Service], e.Container) }()
			}
			return len(missing) == 0
		}); err != nil {
			return fmt.Errorf("%d services are missing: %w", len(missing), err)
		}
		var all []error
		for range asked {
			all = append(all, <-errs)
		}
		took = time.Since(sup.began)
		if c.keepTrace {
			sup.print(os.Stderr, 0, sup.began)
		}
		return errors.Join(all...)
	})
	return took, err
}

// bootFloor is the same for as many containers that are only created, started
// and waited for. The services are dead meanwhile.
func (c *crowd) bootFloor(ctx context.Context) (time.Duration, error) {
	if err := c.allDead(ctx); err != nil {
		return 0, err
	}
	answers := make(chan error, len(c.ids))
	began := time.Now()
	specs := make([]container.Spec, len(c.ids))
	for n := range specs {
		specs[n] = c.floorSpec()
	}
	if err := atATime(parallel, len(specs), func(n int) error {
		id, err := container.Create(ctx, c.engine, specs[n])
		if err == nil {
			err = container.Start(ctx, c.engine, id)
		}
		go func() {
			if err == nil {
				err = container.Answer(ctx, specs[n].Addr)
			}
			answers <- err
		}()
		return nil
	}); err != nil {
		return 0, err
	}
	var all []error
	for range specs {
		all = append(all, <-answers)
	}
	took := time.Since(began)
	return took, errors.Join(append(all, c.removeContainers(ctx, container.Label+"="+namespace+"-floor"))...)
}

// answers asks every service once, through the proxy.
func (c *crowd) answers(ctx context.Context) error {
	for id, at := range c.at {
		req, err := http.NewRequestWithContext(ctx, "GET", "http://"+at+"/", nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return fmt.Errorf("%s: %w", id, err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", id, resp.Status)
		}
	}
	return nil
}
