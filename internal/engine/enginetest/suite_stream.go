package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"time"

	"conductor/internal/engine"
)

// subnetOfChoice leaves the choice of a subnet to the engine.
var subnetOfChoice netip.Prefix

func testLogs(b *bench) {
	id := b.run("printer", Print("to stdout", "to stderr"))
	b.wait(id)
	var out, errs bytes.Buffer
	b.must(b.Engine.Logs(b.ctx(), id, engine.LogOptions{}, &out, &errs))
	if out.String() != "to stdout\n" || errs.String() != "to stderr\n" {
		b.Errorf("stdout %q, stderr %q", out.String(), errs.String())
	}

	id = b.run("counter", Count(5))
	b.wait(id)
	for _, c := range []struct {
		o    engine.LogOptions
		want string
	}{
		{engine.LogOptions{}, "line 1\nline 2\nline 3\nline 4\nline 5\n"},
		{engine.LogOptions{Tail: 2}, "line 4\nline 5\n"},
		{engine.LogOptions{Tail: 2, Follow: true}, "line 4\nline 5\n"},
		{engine.LogOptions{Since: time.Now().Add(time.Hour)}, ""},
		{engine.LogOptions{Since: time.Now().Add(-time.Hour), Tail: 1}, "line 5\n"},
	} {
		out.Reset()
		b.must(b.Engine.Logs(b.ctx(), id, c.o, &out, io.Discard))
		if out.String() != c.want {
			b.Errorf("logs %+v: %q, want %q", c.o, out.String(), c.want)
		}
	}
	out.Reset()
	b.must(b.Engine.Logs(b.ctx(), id, engine.LogOptions{Tail: 1, Timestamps: true}, &out, io.Discard))
	at, rest, _ := strings.Cut(out.String(), " ")
	if t, err := time.Parse(time.RFC3339Nano, at); err != nil || rest != "line 5\n" || time.Since(t) > time.Minute {
		b.Errorf("log with its time: %q", out.String())
	}
	b.is(b.Engine.Logs(b.ctx(), id, engine.LogOptions{}, brokenPipe{}, io.Discard), errBroken)
}

var errBroken = errors.New("broken pipe")

type brokenPipe struct{}

func (brokenPipe) Write([]byte) (int, error) { return 0, errBroken }

