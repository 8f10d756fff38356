package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"syscall"
	"time"

	"conductor/test/bench/container"
)

const (
	idleLimit   = 1.5
	memoryLimit = 40e6
)

// idle measures what it costs to look after many containers to which nothing
// happens: a supervisor beside a minimal prober that asks the same containers
// in the same time, and the engine's own cost with and without health checks.
func (s *stage) idle(ctx context.Context, r *report) error {
	window, windows := time.Minute, 3
	if s.quick {
		window, windows = 10*time.Second, 1
	}
	var own, least, engine times
	var before, after holdings
	resident := 0 // the most at the end of a window
	var alone, checked time.Duration
	services := 0
	if err := s.many(ctx, func(c *crowd) error {
		services = len(c.ids)
		if err := c.supervised(ctx, func(sup *supervisor) error {
			if err := c.settle(ctx); err != nil {
				return err
			}
			addrs, err := c.addresses(ctx)
			if err != nil {
				return err
			}
			if before, err = c.holdings(ctx, sup); err != nil {
				return err
			}
			for range windows {
				a, b, e, err := c.window(ctx, sup, addrs, window)
				if err != nil {
					return err
				}
				own, least, engine = append(own, a), append(least, b), append(engine, e)
				now, err := memory(sup.cmd.Process.Pid)
				if err != nil {
					return err
				}
				resident = max(resident, now)
			}
			after, err = c.holdings(ctx, sup)
			return err
		}); err != nil {
			return err
		}
		if err := c.settle(ctx); err != nil {
			return err
		}
		var err error
		if alone, err = engineSpends(ctx, window); err != nil {
			return err
		}
		checked, err = c.engineChecks(ctx, window)
		return err
	}); err != nil {
		return err
	}

	section := fmt.Sprintf("%d containers, probed every %d s: processor time a minute", services, int(every.Seconds()))
	q := ratio(own, least)
	r.add(
		row{section: section, what: fmt.Sprintf("`conductor supervise`, median of %d × %s", windows, window), value: own.String(),
			baseline: "a minimal prober beside it: " + least.String(), ratio: fmt.Sprintf("%.2f", q),
			target: target(fmt.Sprintf("≤ %.1f", idleLimit), q <= idleLimit)},
		row{section: section, what: "the engine meanwhile", value: engine.String(), baseline: "with nobody who asks: " + ms(alone)},
		row{section: section, what: "the engine, the same check as `HEALTHCHECK` commands", value: ms(checked)},
		row{section: section, what: "memory of the supervisor, resident", value: fmt.Sprintf("%.1f MB", float64(resident)/1e6),
			target: target("≤ 40 MB", resident <= memoryLimit)},
		row{section: section, what: "goroutines, open files at the end", value: fmt.Sprintf("%d, %d", after.goroutines, after.files),
			baseline: fmt.Sprintf("%d, %d", before.goroutines, before.files),
			target:   target("no more", after.goroutines <= before.goroutines && after.files <= before.files)},
	)
	return nil
}

// holdings are what a supervisor holds.
type holdings struct{ goroutines, files int }

func (c *crowd) holdings(ctx context.Context, sup *supervisor) (h holdings, err error) {
	if h.goroutines, err = sup.goroutines(ctx); err != nil {
		return h, err
	}
	h.files, err = openFiles(sup.cmd.Process.Pid)
	return h, err
}

// settle waits until all services answer, and then until what they left to do
// is done: so long as the slowest of what is done from time to time.
func (c *crowd) settle(ctx context.Context) error {
	for deadline := time.Now().Add(2 * time.Minute); ; {
		err := c.answers(ctx)
		if err == nil {
			break
		}
		if time.Now().After(deadline) {
			return err
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	d := 20 * time.Second
	if c.quick {
		d = time.Second
	}
	return pause(ctx, d)
}

// addresses are where the instances of all services are asked.
func (c *crowd) addresses(ctx context.Context) (addrs []string, err error) {
	ids, err := c.live(ctx, "")
	for _, id := range ids {
		p, ierr := container.Inspect(ctx, c.engine, id, namespace)
		err = errors.Join(err, ierr)
		addrs = append(addrs, p.Addr.String()+":8080")
	}
	if err == nil && len(addrs) != len(c.ids) {
		err = fmt.Errorf("%d instances run, want %d", len(addrs), len(c.ids))
	}
	return addrs, err
}

// window measures supervisor, prober and engine at once: each asks all
// containers meanwhile, and whatever else the machine does meets all of them.
func (c *crowd) window(ctx context.Context, sup *supervisor, addrs []string, window time.Duration) (own, least, engine time.Duration, err error) {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, c.prober, append([]string{"-every", every.String()}, addrs...)...)
	cmd.Stdout = &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return 0, 0, 0, err
	}
	err = pause(ctx, time.Second) // its own start is nobody's probing
	pids := []int{sup.cmd.Process.Pid, cmd.Process.Pid}
	var used [2]time.Duration
	before := engineCPU()
	for n, pid := range pids {
		t, terr := cpuOf(pid)
		used[n], err = -t, errors.Join(err, terr)
	}
	err = errors.Join(err, pause(ctx, window))
	engine = engineCPU().since(before)
	for n, pid := range pids {
		t, terr := cpuOf(pid)
		used[n], err = used[n]+t, errors.Join(err, terr)
	}
	err = errors.Join(err, cmd.Process.Signal(syscall.SIGTERM), cmd.Wait())
	var good, bad int
	if _, serr := fmt.Sscan(out.String(), &good, &bad); err == nil && (serr != nil || bad > 0 || good < len(addrs)*int(window/every)) {
		err = fmt.Errorf("the prober had %d good and %d bad answers of %d containers in %s", good, bad, len(addrs), window)
	}
	return aMinute(used[0], window), aMinute(used[1], window), aMinute(engine, window), err
}

// engineSpends is the processor time that the engine uses in a minute.
func engineSpends(ctx context.Context, window time.Duration) (time.Duration, error) {
	before := engineCPU()
	err := pause(ctx, window)
	return aMinute(engineCPU().since(before), window), err
}

func aMinute(used, window time.Duration) time.Duration {
	return time.Duration(float64(used) * float64(time.Minute) / float64(window))
}

// engineChecks is what the engine uses when it asks as many containers itself.
func (c *crowd) engineChecks(ctx context.Context, window time.Duration) (time.Duration, error) {
	if err := c.removeContainers(ctx, "conductor.namespace="+namespace); err != nil {
		return 0, err
	}
	specs := make([]container.Spec, len(c.ids))
	for n := range specs {
		specs[n] = c.floorSpec()
		specs[n].Check, specs[n].Every = []string{"/app", "check"}, every
	}
	if err := atATime(parallel, len(specs), func(n int) error {
		_, _, err := c.floorStart(ctx, specs[n], time.Now())
		return err
	}); err != nil {
		return 0, err
	}
	if err := pause(ctx, 2*every); err != nil { // all have been asked, and go on to be
		return 0, err
	}
	d, err := engineSpends(ctx, window)
	return d, errors.Join(err, c.removeContainers(ctx, container.Label+"="+namespace+"-floor"))
}
