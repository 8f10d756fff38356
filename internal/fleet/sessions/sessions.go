// Package sessions has a fleet's hosts do things: each call of fleet.Hosts is a
// session with the conductor of the host.
//
// cmd puts it together. It imports fleet, remote, ship and the engine's port.
package sessions

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"conductor/internal/event"
	"conductor/internal/fault"
	"conductor/internal/fleet"
	"conductor/internal/remote"
)

// Hosts are the hosts of one deploy, by their names.
type Hosts struct {
	Transport remote.Transport
	At        map[string]remote.Host
	Version   string // of this program
	By        string // who asks: "alice@laptop"
	Reason    string
	// Ship has a host have the image, from this machine; nil: hosts fetch it
	// themselves, as they do those of services that Ships is false for.
	Ship  func(ctx context.Context, host, service, revision string) (said string, err error)
	Ships func(service string) bool

	token string
	once  sync.Once
}

var _ fleet.Hosts = (*Hosts)(nil)

func (h *Hosts) request(do remote.Do) remote.Request {
	return remote.Request{Version: h.Version, Do: do, By: h.By, Reason: h.Reason}
}

// held is a request that is refused unless this deploy has the lock.
func (h *Hosts) held(do remote.Do, service, revision string) remote.Request {
	r := h.request(do)
	r.Service, r.Revision, r.Hold = service, revision, h.lock()
	return r
}

// lock is the token by which the hosts know this deploy.
func (h *Hosts) lock() string {
	h.once.Do(func() { h.token = rand.Text() })
	return h.token
}

// Look asks how the host is.
func (h *Hosts) Look(ctx context.Context, host string, q fleet.Question) (seen fleet.Seen, err error) {
	r := h.request(remote.Observe)
	r.Service, r.Revision, r.Whole = q.Service, q.Revision, q.Whole
	err = remote.Ask(ctx, h.Transport, h.At[host], r, &seen)
	return seen, err
}

// Hold takes the lock there and keeps it by a session.
func (h *Hosts) Hold(ctx context.Context, host string, q fleet.Question, wait bool) (fleet.Held, error) {
	r := h.request(remote.Hold)
	r.Service, r.Revision, r.Wait, r.Token, r.Look = q.Service, q.Revision, wait, h.lock(), true
	return h.keep(ctx, host, r).held(ctx)
}

// Attend asks how the host is by a session that takes the lock when it is told to.
func (h *Hosts) Attend(ctx context.Context, host string, q fleet.Question, wait bool) (fleet.Attended, error) {
	r := h.request(remote.Hold)
	r.Service, r.Revision, r.Whole, r.Wait, r.Token = q.Service, q.Revision, q.Whole, wait, h.lock()
	r.Attend, r.Look = true, true
	k := h.keep(ctx, host, r)
	seen, err := k.looked(ctx)
	if err != nil {
		return fleet.Attended{}, err
	}
	take := sync.OnceFunc(func() { close(k.take) })
	return fleet.Attended{Seen: seen, Leave: k.release, Hold: func(ctx context.Context) (fleet.Held, error) {
		take()
		return k.held(ctx)
	}}, nil
}

// Bring has the host fetch the image, or sends it there.
func (h *Hosts) Bring(ctx context.Context, host, service, revision string) (said string, err error) {
	if h.Ship != nil && h.Ships(service) {
		return h.Ship(ctx, host, service, revision)
	}
	return "", h.Transport.Do(ctx, h.At[host], h.held(remote.Bring, service, revision), remote.Streams{})
}

// Test runs the command in a container, and tells its last words.
func (h *Hosts) Test(ctx context.Context, host string, t fleet.Task) error {
	ctx, cancel := within(ctx, t.Timeout)
	defer cancel()
	r := h.held(remote.Exec, t.Service, t.Revision)
	r.Args = append([]string{"run", "--id", t.Service, "--revision", t.Revision, "--"}, t.Command...)
	var out tail
	err := h.Transport.Do(ctx, h.At[host], r, remote.Streams{Stdout: &out, Stderr: &out})
	if exit, ok := errors.AsType[*remote.ExitError](err); ok {
		return fault.New(fault.ErrUnhealthy, "conductor runs logs on "+host+" shows all that it said", "the test ended with exit code %d on %s:\n%s", exit.Code, host, out.last())
	}
	return err
}