func testLogsFollow(b *bench) {
	id := b.ready("app", Forever)
	ctx := b.ctx()
	var out bytes.Buffer
	done := make(chan error, 1)
	go func() { done <- b.Engine.Logs(ctx, id, engine.LogOptions{Follow: true}, &out, io.Discard) }()
	select {
	case err := <-done:
		b.Fatalf("logs of a running container ended: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	b.must(b.Engine.Stop(b.ctx(), id, 0))
	b.must(<-done)
	if out.String() != "ready\n" {
		b.Errorf("logs %q", out.String())
	}

	id = b.ready("other", Forever)
	ctx, cancel := context.WithTimeout(b.Context(), 100*time.Millisecond)
	defer cancel()
	b.is(b.Engine.Logs(ctx, id, engine.LogOptions{Follow: true}, io.Discard, io.Discard), context.DeadlineExceeded)
}

func testExec(b *bench) {
	id := b.run("app", Forever)
	var out, errs bytes.Buffer
	code, err := b.Engine.Exec(b.ctx(), id, engine.Exec{
		Command: append([]string{"/app"}, Print("o", "e")...), Streams: engine.Streams{Stdout: &out, Stderr: &errs},
	})
	b.must(err)
	if code != 0 || out.String() != "o\n" || errs.String() != "e\n" {
		b.Errorf("code %d, stdout %q, stderr %q", code, out.String(), errs.String())
	}
	code, err = b.Engine.Exec(b.ctx(), id, engine.Exec{Command: append([]string{"/app"}, Exit(3)...)})
	b.must(err)
	if code != 3 {
		b.Errorf("code %d, want 3", code)
	}
	code, err = b.Engine.Exec(b.ctx(), id, engine.Exec{Command: []string{"/absent"}})
	b.must(err)
	if code != 126 && code != 127 {
		b.Errorf("code %d of a command that is not there, want 126 or 127", code)
	}
	b.must(b.Engine.Stop(b.ctx(), id, 0))
	_, err = b.Engine.Exec(b.ctx(), id, engine.Exec{Command: []string{"/app"}})
	b.is(err, engine.ErrConflict)
}

// eventLog is Events at work in the background.
type eventLog struct {
	b      *bench
	events chan engine.Event
	cancel context.CancelFunc
	done   chan error
}

func (b *bench) listen(labels map[string]string) *eventLog {
	b.Helper()
	ctx, cancel := context.WithCancel(b.ctx())
	l := &eventLog{b: b, events: make(chan engine.Event, 1000), cancel: cancel, done: make(chan error, 1)}
	ready := make(chan struct{})
	go func() {
		l.done <- b.Engine.Events(ctx, labels, func() { close(ready) }, func(e engine.Event) { l.events <- e })
	}()
	select {
	case <-ready:
	case err := <-l.done:
		b.Fatal(err)
	}
	return l
}

// until collects events up to one with the action and name.
func (l *eventLog) until(action, name string) (all []engine.Event) {
	l.b.Helper()
	for {
		select {
		case e := <-l.events:
			if all = append(all, e); e.Action == action && e.Name == name {
				return all
			}
		case err := <-l.done:
			l.b.Fatalf("events ended: %v", err)
		case <-l.b.ctx().Done():
			l.b.Fatalf("no %s of %s among %v", action, name, all)
		}
	}
}

func testEvents(b *bench) {
	mine := map[string]string{"mine": "yes"}
	for k, v := range b.Labels {
		mine[k] = v
	}
	// An event may fall into the moment at which the stream begins: try it often.
	for i := range 5 {
		c := b.plan(fmt.Sprint("app-", i), Forever)
		c.Labels = mine
		other := b.plan(fmt.Sprint("other-", i), Exit(0))
		l := b.listen(mine)
		begin := time.Now().Add(-time.Second)
		b.wait(b.startOf(other))
		id := b.startOf(c)
		b.must(b.Engine.Stop(b.ctx(), id, 0))
		b.must(b.Engine.Remove(b.ctx(), id))
		var got []string
		for _, e := range l.until("destroy", c.Name) {
			if e.ID != id || e.Name != c.Name || e.Labels["mine"] != "yes" || e.Time.Before(begin) || time.Since(e.Time) > time.Minute {
				b.Errorf("event %+v", e)
			}
			if e.Action != "kill" { // one or two of them
				got = append(got, e.Action)
			}
		}
		// Docker tells of the stop after the end.
		if want := []string{"create", "start", "die", "stop", "destroy"}; !slices.Equal(got, want) {
			b.Errorf("events %q, want %q", got, want)
		}
		l.cancel()
		b.is(<-l.done, context.Canceled)
	}
}

func (b *bench) startOf(c engine.Create) string {
	b.Helper()
	id := b.create(c)
	b.must(b.Engine.Start(b.ctx(), id))
	return id
}

func testNotFound(b *bench) {
	ctx, e := b.ctx(), b.Engine
	id := b.name("absent")
	_, inspect := e.Inspect(ctx, id)
	_, wait := e.Wait(ctx, id)
	_, exec := e.Exec(ctx, id, engine.Exec{Command: []string{"/app"}})
	for name, err := range map[string]error{
		"inspect": inspect, "wait": wait, "exec": exec,
		"save":  e.SaveImage(ctx, id, io.Discard),
		"start": e.Start(ctx, id), "stop": e.Stop(ctx, id, 0), "kill": e.Kill(ctx, id, "SIGTERM"),
		"attach": e.Attach(ctx, id, engine.Streams{}, func() { b.Error("attached to nothing") }),
		"logs":   e.Logs(ctx, id, engine.LogOptions{}, io.Discard, io.Discard),
	} {
		if !errors.Is(err, engine.ErrNotFound) {
			b.Errorf("%s: got %v, want ErrNotFound", name, err)
		} else if !strings.Contains(err.Error(), id) {
			b.Errorf("%s: %v does not name the container", name, err)
		}
	}
	b.must(e.Remove(ctx, id))
	b.must(e.Untag(ctx, id))
}

func testContext(b *bench) {
	c := b.plan("app", Forever)
	ctx, cancel := context.WithCancel(b.Context())
	cancel()
	e := b.Engine
	_, info := e.Info(ctx)
	_, image := e.Image(ctx, b.Image)
	_, pull := e.Pull(ctx, b.Image)
	_, images := e.Images(ctx)
	_, load := e.LoadImage(ctx, strings.NewReader(""))
	_, network := e.Network(ctx, c.Network, subnetOfChoice, nil)
	_, list := e.List(ctx, b.Labels)
	_, inspect := e.Inspect(ctx, c.Name)
	_, create := e.Create(ctx, c)
	_, wait := e.Wait(ctx, c.Name)
	_, exec := e.Exec(ctx, c.Name, engine.Exec{Command: []string{"/app"}})
	for name, err := range map[string]error{
		"info": info, "image": image, "pull": pull, "images": images, "load": load, "save": e.SaveImage(ctx, b.Image, io.Discard), "network": network, "list": list, "inspect": inspect,
		"create": create, "wait": wait, "exec": exec,
		"tag": e.Tag(ctx, c.Image, b.Image), "untag": e.Untag(ctx, b.name("x")),
		"start": e.Start(ctx, c.Name), "stop": e.Stop(ctx, c.Name, 0), "kill": e.Kill(ctx, c.Name, "SIGTERM"), "remove": e.Remove(ctx, c.Name),
		"attach": e.Attach(ctx, c.Name, engine.Streams{}, func() {}),
		"logs":   e.Logs(ctx, c.Name, engine.LogOptions{}, io.Discard, io.Discard),
		"events": e.Events(ctx, nil, func() {}, func(engine.Event) {}),
	} {
		if !errors.Is(err, context.Canceled) || errors.Is(err, engine.ErrUnreachable) {
			b.Errorf("%s: got %v, want the context's error", name, err)
		}
	}
}
