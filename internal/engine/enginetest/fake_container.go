package enginetest

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"conductor/internal/engine"
)

// List returns the containers that carry all the labels. Fields that the
// contract promises to Inspect alone are empty.
func (f *Fake) List(ctx context.Context, labels map[string]string, ids ...string) (out []engine.Container, err error) {
	err = f.call(ctx, "List", "", func() error {
		for _, c := range f.sorted() {
			if !carries(c.Labels, labels) || len(ids) > 0 && !slices.Contains(ids, c.ID) {
				continue
			}
			v := c.view()
			v.StartedAt, v.FinishedAt, v.ExitCode, v.OOMKilled, v.Error, v.PID, v.TTY =
				time.Time{}, time.Time{}, 0, false, "", 0, false
			// Docker's list knows the second of the creation, no more.
			v.Created = v.Created.Truncate(time.Second)
			if v.State == engine.Exited && time.Since(c.FinishedAt) < f.Clearing {
				v.State = engine.Running
			}
			if c.shown != "" {
				v.State = c.shown
			}
			out = append(out, v)
		}
		return nil
	})
	return out, err
}

// Inspect returns all of one container.
func (f *Fake) Inspect(ctx context.Context, id string) (out engine.Container, err error) {
	err = f.call(ctx, "Inspect", id, func() error {
		c, err := f.container(id)
		if err != nil {
			return err
		}
		out = c.view()
		return nil
	})
	return out, err
}

// Create makes a container.
func (f *Fake) Create(ctx context.Context, in engine.Create) (id string, err error) {
	err = f.call(ctx, "Create", in.Name, func() error {
		for _, c := range f.containers {
			if c.Name == in.Name {
				return fmt.Errorf("create container %s: %w: the name is in use by %s", in.Name, engine.ErrConflict, c.ID[:12])
			}
		}
		im, err := f.find(in.Image)
		if err != nil {
			return fmt.Errorf("create container %s: %w", in.Name, err)
		}
		c := &container{made: in, ended: make(chan struct{}), attached: map[*attachment]bool{}}
		c.ID = f.id("container")
		c.Name = in.Name
		c.Image = im.ID
		c.Labels = maps.Clone(in.Spec.Labels)
		if c.Labels == nil {
			c.Labels = map[string]string{}
		}
		maps.Copy(c.Labels, in.Labels)
		c.State = engine.Created
		c.Created = time.Now()
		c.Address, c.TTY = in.Address, in.TTY
		f.containers[c.ID] = c
		f.publish(c, "create")
		id = c.ID
		return nil
	})
	return id, err
}

// Start starts a container.
func (f *Fake) Start(ctx context.Context, id string) error {
	return f.call(ctx, "Start", id, func() error {
		c, err := f.container(id)
		if err != nil {
			return err
		}
		if c.State == engine.Running {
			return nil
		}
		if c.State == engine.Removing {
			return fmt.Errorf("start container %s: %w: it is marked for removal", c.Name, engine.ErrConflict)
		}
		fail := func(why string) error {
			c.Error, c.ExitCode = why, 128
			return fmt.Errorf("start container %s: %w: %s", c.Name, engine.ErrCannotRun, why)
		}
		addr, why := f.lease(c)
		if why != "" {
			return fail(why)
		}
		var b Behaviour
		if f.Behave != nil {
			b = f.Behave(c.made)
		}
		if b.CannotRun != "" {
			return fail(b.CannotRun)
		}
		now := time.Now()
		if c.unwritten {
			c.shown, c.unwritten = c.State, false
		}
		c.live, c.lease = b, addr
		c.State, c.StartedAt, c.Error, c.ExitCode, c.OOMKilled = engine.Running, now, "", 0, false
		f.count++
		c.PID = 1000 + f.count
		select {
		case <-c.ended:
			c.ended = make(chan struct{})
			c.input, c.inputEnds, c.fed = "", false, false
		default: // never started; who waits for it goes on waiting
		}
		c.print(now, false, b.Stdout)
		c.print(now, true, b.Stderr)
		f.publish(c, "start")
		switch run := c.ended; {
		case b.Exits && b.After > 0:
			time.AfterFunc(b.After, func() { f.endRun(c, run, b.Code, b.OOM) })
		case b.Exits:
			f.end(c, b.Code, b.OOM)
		}
		f.consume(c)
		return nil
	})
}

