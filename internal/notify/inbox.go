package notify

import (
	"cmp"
	"context"
	"crypto/rand"
	"slices"
	"sync"
	"time"
)

// subject is what has a state.
type subject struct{ host, service, job string }

// place is where a change waits: beside others of its subject. What has no
// state waits with what is the same.
type place struct {
	subject
	kind     Kind
	revision string
}

// bad is what a target was told of a subject since that was well.
type bad struct {
	kinds map[Kind]bool
	first Change
}

// inbox is what one target has been told, and what waits to be told.
type inbox struct {
	target Target
	bound  int
	news   chan struct{} // something waits that did not before

	mu      sync.Mutex
	told    map[subject]*bad
	waiting map[place]*Line
	lost    int // changes that were not told and will not be
}

func newInbox(t Target, bound int) *inbox {
	return &inbox{target: t, bound: bound, news: make(chan struct{}, 1), told: map[subject]*bad{}, waiting: map[place]*Line{}}
}

// add puts a change where it waits, if it is one. ok is false where there is no
// place for it; it may be told again then.
func (b *inbox) add(c Change) (ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := c.subject()
	before := b.told[s]
	at := place{subject: s}
	switch {
	case c.happens():
		at.kind, at.revision = c.Kind, c.Revision
	case c.good() && before == nil, before != nil && before.kinds[c.Kind]:
		return true // no news
	}
	line := b.waiting[at]
	if line == nil {
		if len(b.waiting) >= b.bound {
			b.lost++
			return false
		}
		line = &Line{}
		b.waiting[at] = line
	}
	line.Change = c
	line.Times++
	line.Was, line.Since = "", time.Time{}
	switch {
	case c.happens():
	case c.good():
		line.Was, line.Since = before.first.Kind, before.first.At
		line.Text = cmp.Or(c.Text, before.first.Text)
		delete(b.told, s)
	case before == nil:
		b.told[s] = &bad{kinds: map[Kind]bool{c.Kind: true}, first: c}
	default:
		before.kinds[c.Kind] = true
	}
	select {
	case b.news <- struct{}{}:
	default:
	}
	return true
}

// gather returns when there is a message to send, or ctx is done.
func (b *inbox) gather(ctx context.Context) {
	select {
	case <-b.news:
	case <-ctx.Done():
		return
	}
	calm, enough := time.NewTimer(quiet), time.NewTimer(gathering)
	defer calm.Stop()
	defer enough.Stop()
	for {
		select {
		case <-b.news:
			calm.Reset(quiet)
		case <-calm.C:
			return
		case <-enough.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// take makes a message of all that waits, the bad first, then as it happened.
func (b *inbox) take() (m Message, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.waiting) == 0 {
		return m, false
	}
	m = Message{ID: rand.Text(), At: time.Now(), Lost: b.lost}
	for _, line := range b.waiting {
		m.Lines = append(m.Lines, *line)
	}
	slices.SortFunc(m.Lines, func(x, y Line) int {
		return cmp.Or(cmp.Compare(x.Kind.rank(), y.Kind.rank()), x.At.Compare(y.At),
			cmp.Compare(x.Host, y.Host), cmp.Compare(x.Service, y.Service), cmp.Compare(x.Job, y.Job))
	})
	clear(b.waiting)
	b.lost = 0
	return m, true
}

// lose remembers that a message was given up, for the next one to say.
func (b *inbox) lose(m Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lost += m.Lost
	for _, line := range m.Lines {
		b.lost += line.Times
	}
}

func (b *inbox) forget(host, service string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for s := range b.told {
		if s.host == host && s.service == service {
			delete(b.told, s)
		}
	}
}

func (c Change) subject() subject {
	return subject{c.Host, c.Service, c.Job}
}

// good tells that what was bad is no more.
func (c Change) good() bool { return c.Kind == Recovered || c.Kind == EngineBack }

// happens tells that it is no state, but happened once.
func (c Change) happens() bool {
	return c.Kind == FailedUpgrade || c.Kind == Deployed || c.Kind == FailedRun && c.Job == ""
}
