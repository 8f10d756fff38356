package enginetest

import (
	"context"
	"testing"
	"time"

	"conductor/internal/engine"
)

func testStart(b *bench) {
	id := b.create(b.plan("app", Forever))
	before := time.Now().Add(-time.Second)
	b.must(b.Engine.Start(b.ctx(), id))
	first := b.inspect(id)
	if first.State != engine.Running || first.PID == 0 || first.StartedAt.Before(before) || !first.Address.IsValid() {
		b.Errorf("running container: %+v", first)
	}
	b.must(b.Engine.Start(b.ctx(), id))
	if again := b.inspect(id); !again.StartedAt.Equal(first.StartedAt) || again.PID != first.PID {
		b.Errorf("it was started twice: %+v, %+v", first, again)
	}
	b.must(b.Engine.Stop(b.ctx(), id, 0))
	b.must(b.Engine.Start(b.ctx(), id))
	if again := b.inspect(id); again.State != engine.Running || !again.StartedAt.After(first.StartedAt) {
		b.Errorf("started anew: %+v", again)
	}
}

func testCannotRun(b *bench) {
	c := b.plan("bad", nil)
	c.Spec.Entrypoint = []string{"no-such-command"}
	// With an init of its own the container starts, and the init fails.
	c.Spec.Init = false
	id := b.create(c)
	b.is(b.Engine.Start(b.ctx(), id), engine.ErrCannotRun)
	got := b.inspect(id)
	if got.State != engine.Created || got.Error == "" || got.PID != 0 || got.ExitCode == 0 {
		b.Errorf("container that could not be started: %+v", got)
	}
	b.must(b.Engine.Remove(b.ctx(), id))
}

func testStop(b *bench) {
	id := b.ready("app", Forever)
	address := b.inspect(id).Address
	begin := time.Now()
	b.must(b.Engine.Stop(b.ctx(), id, 20*time.Second))
	if took := time.Since(begin); took > 10*time.Second {
		b.Errorf("stop of an obedient process took %s", took)
	}
	got := b.inspect(id)
	if got.State != engine.Exited || got.ExitCode != 0 || got.FinishedAt.Before(got.StartedAt) || got.PID != 0 || got.OOMKilled {
		b.Errorf("stopped container: %+v", got)
	}
	if !address.IsValid() || got.Address.IsValid() {
		b.Errorf("the engine's own choice of address: %v while it ran, %v after", address, got.Address)
	}
	b.must(b.Engine.Stop(b.ctx(), id, time.Second))
	if again := b.inspect(id); !again.FinishedAt.Equal(got.FinishedAt) {
		b.Errorf("it was stopped twice")
	}
	fresh := b.create(b.plan("fresh", Forever))
	b.must(b.Engine.Stop(b.ctx(), fresh, time.Second))
	if got := b.inspect(fresh); got.State != engine.Created {
		b.Errorf("a container that never ran is %s after a stop", got.State)
	}
}

func testStopKill(b *bench) {
	for _, c := range []struct {
		name        string
		grace       time.Duration
		least, most time.Duration
	}{
		{"grace", 300 * time.Millisecond, 300 * time.Millisecond, 5 * time.Second},
		{"none", 0, 0, 5 * time.Second},
		{"negative", -time.Second, 0, 5 * time.Second},
	} {
		b.Run(c.name, func(t *testing.T) {
			b := &bench{T: t, Instance: b.Instance}
			id := b.ready("deaf-"+c.name, Ignore)
			begin := time.Now()
			b.must(b.Engine.Stop(b.ctx(), id, c.grace))
			if took := time.Since(begin); took < c.least || took > c.most {
				b.Errorf("stop took %s, want %s to %s", took, c.least, c.most)
			}
			if got := b.inspect(id); got.State != engine.Exited || got.ExitCode != 137 {
				b.Errorf("killed container: %+v", got)
			}
		})
	}
}

func testStopLinger(b *bench) {
	id := b.ready("slow", Linger(400*time.Millisecond))
	begin := time.Now()
	b.must(b.Engine.Stop(b.ctx(), id, 20*time.Second))
	if took := time.Since(begin); took < 400*time.Millisecond || took > 10*time.Second {
		b.Errorf("stop took %s", took)
	}
	if got := b.inspect(id); got.State != engine.Exited || got.ExitCode != 0 {
		b.Errorf("stopped container: %+v", got)
	}
}

func testStopContext(b *bench) {
	id := b.ready("deaf", Ignore)
	ctx, cancel := context.WithTimeout(b.Context(), 50*time.Millisecond)
	defer cancel()
	b.is(b.Engine.Stop(ctx, id, 30*time.Second), context.DeadlineExceeded)
	b.must(b.Engine.Stop(b.ctx(), id, 0)) // a second one is not held up by the first
	if got := b.inspect(id); got.State != engine.Exited {
		b.Errorf("stopped container: %+v", got)
	}
}

