package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/client"

	"conductor/internal/engine"
)

// Logs writes the container's output, apart. A container with a terminal has
// one output, which is stdout.
func (e *Engine) Logs(ctx context.Context, id string, o engine.LogOptions, stdout, stderr io.Writer) error {
	c, err := e.Inspect(ctx, id)
	if err != nil {
		return err
	}
	opts := client.ContainerLogsOptions{ShowStdout: true, ShowStderr: true, Follow: o.Follow, Timestamps: o.Timestamps}
	if o.Tail > 0 {
		opts.Tail = strconv.Itoa(o.Tail)
	}
	if !o.Since.IsZero() {
		opts.Since = stamp(o.Since)
	}
	body, err := e.api.ContainerLogs(ctx, id, opts)
	if err != nil {
		return e.fail(ctx, err, "logs of container %s", id)
	}
	defer body.Close()
	// Who reads them may be what fails: a pipe that is closed.
	out, errs := &sink{w: stdout}, &sink{w: stderr}
	if c.TTY {
		_, err = io.Copy(out, body)
	} else {
		_, err = stdcopy.StdCopy(out, errs, body)
	}
	return e.copied(ctx, err, "logs of container "+id, out, errs)
}

// copied turns the end of a copy into an error: the writer's own, or the
// connection's.
func (e *Engine) copied(ctx context.Context, err error, what string, sinks ...*sink) error {
	for _, s := range sinks {
		if s.err != nil {
			return fmt.Errorf("%s: %w", what, s.err)
		}
	}
	if err != nil {
		return e.fail(ctx, err, "%s", what)
	}
	return nil
}

// sink is a writer that remembers its error, and may be none.
type sink struct {
	w   io.Writer
	err error
}

func (s *sink) Write(b []byte) (int, error) {
	if s.w == nil {
		return len(b), nil
	}
	n, err := s.w.Write(b)
	if err != nil {
		s.err = err
	}
	return n, err
}

// stamp is a time as the API takes it, to the nanosecond.
func stamp(t time.Time) string { return fmt.Sprintf("%d.%09d", t.Unix(), t.Nanosecond()) }

// changes are the events that are passed on; the engine leaves out the others,
// among them three for every command run inside a container.
var changes = []string{"create", "start", "die", "oom", "stop", "kill", "destroy", "pause", "unpause"}

// Events calls f for each change.
//
// Docker sends the head of its answer before it subscribes, so that the stream
// alone could miss what falls between. It is asked for what has happened since
// just before the call too, which covers that.
func (e *Engine) Events(ctx context.Context, labels map[string]string, ready func(), f func(engine.Event)) error {
	if err := e.agree(ctx); err != nil {
		return err
	}
	filters := byLabels(labels).Add("type", string(events.ContainerEventType)).Add("event", changes...)
	var answered atomic.Bool
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the client's goroutine
	res := e.api.Events(withAnswer(ctx, func() { answered.Store(true) }), client.EventsListOptions{
		Since: stamp(time.Now()), Filters: filters,
	})
	if answered.Load() {
		ready()
	}
	for {
		select {
		case m := <-res.Messages:
			f(eventOf(m))
		case err := <-res.Err:
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return e.fail(ctx, err, "events")
		}
	}
}

// eventOf takes the labels out of the attributes, which the engine mixes with
// its own.
func eventOf(m events.Message) engine.Event {
	out := engine.Event{
		Time: time.Unix(0, m.TimeNano), Action: string(m.Action), ID: m.Actor.ID,
		Name: m.Actor.Attributes["name"], Labels: map[string]string{},
	}
	out.ExitCode, _ = strconv.Atoi(m.Actor.Attributes["exitCode"]) // there is one where something ended
	for k, v := range m.Actor.Attributes {
		switch k {
		case "name", "image", "exitCode", "signal", "execDuration", "containerExitCode", "podId":
		default:
			out.Labels[k] = v
		}
	}
	return out
}
