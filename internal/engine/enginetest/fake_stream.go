package enginetest

import (
	"context"
	"fmt"
	"io"
	"maps"
	"time"

	"conductor/internal/engine"
)

// stream is one subscriber of events: a queue, and a channel that says that
// there is something in it.
type stream struct {
	labels map[string]string
	queue  []engine.Event
	wake   chan struct{} // room for one
	broken bool
}

// Events delivers events on the caller's own goroutine, each once, none left
// out however slow f is.
func (f *Fake) Events(ctx context.Context, labels map[string]string, ready func(), each func(engine.Event)) error {
	return f.during(ctx, "Events", "", func(ctx context.Context) error {
		s := &stream{labels: maps.Clone(labels), wake: make(chan struct{}, 1)}
		f.mu.Lock()
		f.streams[s] = true
		f.mu.Unlock()
		defer func() {
			f.mu.Lock()
			delete(f.streams, s)
			f.mu.Unlock()
		}()
		ready()
		for {
			f.mu.Lock()
			queue, broken := s.queue, s.broken
			s.queue = nil
			f.mu.Unlock()
			for _, e := range queue {
				each(e)
			}
			if broken {
				return fmt.Errorf("events: %w: the stream broke", engine.ErrUnreachable)
			}
			select {
			case <-s.wake:
			case <-ctx.Done():
				return fmt.Errorf("events: %w", ctx.Err())
			}
		}
	})
}

// BreakEvents ends every stream of events, as a restart of the engine does.
func (f *Fake) BreakEvents() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.breakStreams()
}

func (f *Fake) breakStreams() {
	for s := range f.streams {
		s.broken = true
		s.ring()
		delete(f.streams, s)
	}
}

func (s *stream) ring() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (f *Fake) publish(c *container, action string) {
	e := engine.Event{Time: time.Now(), Action: action, ID: c.ID, Name: c.Name}
	if action == "die" {
		e.ExitCode = c.ExitCode
	}
	for s := range f.streams {
		if carries(c.Labels, s.labels) {
			e.Labels = maps.Clone(c.Labels)
			s.queue = append(s.queue, e)
			s.ring()
		}
	}
}

// Wait returns the exit code once the container has ended; one that was never
// started has not.
func (f *Fake) Wait(ctx context.Context, id string) (code int, err error) {
	err = f.during(ctx, "Wait", id, func(ctx context.Context) error {
		f.mu.Lock()
		c, err := f.container(id)
		if err != nil {
			f.mu.Unlock()
			return err
		}
		run := c.ended
		f.mu.Unlock()
		select {
		case <-run:
		case <-ctx.Done():
			return fmt.Errorf("wait for container %s: %w", id, ctx.Err())
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		if c.StartedAt.IsZero() {
			return fmt.Errorf("wait for container %s: %w", id, engine.ErrNotFound)
		}
		code = c.ExitCode
		return nil
	})
	return code, err
}

// Logs writes what the container's behaviour printed.
func (f *Fake) Logs(ctx context.Context, id string, o engine.LogOptions, stdout, stderr io.Writer) error {
	return f.during(ctx, "Logs", id, func(ctx context.Context) error {
		f.mu.Lock()
		c, err := f.container(id)
		if err != nil {
			f.mu.Unlock()
			return err
		}
		var lines []line
		for _, l := range c.lines {
			if l.at.Before(o.Since) {
				continue
			}
			lines = append(lines, l)
		}
		if o.Tail > 0 && len(lines) > o.Tail {
			lines = lines[len(lines)-o.Tail:]
		}
		running, run := c.State == engine.Running, c.ended
		f.mu.Unlock()
		for _, l := range lines {
			w := stdout
			if l.stderr {
				w = stderr
			}
			text := l.text
			if o.Timestamps {
				text = l.at.UTC().Format(time.RFC3339Nano) + " " + text
			}
			if _, err := io.WriteString(w, text); err != nil {
				return fmt.Errorf("logs of container %s: %w", id, err)
			}
		}
		if !o.Follow || !running {
			return nil
		}
		select {
		case <-run:
			return nil
		case <-ctx.Done():
			return fmt.Errorf("logs of container %s: %w", id, ctx.Err())
		}
	})
}

// Exec asks the behaviour what the command does. Its standard input is not read.
func (f *Fake) Exec(ctx context.Context, id string, e engine.Exec) (code int, err error) {
	err = f.during(ctx, "Exec", id, func(context.Context) error {
		f.mu.Lock()
		c, err := f.container(id)
		if err != nil {
			f.mu.Unlock()
			return err
		}
		if c.State != engine.Running {
			f.mu.Unlock()
			return fmt.Errorf("exec in container %s: %w: it is not running", c.Name, engine.ErrConflict)
		}
		run := c.live.Exec
		f.mu.Unlock()
		if run == nil {
			return nil
		}
		var out, errs string
		code, out, errs = run(e.Command)
		for _, o := range []struct {
			w    io.Writer
			text string
		}{{e.Stdout, out}, {e.Stderr, errs}} {
			if o.w == nil {
				continue
			}
			if _, err := io.WriteString(o.w, o.text); err != nil {
				return fmt.Errorf("exec in container %s: %w", id, err)
			}
		}
		return nil
	})
	return code, err
}
