package nginx

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"time"

	"conductor/internal/atomicfile"
	"conductor/internal/fault"
	"conductor/internal/proxy"
)

// Check tests the table's routes together with all other files of nginx.
func (p *Proxy) Check(ctx context.Context, t proxy.Table) error {
	if err := p.supported(); err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s, a, err := p.settings()
	if err != nil {
		return err
	}
	want, err := p.render(t, s)
	if err != nil {
		return err
	}
	now, askErr := a.askTwice(ctx)
	if errors.Is(askErr, errTwoMasters) {
		return p.unreachable(ctx, askErr)
	}
	if err := p.tested(ctx, want); err != nil {
		return err
	}
	if askErr != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if p.local() && masterOf(p.c.Reload) == 0 {
			return p.unreachable(ctx, askErr)
		}
		if err := p.included(ctx); err != nil {
			return err
		}
	}
	if askErr == nil && now.structure == want.structure {
		return nil
	}
	return p.portsFree(want, s.admin, now.master)
}

// Apply makes nginx serve the table.
func (p *Proxy) Apply(ctx context.Context, t proxy.Table) (proxy.Change, error) {
	if err := p.supported(); err != nil {
		return proxy.Change{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s, a, err := p.settings()
	if err != nil {
		return proxy.Change{}, err
	}
	want, err := p.render(t, s)
	if err != nil {
		return proxy.Change{}, err
	}
	atomicfile.Sweep(p.File())
	c := change{p: p, admin: a, want: want}
	if c.had, c.text, c.whole, err = p.onDisk(); err != nil {
		return proxy.Change{}, err
	}
	c.now, err = a.askTwice(ctx)
	if errors.Is(err, errTwoMasters) || ctx.Err() != nil {
		return proxy.Change{}, p.unreachable(ctx, err)
	}
	c.running = err == nil
	if !c.running || c.now.structure != want.structure {
		if err := c.structure(ctx); err != nil {
			return c.done, err
		}
	}
	return c.done, c.peers(ctx)
}

// change is one Apply under way.
type change struct {
	p     *Proxy
	admin admin
	want  document

	had   document // the file before, if whole
	text  []byte   // the file before; nil: there was none
	whole bool     // had is what Conductor wrote

	now     status // what nginx served before, if running
	running bool   // our admin server answered before

	done proxy.Change
}

// next is a generation that is newer than any that nginx or the file has.
func (c *change) next() uint64 {
	g := max(c.now.generation, c.want.peers.generation)
	if c.whole {
		g = max(g, c.had.peers.generation)
	}
	return g + 1
}

func (c *change) write(d document) error {
	text := d.bytes()
	if err := atomicfile.Write(c.p.File(), text, 0o644); err != nil {
		return fault.New(fault.ErrHost, "", "write nginx file: %w", err)
	}
	c.p.read.wrote(text, d)
	c.done.Written = true
	c.had, c.whole = d, true
	return nil
}

// peers brings the running nginx, whose structure is right, to the peers. The
// file goes first: an nginx that starts in between reads the new peers from it.
func (c *change) peers(ctx context.Context) error {
	inPlace := c.whole && c.had.structure == c.want.structure &&
		c.had.peers.sameValues(c.want.peers) && c.had.peers.generation == c.now.generation
	if inPlace && c.serves(c.now) {
		c.want.peers.generation = c.now.generation
		return nil // proved by the answer a moment ago
	}
	c.want.peers.generation = c.next()
	if err := c.write(c.want); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, c.p.c.ProveTimeout, errNotProved)
	defer cancel()
	// nginx may be restarting just now: it is asked until the time is over.
	st, asked := c.now, c.running // what it answered a moment ago
	return poll(ctx, func() error {
		var err error
		if !asked {
			if st, err = c.admin.ask(ctx); err != nil {
				return c.p.unreachable(ctx, err)
			}
		}
		asked = false
		first := st
		if !c.proved(st) {
			// Its answer is the first of the two that prove it.
			if first, err = c.admin.set(ctx, st.boot, c.want.peers); err != nil {
				return c.p.unreachable(ctx, err)
			}
		}
		if st, err = c.admin.ask(ctx); err != nil {
			return c.p.unreachable(ctx, err)
		}
		if first.boot != st.boot {
			return c.p.unreachable(ctx, errTwoMasters)
		}
		if !c.proved(first) || !c.proved(st) {
			return c.p.unreachable(ctx, errors.New("nginx answers with other peers than it was given"))
		}
		c.now = st
		return nil
	})
}

// proved tells whether the answer has all that is wanted.
func (c *change) proved(st status) bool {
	return c.serves(st) && st.generation == c.want.peers.generation
}

// serves tells whether the answer has the structure and the peers.
func (c *change) serves(st status) bool {
	return st.structure == c.want.structure && c.want.peers.sameValues(peers{values: st.services})
}

// structure brings nginx to the structure by a reload. Services that were
// there keep the peers that they have in the running nginx, so that a
// structure that nginx does not take changes nothing for them.
func (c *change) structure(ctx context.Context) error {
	if err := c.p.tested(ctx, c.want); err != nil {
		return err
	}
	if !c.running {
		if err := c.p.included(ctx); err != nil {
			return err
		}
	}
	if err := c.p.portsFree(c.want, c.admin.addr, c.now.master); err != nil {
		return err
	}
	first := c.want
	first.peers = peers{generation: c.next(), values: maps.Clone(c.want.peers.values)}
	if c.running {
		for service := range first.peers.values {
			if value, ok := c.now.services[service]; ok {
				first.peers.values[service] = value
			}
		}
	}
	before, text, whole := c.had, c.text, c.whole
	if err := c.write(first); err != nil {
		return err
	}
	err := c.reload(ctx, first.structure)
	if errors.Is(err, errNotProved) && ctx.Err() == nil {
		// Where no reason is to be found, nginx may have been kept from it for a
		// while; a signal can be lost, too. Once more costs nobody anything.
		if why := c.p.notTaken(ctx, c.want, c.admin.addr, c.now.master); why != nil {
			err = why
		} else if err = c.reload(ctx, first.structure); errors.Is(err, errNotProved) {
			err = refused("look at nginx's error log", "%s ended well, twice, but nginx does not serve the new configuration: %w",
				strings.Join(c.p.c.Reload, " "), err)
		}
	}
	if err == nil {
		return nil
	}
	// What follows is no part of what the caller waits for or may give up.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.p.c.ProveTimeout+commandTimeout)
	defer cancel()
	if rerr := c.restore(ctx, before, text, whole); rerr != nil {
		return fault.New(fault.ErrProxyRefused, "look at nginx's error log, then run the command again",
			"%w: %w (%w)", proxy.ErrNotRestored, rerr, err)
	}
	return err
}

// reload has nginx read its files, and sees it come to the structure. Where it
// does not, with the command itself content, the error is errNotProved.
func (c *change) reload(ctx context.Context, structure string) error {
	if out, err := run(ctx, c.p.c.Reload); err != nil {
		return c.p.reloadFailed(ctx, out, err)
	}
	c.done.Reloaded = true
	if err := c.proveReload(ctx, structure, c.now.cycle); err != nil {
		if ctx.Err() != nil {
			return err
		}
		return fmt.Errorf("%w: %w", errNotProved, err)
	}
	return nil
}

// restore puts the file before back and proves that nginx serves it.
func (c *change) restore(ctx context.Context, before document, text []byte, whole bool) error {
	c.done.Written = false
	var err error
	switch {
	case text == nil:
		err = atomicfile.Remove(c.p.File())
	case whole && c.running && before.structure == c.now.structure:
		// Newer than what the failed attempt may have left in nginx.
		before.peers = peers{generation: c.next() + 1, values: c.now.services}
		err = atomicfile.Write(c.p.File(), before.bytes(), 0o644)
	default:
		err = atomicfile.Write(c.p.File(), text, 0o644)
	}
	if err != nil {
		return fault.New(fault.ErrHost, "", "restore nginx file: %w", err)
	}
	c.had, c.whole = before, whole
	if !c.done.Reloaded {
		return nil // nginx was never told of the other file
	}
	if out, err := run(ctx, c.p.c.Reload); err != nil {
		return c.p.reloadFailed(ctx, out, err)
	}
	if !c.running {
		return nil // nothing of ours was served that could be proved
	}
	if err := c.proveReload(ctx, c.now.structure, c.now.cycle); err != nil {
		return err
	}
	if before.structure == c.now.structure && whole {
		c.want = before
		err = c.peers(ctx)
		c.done.Written = false
		return err
	}
	return nil
}

var errNotProved = errors.New("no proof in time")

// proveReload waits until workers of a later cycle answer with the structure
// and the ones before take no connections any more.
func (c *change) proveReload(ctx context.Context, structure string, cycle uint64) error {
	ctx, cancel := context.WithTimeoutCause(ctx, c.p.c.ProveTimeout, errNotProved)
	defer cancel()
	var since time.Time
	return poll(ctx, func() error {
		var st status
		for range 3 {
			var err error
			if st, err = c.admin.ask(ctx); err != nil {
				return err
			}
			if st.structure != structure || st.cycle <= cycle {
				return fmt.Errorf("nginx at %s answers with the configuration before", c.admin.addr)
			}
		}
		if since.IsZero() {
			since = time.Now()
		}
		// The master lets the workers before go 100 ms after it has started new
		// ones. One whose end is not told, as where timers ran out, is not
		// waited for: three answers in a row are the proof then.
		if st.olderWorkers() && time.Since(since) < time.Second {
			return errors.New("workers of the configuration before still take connections")
		}
		c.now, c.running = st, true
		return nil
	})
}

// poll calls try until it is nil, and returns its last error when ctx is over.
func poll(ctx context.Context, try func() error) error {
	wait := 2 * time.Millisecond
	for {
		err := try()
		if err == nil {
			return nil
		}
		t := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			t.Stop()
			if cause := context.Cause(ctx); !errors.Is(cause, errNotProved) {
				return fmt.Errorf("%w: %w", cause, err)
			}
			return err
		case <-t.C:
		}
		wait = min(wait*3/2, 25*time.Millisecond)
	}
}
