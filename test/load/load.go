// Package load is a client that tells the truth about a server: it puts load
// on one address and counts every request that did not get a good answer.
//
// Usual clients hide what this one is for. Go's net/http, for one, sends a
// request again when its connection turns out to be stale, so a server that
// drops requests looks well. This client speaks HTTP/1.1 over its own
// connections and never sends a request twice:
//
//   - a connection that is found closed before a byte of the request is
//     written is opened again, which is what every client does: no failure;
//   - once a byte is written, anything but a whole, good answer is a failure;
//   - in an open loop requests are due at fixed times and latency counts from
//     when a request was due, so a stalled server cannot slow its own test down.
//
// Tests and the demonstration use it; the product does not.
package load

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Config is what to send, and how.
type Config struct {
	Addr   string // host:port to dial
	Host   string // Host header; empty: Addr
	Path   string // default /
	Method string // default GET
	Header map[string]string
	Body   []byte
	// Echo: an answer is good only if its body is the request's body.
	Echo bool

	// Rate is the number of requests due each second (open loop); 0: every
	// connection sends its next request as soon as it has its answer (closed
	// loop), which saturates the server.
	Rate float64
	// Connections is how many requests can be in flight; default 32.
	Connections int
	// NewConnections opens a connection for each request.
	NewConnections bool

	// Duration ends the load; 0: a minute. No request is begun after it.
	Duration time.Duration
	// Timeout is given to one request, from its dial to its last byte; default 10 s.
	Timeout time.Duration

	// Good says which statuses are no failure; nil: 200–299.
	Good func(status int) bool
	// RevisionHeader names the header that says which revision answered;
	// default X-Revision. RevisionBody, if set, finds it in the body instead,
	// as its first group.
	RevisionHeader string
	RevisionBody   *regexp.Regexp
}

func (c Config) withDefaults() Config {
	if c.Host == "" {
		c.Host = c.Addr
	}
	if c.Path == "" {
		c.Path = "/"
	}
	if c.Method == "" {
		c.Method = "GET"
	}
	if c.Connections <= 0 {
		c.Connections = 32
	}
	if c.Duration <= 0 {
		c.Duration = time.Minute
	}
	if c.Timeout <= 0 {
		c.Timeout = 10 * time.Second
	}
	if c.Good == nil {
		c.Good = func(status int) bool { return status >= 200 && status <= 299 }
	}
	if c.RevisionHeader == "" {
		c.RevisionHeader = "X-Revision"
	}
	return c
}

func (c Config) check() error {
	if c.Addr == "" {
		return errors.New("load: no address")
	}
	for k, v := range c.Header {
		if strings.ContainsAny(k+v, "\r\n") {
			return errors.New("load: a header has a line end")
		}
	}
	if strings.ContainsAny(c.Host+c.Path+c.Method, "\r\n ") {
		return errors.New("load: host, path or method has a space or line end")
	}
	return nil
}

// Run puts load on the address until cfg.Duration is over or ctx is done;
// requests in flight then are still awaited, at most cfg.Timeout.
func Run(ctx context.Context, cfg Config) Result {
	return Start(ctx, cfg).Wait()
}

// Running is load that is under way.
type Running struct {
	cfg    Config
	cancel context.CancelFunc
	done   chan struct{}
	result Result

	start time.Time
	next  atomic.Int64 // requests of the schedule that a connection took
	good  atomic.Int64
	last  atomic.Int64 // time since start of the last good answer, ns
	gap   gap
}

// Start begins the load and returns at once.
func Start(ctx context.Context, cfg Config) *Running {
	cfg = cfg.withDefaults()
	r := &Running{cfg: cfg, done: make(chan struct{})}
	if err := cfg.check(); err != nil {
		r.cancel = func() {}
		r.result = Result{Failed: 1, Failures: []Failure{{Reason: err.Error()}}}
		close(r.done)
		return r
	}
	ctx, r.cancel = context.WithTimeout(ctx, cfg.Duration)
	r.start = time.Now()
	tallies := make([]tally, cfg.Connections)
	var wg sync.WaitGroup
	for i := range tallies {
		wg.Go(func() { r.work(ctx, &tallies[i]) })
	}
	go func() {
		wg.Wait()
		r.cancel()
		r.result = r.sum(tallies)
		close(r.done)
	}()
	return r
}

// Stop ends the load, waits for what is in flight and returns the result.
func (r *Running) Stop() Result {
	r.cancel()
	return r.Wait()
}

// Wait returns the result once the load has ended.
func (r *Running) Wait() Result {
	<-r.done
	return r.result
}

// Done is closed when the load has ended.
func (r *Running) Done() <-chan struct{} { return r.done }

// Good is the number of good answers so far.
func (r *Running) Good() int64 { return r.good.Load() }

// work is one connection: it sends requests until ctx is done.
func (r *Running) work(ctx context.Context, t *tally) {
	c := newConn(r.cfg)
	defer c.close()
	for {
		due, ok := r.due(ctx)
		if !ok {
			return
		}
		late := time.Since(due)
		if late > lateAfter {
			t.late++
		}
		a, err := c.do()
		now := time.Now()
		t.sent++
		t.reopened += a.reopened
		if err != nil {
			t.fail(now, err)
			continue
		}
		t.ok(now, a.revision)
		t.latency.add(now.Sub(due))
		r.answered(now)
	}
}

// lateAfter is how far behind its time a request may be sent before it counts
// as late; timers alone are up to a millisecond off.
const lateAfter = 5 * time.Millisecond

// due waits for the time of the next request.
func (r *Running) due(ctx context.Context) (time.Time, bool) {
	if r.cfg.Rate <= 0 {
		return time.Now(), ctx.Err() == nil
	}
	n := r.next.Add(1) - 1
	at := r.start.Add(time.Duration(float64(n) / r.cfg.Rate * float64(time.Second)))
	wait := time.Until(at)
	if wait <= 0 {
		return at, ctx.Err() == nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return at, ctx.Err() == nil
	case <-ctx.Done():
		return at, false
	}
}

// answered notes a good answer for the gap between good answers.
func (r *Running) answered(now time.Time) {
	r.good.Add(1)
	at := now.Sub(r.start)
	before := time.Duration(r.last.Swap(int64(at)))
	r.gap.widen(before, at)
}

// gap is the longest time without a good answer.
type gap struct {
	longest atomic.Int64 // ns; read first, so that the lock is rare
	mu      sync.Mutex
	from    time.Duration
}

func (g *gap) widen(from, to time.Duration) {
	if int64(to-from) <= g.longest.Load() {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if int64(to-from) > g.longest.Load() {
		g.longest.Store(int64(to - from))
		g.from = from
	}
}