// lease finds the address that the container runs with, or says why not.
// Docker hands out addresses at the start and takes them back at the end.
func (f *Fake) lease(c *container) (addr netip.Addr, why string) {
	if c.made.Network == "" {
		return netip.Addr{}, ""
	}
	n := f.networks[c.made.Network]
	if n == nil {
		return addr, fmt.Sprintf("network %s not found", c.made.Network)
	}
	taken := map[netip.Addr]bool{n.Gateway: true}
	for _, o := range f.containers {
		if o.State == engine.Running && o.made.Network == c.made.Network {
			taken[o.lease] = true
		}
	}
	if addr = c.made.Address; addr.IsValid() {
		if !n.Subnet.Contains(addr) {
			return addr, fmt.Sprintf("address %s is not in subnet %s", addr, n.Subnet)
		}
		if taken[addr] {
			return addr, "Address already in use"
		}
		return addr, ""
	}
	for addr = n.Subnet.Addr().Next(); n.Subnet.Contains(addr); addr = addr.Next() {
		if !taken[addr] {
			return addr, ""
		}
	}
	return addr, "no available IPv4 addresses on this network's address pools"
}

// Stop asks the process to end and kills it after grace. Like Docker's, what
// it has begun goes on when its context ends.
func (f *Fake) Stop(ctx context.Context, id string, grace time.Duration) error {
	return f.during(ctx, "Stop", id, func(ctx context.Context) error {
		f.mu.Lock()
		c, err := f.container(id)
		if err != nil {
			f.mu.Unlock()
			return err
		}
		if c.State != engine.Running {
			f.mu.Unlock()
			return nil
		}
		f.signal(c, stopSignal(c.made.Spec))
		run := c.ended
		if c.State == engine.Running {
			if grace <= 0 {
				f.end(c, 137, false)
			} else {
				time.AfterFunc(grace, func() { f.endRun(c, run, 137, false) })
			}
		}
		f.mu.Unlock()
		select {
		case <-run:
		case <-ctx.Done():
			return fmt.Errorf("stop container %s: %w", id, ctx.Err())
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.publish(c, "stop")
		return nil
	})
}

// Kill sends a signal. SIGKILL ends the process, its stop signal and SIGTERM
// ask it to end; others do nothing.
func (f *Fake) Kill(ctx context.Context, id, signal string) error {
	return f.call(ctx, "Kill", id, func() error {
		c, err := f.container(id)
		if err != nil {
			return err
		}
		if c.State != engine.Running {
			return fmt.Errorf("kill container %s: %w: it is not running", c.Name, engine.ErrConflict)
		}
		f.signal(c, signal)
		return nil
	})
}

// signal delivers a signal to a process that runs.
func (f *Fake) signal(c *container, name string) {
	f.publish(c, "kill")
	switch {
	case same(name, "SIGKILL"):
		f.end(c, 137, false)
	case !same(name, "SIGTERM") && !same(name, stopSignal(c.made.Spec)), c.live.IgnoresTerm:
	case c.live.TermAfter <= 0:
		f.end(c, c.live.TermCode, false)
	default:
		run, code := c.ended, c.live.TermCode
		time.AfterFunc(c.live.TermAfter, func() { f.endRun(c, run, code, false) })
	}
}

// endRun ends the run of a container that ended stands for, if it still goes.
func (f *Fake) endRun(c *container, run chan struct{}, code int, oom bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.ended == run {
		f.end(c, code, oom)
	}
}

// end makes a running process end.
func (f *Fake) end(c *container, code int, oom bool) {
	if c.State != engine.Running {
		return
	}
	c.State, c.ExitCode, c.OOMKilled = engine.Exited, code, oom
	c.FinishedAt, c.PID, c.lease, c.shown = time.Now(), 0, netip.Addr{}, ""
	close(c.ended)
	if oom {
		f.publish(c, "oom")
	}
	f.publish(c, "die")
}

// Remove removes a container that does not run.
func (f *Fake) Remove(ctx context.Context, id string) error {
	return f.call(ctx, "Remove", id, func() error {
		c, err := f.container(id)
		if err != nil {
			return nil
		}
		if c.State == engine.Running {
			return fmt.Errorf("remove container %s: %w: it runs", c.Name, engine.ErrConflict)
		}
		f.drop(c)
		return nil
	})
}

// Unwritten makes the engine forget to write down the next start of a container,
// as where its disk is full: it runs, and until it ends lists say that it does not.
func (f *Fake) Unwritten(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c, err := f.container(id); err == nil {
		c.unwritten = true
	}
}

// HalfRemove is a removal that fails half-way, as where the file system is busy:
// what is left is of no use, and only another removal takes it away.
func (f *Fake) HalfRemove(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c, err := f.container(id); err == nil && c.State != engine.Running {
		c.State, c.Error = engine.Removing, "its file system is busy"
		c.over()
	}
}

func (f *Fake) drop(c *container) {
	delete(f.containers, c.ID)
	c.State = engine.Removing
	c.over()
	f.publish(c, "destroy")
}

// over: nobody waits for it any longer.
func (c *container) over() {
	select {
	case <-c.ended:
	default:
		close(c.ended)
	}
}

// Die ends the process of a container, named or by ID, by itself: with an exit
// code, or because it took more memory than it may. It says whether it ran.
func (f *Fake) Die(id string, code int, oom bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, err := f.container(id)
	if err != nil || c.State != engine.Running {
		return false
	}
	f.end(c, code, oom)
	return true
}

// Reboot is the host going down and coming up: nothing runs any more, nobody
// was told, and who listened hears no more.
func (f *Fake) Reboot() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.breakStreams()
	for _, c := range f.sorted() {
		f.end(c, 255, false)
	}
}

