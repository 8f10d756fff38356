package balancer_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"conductor/internal/balancer"
	"conductor/internal/fault"
)

func TestChange_Left(t *testing.T) {
	state := map[string]balancer.Server{"in": {In: true}, "out": {}, "away": {Away: true}}
	for _, c := range []struct {
		name       string
		want, left balancer.Change
	}{
		{"nothing", balancer.Change{}, balancer.Change{}},
		{"as it is", balancer.Change{Admit: []string{"in"}, Drain: []string{"out"}, Away: []string{"away"}}, balancer.Change{}},
		{"one that is away is out already", balancer.Change{Drain: []string{"away"}}, balancer.Change{}},
		{"one that is out is not away", balancer.Change{Away: []string{"out"}}, balancer.Change{Away: []string{"out"}}},
		{"admit whoever took it out", balancer.Change{Admit: []string{"in", "out", "away"}}, balancer.Change{Admit: []string{"out", "away"}}},
		{"drain", balancer.Change{Drain: []string{"in", "out"}}, balancer.Change{Drain: []string{"in"}}},
	} {
		got, err := c.want.Left(state)
		if err != nil || got.String() != c.left.String() {
			t.Errorf("%s: %s, %v, want %s", c.name, got, err, c.left)
		}
	}
	if _, err := (balancer.Change{Admit: []string{"none"}, Drain: []string{"in"}}).Left(state); !errors.Is(err, balancer.ErrUnknown) {
		t.Errorf("an unknown host: %v", err)
	}
}

// script is a balancer that does what it is asked after some asks or some time.
type script struct {
	state map[string]balancer.Server
	asks  int
	ask   func(n int, left balancer.Change)
}

func (s *script) loop(once bool) balancer.Loop {
	return balancer.Loop{
		State: func(context.Context) (map[string]balancer.Server, error) { return s.state, nil },
		Ask: func(_ context.Context, left balancer.Change) error {
			s.asks++
			s.ask(s.asks, left)
			return nil
		},
		Up: 10 * time.Second, Prove: 5 * time.Second, Every: 100 * time.Millisecond, Once: once,
	}
}

func TestLoop_AsksAgainForWhatWasLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{state: map[string]balancer.Server{"a": {In: true, Up: true}}}
		s.ask = func(n int, _ balancer.Change) {
			if n == 3 {
				s.state = map[string]balancer.Server{"a": {Up: true}}
			}
		}
		if err := s.loop(false).Set(t.Context(), balancer.Change{Drain: []string{"a"}}); err != nil || s.asks != 3 {
			t.Errorf("%d asks, %v; want 3", s.asks, err)
		}
	})
}

func TestLoop_OnceAwaitsWhatIsSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{state: map[string]balancer.Server{"a": {In: true, Up: true}}}
		began := time.Now()
		s.ask = func(int, balancer.Change) {}
		l := s.loop(true)
		l.State = func(context.Context) (map[string]balancer.Server, error) {
			return map[string]balancer.Server{"a": {In: time.Since(began) < 3*time.Second, Up: true}}, nil
		}
		if err := l.Set(t.Context(), balancer.Change{Drain: []string{"a"}}); err != nil || s.asks != 1 {
			t.Errorf("%d asks, %v; want 1", s.asks, err)
		}
	})
}

func TestLoop_SaysWhatItSawWhenNothingComesOfIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{state: map[string]balancer.Server{"a": {In: true, Up: true, Says: "UP"}}, ask: func(int, balancer.Change) {}}
		began := time.Now()
		err := s.loop(false).Set(t.Context(), balancer.Change{Drain: []string{"a"}})
		if !errors.Is(err, balancer.ErrRefused) || !errors.Is(err, fault.ErrProxyRefused) {
			t.Errorf("set: %v", err)
		}
		if want := "drain a: the balancer refused: it was asked, and 5s later a is in (UP)"; err != nil && err.Error() != want {
			t.Errorf("error %q, want %q", err, want)
		}
		if took := time.Since(began); took < 5*time.Second || took > 6*time.Second {
			t.Errorf("it took %s", took)
		}
	})
}

func TestLoop_SwapWaitsForThoseThatComeIn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		asked := time.Duration(0)
		var order []string
		s := &script{}
		in := map[string]bool{"b": true}
		s.ask = func(_ int, left balancer.Change) {
			asked = time.Since(began)
			order = left.Hosts()
			in = map[string]bool{"a": true}
		}
		l := s.loop(false)
		l.State = func(context.Context) (map[string]balancer.Server, error) {
			return map[string]balancer.Server{"a": {In: in["a"], Up: time.Since(began) >= 4*time.Second}, "b": {In: in["b"], Up: true}}, nil
		}
		if err := l.Set(t.Context(), balancer.Change{Admit: []string{"a"}, Drain: []string{"b"}}); err != nil {
			t.Fatal(err)
		}
		if asked < 4*time.Second || asked > 5*time.Second || !slices.Equal(order, []string{"a", "b"}) {
			t.Errorf("asked for %v after %s, want a, b after 4s", order, asked)
		}
	})
}

func TestLoop_EndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s := &script{state: map[string]balancer.Server{"a": {}, "b": {In: true, Up: true}}, ask: func(int, balancer.Change) {}}
		err := s.loop(false).Set(ctx, balancer.Change{Admit: []string{"a"}, Drain: []string{"b"}})
		if !errors.Is(err, context.DeadlineExceeded) || s.asks != 0 {
			t.Errorf("%d asks, %v; want none, and the deadline", s.asks, err)
		}
	})
}

func TestNone(t *testing.T) {
	var b balancer.None
	if state, err := b.State(t.Context()); err != nil || len(state) != 0 {
		t.Errorf("state %v, %v", state, err)
	}
	if err := b.Set(t.Context(), balancer.Change{}); err != nil {
		t.Error(err)
	}
	if err := b.Set(t.Context(), balancer.Change{Drain: []string{"web1"}}); !errors.Is(err, balancer.ErrUnknown) {
		t.Errorf("drain: %v", err)
	}
}
