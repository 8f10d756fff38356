// Package remotetest has a transport in memory, with faults, and the suite that
// it and the real one run. It is for tests.
package remotetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
	"time"

	"conductor/internal/fault"
	"conductor/internal/remote"
)

// aliveTimeout is how long a host may hang until the connection counts as cut.
const aliveTimeout = 15 * time.Second

// grace is how long an interrupted request may take.
const grace = 2 * time.Minute

// Serve is a host's conductor: its error is what Do returns, as a far end's
// would come to be.
type Serve func(ctx context.Context, host remote.Host, r remote.Request, s remote.Streams) error

// Fault is what goes wrong with a host. The zero one is none.
type Fault struct {
	// Unreachable: nobody answers.
	Unreachable bool
	// Delay is before each session begins; a wait like any other.
	Delay time.Duration
	// Hang: a session gets no answer, and is cut after 15 s. Nothing of the
	// request happens.
	Hang bool
	// CutAfter cuts a session when the far end has written so many bytes to
	// stdout, those still pass; 0: it is not cut. The far end goes on.
	CutAfter int
}

// Memory is remote.Transport in memory.
type Memory struct {
	serve Serve

	mu     sync.Mutex
	closed bool
	faults map[string]Fault // by host's name
	links  map[*link]bool
	count  int
	far    sync.WaitGroup // far ends, also those that were cut off
}

// New returns a transport to hosts that all answer with serve.
func New(serve Serve) *Memory {
	return &Memory{serve: serve, faults: map[string]Fault{}, links: map[*link]bool{}}
}

// Set has sessions that are opened from now on, on the host of the name, go
// wrong in that way.
func (m *Memory) Set(host string, f Fault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.faults[host] = f
}

// Cut cuts the sessions with the host that are under way.
func (m *Memory) Cut(host string) { m.cut(func(l *link) bool { return l.host.Name == host }) }

// Sessions is how many sessions there have been.
func (m *Memory) Sessions() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.count
}

// Wait waits until all far ends have ended, those that were cut off included.
func (m *Memory) Wait() { m.far.Wait() }

// Close is remote.Transport's.
func (m *Memory) Close() error {
	m.mu.Lock()
	m.closed = true
	m.mu.Unlock()
	m.cut(func(*link) bool { return true })
	return nil
}

func (m *Memory) cut(which func(*link) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for l := range m.links {
		if which(l) {
			l.cut()
		}
	}
}

// Do is remote.Transport's.
func (m *Memory) Do(ctx context.Context, host remote.Host, r remote.Request, s remote.Streams) error {
	if err := host.Check(); err != nil {
		return err
	}
	line, err := r.Encode()
	if err != nil {
		return err
	}
	if r, err = remote.Decode(line[:len(line)-1], r.Version); err != nil {
		return err
	}
	m.mu.Lock()
	f := m.faults[host.Name]
	m.mu.Unlock()
	if err := pause(ctx, host, f.Delay); err != nil {
		return err
	}
	if f.Unreachable {
		return fault.New(fault.ErrUnreachable, "is the host up?", "reach %s: no answer", host)
	}
	if f.Hang {
		if err := pause(ctx, host, aliveTimeout); err != nil {
			return err
		}
		return cutError(host, r)
	}

	l := &link{host: host, streams: s, left: f.CutAfter, broken: make(chan struct{}), over: make(chan error, 1)}
	m.mu.Lock()
	if m.closed {
		m.mu.Unlock()
		return fmt.Errorf("%s: %w", host.Name, remote.ErrClosed)
	}
	m.links[l] = true
	m.count++
	farCtx, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	m.far.Go(func() {
		defer cancel(nil)
		l.over <- m.serve(farCtx, host, r, l.far(r.Do.Input()))
	})
	m.mu.Unlock()
	defer func() {
		l.leave()
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.links, l)
	}()
	return l.wait(ctx, r, cancel)
}

func pause(ctx context.Context, host remote.Host, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", host.Name, context.Cause(ctx))
	}
}

func cutError(host remote.Host, r remote.Request) error {
	return fault.New(fault.ErrUnreachable, "is the host up?", "%s: %w in the middle of %s: it does not answer", host.Name, remote.ErrCut, r.What())
}

// link is one session.
type link struct {
	host    remote.Host
	streams remote.Streams
	broken  chan struct{} // closed: it was cut
	over    chan error    // the far end's

	mu     sync.Mutex
	left   int  // bytes until it is cut; 0: as many as come
	gone   bool // nothing passes any more
	isCut  bool
	failed error // of writing to the caller's streams
	stderr []byte
}

// wait waits for the far end, or the cut.
func (l *link) wait(ctx context.Context, r remote.Request, cancel context.CancelCauseFunc) error {
	input := r.Do.Input()
	cancelled, late := ctx.Done(), (<-chan time.Time)(nil)
	for {
		select {
		case err := <-l.over:
			select {
			case <-l.broken: // before it could tell
			default:
				return l.ending(r, err)
			}
		case <-l.broken:
			if input != remote.Lines {
				cancel(remote.ErrGone)
			}
			return cutError(l.host, r)
		case <-cancelled:
			cancelled = nil
			switch input {
			case remote.Bytes:
				cancel(remote.ErrGone)
				return fmt.Errorf("%s: %w", l.host.Name, context.Cause(ctx))
			case remote.Beats:
				cancel(remote.ErrGone)
			default:
				cancel(fault.ErrInterrupted)
			}
			t := time.NewTimer(grace)
			defer t.Stop()
			late = t.C
		case <-late:
			return fmt.Errorf("%s: told to end, it had not ended after a while, and may go on: %w", l.host.Name, context.Cause(ctx))
		}
	}
}

func (l *link) ending(r remote.Request, err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed != nil {
		return fmt.Errorf("%s: pass on its output: %w", l.host.Name, l.failed)
	}
	return remote.EndingOf(err, remote.ClassCode).Err(l.host, r.Do, string(l.stderr))
}

func (l *link) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.isCut {
		l.isCut, l.gone = true, true
		close(l.broken)
	}
}

// leave: the caller's streams are not touched any more.
func (l *link) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone = true
}

// far are the far end's streams.
func (l *link) far(input remote.Input) remote.Streams {
	in := io.Reader(eof{})
	if input == remote.Bytes && l.streams.Stdin != nil {
		in = farInput{l}
	}
	return remote.Streams{Stdin: in, Take: l.streams.Take, Stdout: farOutput{l, false}, Stderr: farOutput{l, true}}
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

type farInput struct{ *link }

func (in farInput) Read(p []byte) (int, error) {
	in.mu.Lock()
	gone := in.gone
	in.mu.Unlock()
	if gone {
		return 0, io.EOF
	}
	n, err := in.streams.Stdin.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = io.EOF // the far end sees no more of it
	}
	return n, err
}

type farOutput struct {
	*link
	isErr bool
}

func (out farOutput) Write(p []byte) (int, error) {
	l := out.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.gone {
		return 0, syscall.EPIPE
	}
	to := l.streams.Stdout
	if out.isErr {
		to = l.streams.Stderr
		l.stderr = append(l.stderr, p...)
	}
	n := len(p)
	if !out.isErr && l.left > 0 {
		n = min(n, l.left)
		if l.left -= n; l.left == 0 {
			l.isCut, l.gone = true, true
			close(l.broken)
		}
	}
	if to != nil {
		if _, err := to.Write(p[:n]); err != nil {
			l.gone, l.failed = true, err
			return 0, syscall.EPIPE
		}
	}
	if n < len(p) {
		return n, syscall.EPIPE
	}
	return n, nil
}
