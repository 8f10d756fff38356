package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"conductor/test/bench/container"
	"conductor/test/image"
)

// happenings are what the engine tells of containers, from when on it is
// listened to.
type happenings struct {
	mu   sync.Mutex
	list []happening
	news chan struct{} // closed and replaced at each
	err  error         // why there are no more
}

type happening struct {
	container.Event
	at time.Time
}

// listen returns when nothing is missed any more; it ends with ctx.
func listen(ctx context.Context, e *image.Engine) (*happenings, error) {
	h := &happenings{news: make(chan struct{})}
	ready, failed := make(chan struct{}), make(chan error, 1)
	tell := func(f func()) {
		h.mu.Lock()
		defer h.mu.Unlock()
		f()
		close(h.news)
		h.news = make(chan struct{})
	}
	go func() {
		err := container.Events(ctx, e, func() { close(ready) }, func(ev container.Event) {
			tell(func() { h.list = append(h.list, happening{ev, time.Now()}) })
		})
		tell(func() { h.err = err })
		failed <- err
	}()
	select {
	case <-ready:
		return h, nil
	case err := <-failed:
		return nil, err
	}
}

// count is how many there were so far.
func (h *happenings) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.list)
}

// first returns the first one from the nth on that is meant.
func (h *happenings) first(ctx context.Context, n int, action string, is func(container.Event) bool) (happening, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	for {
		h.mu.Lock()
		fresh, news, err := h.list[n:], h.news, h.err
		h.mu.Unlock()
		for _, e := range fresh {
			if n++; e.Action == action && is(e.Event) {
				return e, nil
			}
		}
		if err != nil {
			return happening{}, err
		}
		select {
		case <-news:
		case <-ctx.Done():
			return happening{}, fmt.Errorf("the engine tells no %s: %w", action, ctx.Err())
		}
	}
}

func is(id string) func(container.Event) bool {
	return func(e container.Event) bool { return e.Actor.ID == id }
}

func labelled(key, value string) func(container.Event) bool {
	return func(e container.Event) bool { return e.Actor.Attributes[key] == value }
}

// servedBy returns once nginx gives an answer of the container.
func servedBy(ctx context.Context, at, id string) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	client := http.Client{Timeout: 500 * time.Millisecond, Transport: &http.Transport{DisableKeepAlives: true}}
	last := "no answer"
	for {
		req, err := http.NewRequestWithContext(ctx, "GET", "http://"+at+"/", nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err == nil {
			resp.Body.Close()
			who := resp.Header.Get("X-Instance")
			if resp.StatusCode == http.StatusOK && len(who) >= 12 && len(id) >= 12 && who[:12] == id[:12] {
				return nil
			}
			last = resp.Status + " of " + who
		} else {
			last = err.Error()
		}
		if err := pause(ctx, time.Millisecond); err != nil {
			return fmt.Errorf("%s does not serve at %s (%s): %w", id, at, last, err)
		}
	}
}