func testKill(b *bench) {
	deaf := b.ready("deaf", Ignore)
	b.must(b.Engine.Kill(b.ctx(), deaf, "SIGTERM"))
	if got := b.inspect(deaf); got.State != engine.Running {
		b.Errorf("after a signal that it ignores: %+v", got)
	}
	b.must(b.Engine.Kill(b.ctx(), deaf, "SIGKILL"))
	if code := b.wait(deaf); code != 137 {
		b.Errorf("exit code %d after SIGKILL", code)
	}
	b.is(b.Engine.Kill(b.ctx(), deaf, "SIGTERM"), engine.ErrConflict)

	good := b.ready("good", Forever)
	b.must(b.Engine.Kill(b.ctx(), good, "SIGTERM"))
	if code := b.wait(good); code != 0 {
		b.Errorf("exit code %d after SIGTERM", code)
	}
}

func testRemove(b *bench) {
	id := b.run("app", Forever)
	b.is(b.Engine.Remove(b.ctx(), id), engine.ErrConflict)
	b.must(b.Engine.Stop(b.ctx(), id, 0))
	ctx := b.ctx()
	const callers = 3
	errs := make(chan error, callers)
	for range callers { // at once
		go func() { errs <- b.Engine.Remove(ctx, id) }()
	}
	for range callers {
		b.must(<-errs)
	}
	_, err := b.Engine.Inspect(b.ctx(), id)
	b.is(err, engine.ErrNotFound)
	b.must(b.Engine.Remove(b.ctx(), id))
	b.create(b.plan("app", Forever)) // the name is free again
}

func testWait(b *bench) {
	id := b.run("three", Exit(3))
	for range 2 {
		if code := b.wait(id); code != 3 {
			b.Errorf("exit code %d, want 3", code)
		}
	}
	if got := b.inspect(id); got.State != engine.Exited || got.ExitCode != 3 || got.OOMKilled {
		b.Errorf("exited container: %+v", got)
	}
	long := b.run("long", Forever)
	ctx, cancel := context.WithTimeout(b.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := b.Engine.Wait(ctx, long)
	b.is(err, context.DeadlineExceeded)
}

func testWaitEarly(b *bench) {
	id := b.create(b.plan("later", Exit(3)))
	ctx := b.ctx()
	codes := make(chan int, 1)
	go func() {
		code, err := b.Engine.Wait(ctx, id)
		if err != nil {
			code = -1
		}
		codes <- code
	}()
	select {
	case code := <-codes:
		b.Fatalf("wait returned %d before the container was started", code)
	case <-time.After(100 * time.Millisecond):
	}
	b.must(b.Engine.Start(b.ctx(), id))
	if code := <-codes; code != 3 {
		b.Errorf("exit code %d, want 3", code)
	}
}

// testOOM: Docker loses the news of one or the other, where the container is
// cleared up before its helper has looked.
func testOOM(b *bench) {
	for range 5 {
		c := b.plan("hog", Hog)
		c.Spec.Limits.Memory = 32 << 20
		id := b.create(c)
		b.must(b.Engine.Start(b.ctx(), id))
		if code := b.wait(id); code != 137 {
			b.Errorf("exit code %d, want 137", code)
		}
		for deadline := time.Now().Add(2 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
			got := b.inspect(id) // it may be told a moment after the end
			if got.State != engine.Exited {
				b.Fatalf("container killed for its memory: %+v", got)
			}
			if got.OOMKilled {
				return
			}
		}
		b.must(b.Engine.Remove(b.ctx(), id))
	}
	b.Error("of five containers that were killed for their memory none is told to be")
}

func testAddress(b *bench) {
	one, two := b.plan("one", Forever), b.plan("two", Forever)
	n, err := b.Engine.Network(b.ctx(), one.Network, subnetOfChoice, b.Labels)
	b.must(err)
	one.Address = nth(n.Subnet, 77)
	two.Address = one.Address
	first, second := b.create(one), b.create(two) // nobody has it yet
	b.must(b.Engine.Start(b.ctx(), first))
	b.is(b.Engine.Start(b.ctx(), second), engine.ErrCannotRun)
	if got := b.inspect(second); got.State == engine.Running || got.Address != two.Address {
		b.Errorf("container whose address is taken: %+v", got)
	}
	b.must(b.Engine.Stop(b.ctx(), first, 0))
	b.must(b.Engine.Start(b.ctx(), second))
	b.is(b.Engine.Start(b.ctx(), first), engine.ErrCannotRun)
	if got := b.inspect(first); got.State != engine.Exited || got.Address != one.Address {
		b.Errorf("container that has lost its address: %+v", got)
	}

	dynamic := map[string]bool{b.inspect(second).Address.String(): true}
	for _, name := range []string{"three", "four"} {
		a := b.inspect(b.run(name, Forever)).Address
		if dynamic[a.String()] || !n.Subnet.Contains(a) || a == n.Gateway {
			b.Errorf("address %s was given to %s", a, name)
		}
		dynamic[a.String()] = true
	}
	outside := b.plan("outside", Forever)
	outside.Address = n.Subnet.Addr().Prev()
	b.is(b.Engine.Start(b.ctx(), b.create(outside)), engine.ErrCannotRun)
}