// Migrate runs the migration.
func (h *Hosts) Migrate(ctx context.Context, host string, t fleet.Task) error {
	ctx, cancel := within(ctx, t.Timeout)
	defer cancel()
	r := h.held(remote.Migrate, t.Service, t.Revision)
	r.Command = t.Command
	var out tail
	err := h.Transport.Do(ctx, h.At[host], r, remote.Streams{Stdout: &out})
	if said := out.last(); err != nil && said != "" {
		return fmt.Errorf("%w\n%s", err, said)
	}
	return err
}

func within(ctx context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	if d <= 0 {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, d, fault.ErrTimeout)
}

// Mark notes something of a revision there.
func (h *Hosts) Mark(ctx context.Context, host, service, revision string, m fleet.Mark) error {
	r := h.held(remote.Mark, service, revision)
	r.Mark = string(m)
	return h.Transport.Do(ctx, h.At[host], r, remote.Streams{})
}

// Upgrade is the host's own command.
func (h *Hosts) Upgrade(ctx context.Context, host string, u fleet.Upgrade, emit event.Sink) (*fleet.Seen, error) {
	r := h.held(remote.Command, u.Service, u.Revision)
	verb := "upgrade"
	if u.Back {
		verb = "rollback"
	}
	r.Args = []string{"service", verb, "--id", u.Service, "--revision", u.Revision}
	if u.SkipBefore && !u.Back {
		r.Args = append(r.Args, "--skip-before")
	}
	r.Look = true
	events := &events{emit: emit}
	err := events.tell(h.Transport.Do(ctx, h.At[host], r, remote.Streams{Stdout: events}))
	return events.seen, err
}

// events are the lines of a command's answer.
type events struct {
	emit   event.Sink
	looked func() // when the host has said how it is; nil: nobody waits for it
	held   func() // when the host says that it keeps a lock; nil: it keeps none
	part   []byte
	result remote.Result // the last
	seen   *fleet.Seen   // nil: the host did not say
}

// tell puts the command's own account of its failure into the error, in place of
// all that it said on stderr.
func (e *events) tell(err error) error {
	exit, isExit := errors.AsType[*remote.ExitError](err)
	if !isExit || e.result.Error == "" {
		return err
	}
	exit.Text = e.result.Error
	if class, ok := errors.AsType[*fault.Error](err); ok {
		class.Hint = cmp.Or(e.result.Hint, class.Hint)
	}
	return err
}

func (e *events) Write(b []byte) (int, error) {
	e.part = append(e.part, b...)
	for {
		text, rest, found := bytes.Cut(e.part, []byte("\n"))
		if !found {
			return len(b), nil
		}
		e.part = rest
		var ev event.Event
		switch {
		case json.Unmarshal(text, &ev) != nil || ev.Event == "":
		case ev.Event == "result":
			_ = json.Unmarshal(text, &e.result) // it is JSON, and may say nothing
		case ev.Event == remote.SightEvent:
			e.sight(text)
			if e.looked != nil {
				e.looked()
			}
		case ev.Event == remote.HeldEvent:
			if e.held != nil {
				e.held()
			}
		default:
			e.emit(ev)
		}
	}
}

// sight takes in how the host is. One that cannot be read is none: the host is
// asked again.
func (e *events) sight(text []byte) {
	var s remote.Sight
	seen := &fleet.Seen{}
	if json.Unmarshal(text, &s) == nil && json.Unmarshal(s.Seen, seen) == nil {
		e.seen = seen
	}
}

// Verify asks the service through the host's proxy.
func (h *Hosts) Verify(ctx context.Context, host, service string) error {
	r := h.request(remote.Verify)
	r.Service = service
	return h.Transport.Do(ctx, h.At[host], r, remote.Streams{})
}

// tail keeps the end of what is written.
type tail struct {
	mu sync.Mutex
	b  []byte
}

// tailBytes is how much of a command's output is kept to be told.
const tailBytes = 16 << 10

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b...)
	if len(t.b) > 2*tailBytes {
		t.b = append([]byte(nil), t.b[len(t.b)-tailBytes:]...)
	}
	return len(b), nil
}

func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return remote.LastLines(string(t.b))
}