// Vanish removes a container as another person would: by force. It says
// whether there was one.
func (f *Fake) Vanish(id string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, err := f.container(id)
	if err != nil {
		return false
	}
	f.end(c, 137, false)
	f.drop(c)
	return true
}

// AddForeign starts a container that somebody else made: without labels, on
// the network, at the address or, with a zero address, at the lowest free one,
// which it returns.
func (f *Fake) AddForeign(name, network string, addr netip.Addr) (netip.Addr, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := &container{made: engine.Create{Name: name, Network: network, Address: addr}, ended: make(chan struct{}), attached: map[*attachment]bool{}}
	a, why := f.lease(c)
	if why != "" {
		return a, fmt.Errorf("start container %s: %w: %s", name, engine.ErrCannotRun, why)
	}
	c.ID, c.Name, c.Image, c.Labels = f.id("container"), name, f.store("foreign").ID, map[string]string{}
	c.Created = time.Now()
	c.State, c.StartedAt, c.Address, c.lease, c.PID = engine.Running, c.Created, addr, a, 1000+f.count
	f.containers[c.ID] = c
	f.publish(c, "create")
	f.publish(c, "start")
	return a, nil
}

// Containers returns all of every container, foreign ones too, ordered by name.
func (f *Fake) Containers() []engine.Container {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []engine.Container
	for _, c := range f.sorted() {
		out = append(out, c.view())
	}
	return out
}

// Made returns what a container, named or by ID, was created from.
func (f *Fake) Made(id string) (engine.Create, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, err := f.container(id)
	if err != nil {
		return engine.Create{}, false
	}
	return c.made, true
}

// container finds a container by name, ID, or the first 12 digits or more of it.
func (f *Fake) container(id string) (*container, error) {
	if c := f.containers[id]; c != nil {
		return c, nil
	}
	for _, c := range f.containers {
		if c.Name == id || len(id) >= 12 && strings.HasPrefix(c.ID, id) {
			return c, nil
		}
	}
	return nil, fmt.Errorf("container %s: %w", id, engine.ErrNotFound)
}

func (f *Fake) sorted() []*container {
	out := slices.Collect(maps.Values(f.containers))
	slices.SortFunc(out, func(a, b *container) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// view is the container as the port shows it, sharing nothing.
func (c *container) view() engine.Container {
	v := c.Container
	v.Labels = maps.Clone(v.Labels)
	if !v.Address.IsValid() {
		v.Address = c.lease
	}
	return v
}

func carries(have, want map[string]string) bool {
	for k, v := range want {
		if h, ok := have[k]; !ok || h != v {
			return false
		}
	}
	return true
}
