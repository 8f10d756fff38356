package converge

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"

	"conductor/internal/fault"
)

// firstOf returns the first that is not zero.
func firstOf[T comparable](vs ...T) (zero T) {
	for _, v := range vs {
		if v != zero {
			return v
		}
	}
	return zero
}

func join(names []string) string { return strings.Join(names, ", ") }

// without leaves out what is empty.
func without(words ...string) []string {
	return slices.DeleteFunc(words, func(w string) bool { return w == "" })
}

// outcomeWord is how the history calls the end of a verb.
func outcomeWord(err error) string {
	switch {
	case err == nil:
		return "ok"
	case errors.Is(err, fault.ErrInterrupted):
		return "interrupted"
	case errors.Is(err, fault.ErrTimeout):
		return "timeout"
	}
	return "failed"
}

// inParallel calls f for 0 … n-1, at most limit at once.
func inParallel(n, limit int, f func(int)) {
	var wg sync.WaitGroup
	slots := make(chan struct{}, limit)
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			f(i)
		})
	}
	wg.Wait()
}

// limited gives a call that should take milliseconds at most callTimeout: who
// does not answer by then cannot be reached.
func limited(ctx context.Context, call func(context.Context) error) error {
	short, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := call(short)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		err = fault.New(fault.ErrUnreachable, "", "no answer in %s: %w", callTimeout, err)
	}
	return err
}

// turn is had by one at a time.
type turn chan struct{}

func newTurn() turn { return make(turn, 1) }

// take waits for the turn, as long as ctx allows: whose call hangs must not hold
// the others up beyond their own time, and whose time is over gets none.
func (t turn) take(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case t <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (t turn) leave() { <-t }
