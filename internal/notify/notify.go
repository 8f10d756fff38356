// Package notify tells people that something changed: a service went bad or
// recovered, an upgrade or a run failed, the engine is gone or back.
//
// It tells changes of state alone, gathers what changes at the same time into
// one message for each target, and never keeps its caller waiting: what cannot
// be sent is tried again for a while, and then counted. It decides nothing about
// services. It imports spec, secret and fault; supervise and cmd use it.
package notify

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"conductor/internal/spec"
)

// Kind is what a change is.
type Kind string

// The kinds are part of the contract: they are in the JSON of webhooks.
const (
	Crashing      Kind = "crashing"       // instances end again and again
	Sick          Kind = "sick"           // instances fail their check
	Recovered     Kind = "recovered"      // neither any more; or a job that failed went well
	FailedUpgrade Kind = "failed-upgrade" // each is told
	Deployed      Kind = "deployed"       // over a fleet; each is told
	FailedRun     Kind = "failed-run"     // of a job: told until it goes well; else each is told
	EngineGone    Kind = "engine-gone"
	EngineBack    Kind = "engine-back"
)

// Change is one thing that changed.
type Change struct {
	Host     string
	Service  string // empty: the host itself
	Revision string // may be empty
	Kind     Kind
	// Job is which of the service's jobs it is about, where it is one. Each has
	// a state of its own, beside that of the service's instances.
	Job  string
	Text string // the cause, in one line; may be empty
	At   time.Time
}

// Target is somebody who can be told. Send is called by one goroutine at a time.
type Target interface {
	Name() string
	// Send returns nil when the message was taken. The same message may be sent
	// again after an error: its ID is the same then. It returns soon after ctx is
	// done. No secret is in the error.
	Send(ctx context.Context, m Message) error
}

// Options are what a Notifier need not be told.
type Options struct {
	// Queue is how many lines may wait for a target; 0: 1000. Changes of one
	// service wait as one line.
	Queue int
	// Last is how long is tried to send what waits when Run ends; 0: 5 s.
	Last time.Duration
	// Warn is told when a message cannot be sent at first, and when it is given
	// up; nil: nobody. It is called by several goroutines.
	Warn func(target string, givenUp bool, err error)
}

// Stats count since New.
type Stats struct {
	Sent    int64 // messages that a target took
	Failed  int64 // messages that were given up
	Dropped int64 // changes that a full queue had no place for
}

// Notifier tells targets of changes. It is safe for concurrent use.
type Notifier struct {
	opts    Options
	inboxes []*inbox

	sent, failed, dropped atomic.Int64
}

// New returns a Notifier for targets, whose names are unique. It sends nothing
// before Run.
func New(targets []Target, opts Options) *Notifier {
	opts.Queue = cmp.Or(opts.Queue, 1000)
	opts.Last = cmp.Or(opts.Last, 5*time.Second)
	n := &Notifier{opts: opts}
	for _, t := range targets {
		n.inboxes = append(n.inboxes, newInbox(t, opts.Queue))
	}
	return n
}

// FromConfig returns a Notifier for the targets of conductor.yml.
func FromConfig(c spec.Config, opts Options) *Notifier {
	var targets []Target
	for _, t := range c.Notify {
		switch {
		case t.Webhook != nil:
			targets = append(targets, NewWebhook(t.Name, *t.Webhook))
		case t.Slack != nil:
			targets = append(targets, NewSlack(t.Name, *t.Slack))
		case t.Email != nil:
			targets = append(targets, NewEmail(t.Name, *t.Email, nil))
		}
	}
	return New(targets, opts)
}

// Tell takes a change, to be told to the targets of these names: nil is all,
// and empty is none, as in a service's policy. A name that is no target's
// stands for all, since a change that nobody hears of is worse than one that
// somebody hears of in vain. It never blocks.
func (n *Notifier) Tell(c Change, names ...string) {
	if c.At.IsZero() {
		c.At = time.Now()
	}
	c = c.clean()
	all := names == nil || slices.ContainsFunc(names, func(name string) bool {
		return !slices.ContainsFunc(n.inboxes, func(b *inbox) bool { return b.target.Name() == name })
	})
	for _, b := range n.inboxes {
		if all || slices.Contains(names, b.target.Name()) {
			if !b.add(c) {
				n.dropped.Add(1)
			}
		}
	}
}

// Forget forgets what was told of a service that is stopped or removed: nobody
// hears that it recovered, and when it goes bad again that is news.
func (n *Notifier) Forget(host, service string) {
	for _, b := range n.inboxes {
		b.forget(host, service)
	}
}

// Stats returns the counts so far.
func (n *Notifier) Stats() Stats {
	return Stats{Sent: n.sent.Load(), Failed: n.failed.Load(), Dropped: n.dropped.Load()}
}

// Run sends until ctx is done, and then tries once to send what waits, for
// Options.Last at most.
func (n *Notifier) Run(ctx context.Context) error {
	// last ends a while after ctx, so that what is being sent then is not cut off.
	last, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var ending, serving sync.WaitGroup
	defer ending.Wait()
	defer cancel()
	ending.Go(func() {
		select {
		case <-last.Done():
			return
		case <-ctx.Done():
		}
		timer := time.NewTimer(n.opts.Last)
		defer timer.Stop()
		select {
		case <-last.Done():
		case <-timer.C:
			cancel()
		}
	})
	for _, b := range n.inboxes {
		serving.Go(func() { n.serve(ctx, last, b) })
	}
	serving.Wait()
	return nil
}
