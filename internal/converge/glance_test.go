package converge

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// Whoever asks is given a look that began after it asked; those who ask while
// one is under way share the next.
func TestJoint_LooksOnceForAllWhoAskAtOneTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := newJoint[time.Time]()
		looks := 0
		look := func(context.Context) (time.Time, error) {
			looks++
			began := time.Now()
			time.Sleep(time.Second)
			return began, nil
		}
		var asking sync.WaitGroup
		for n := range 100 {
			asking.Go(func() {
				time.Sleep(time.Duration(n+1) * time.Millisecond)
				asked := time.Now()
				began, err := j.since(t.Context(), asked, look)
				if err != nil || began.Before(asked) {
					t.Errorf("asked at %s, and was given a look of %s: %v", asked, began, err)
				}
			})
		}
		asking.Wait()
		if looks != 2 {
			t.Errorf("%d looks for all, want one for the first and one for the rest", looks)
		}
	})
}

// A look that fails is everybody's, so that nobody waits for a hundred of them;
// one whose asker gave up is not.
func TestJoint_SharesFailures(t *testing.T) {
	for name, given := range map[string]struct {
		patience time.Duration // of who looks for the others too
		looks    int
	}{
		"it fails":             {time.Hour, 2},
		"the asker has enough": {500 * time.Millisecond, 3},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				j := newJoint[int]()
				looks, failed := 0, errors.New("no answer")
				look := func(ctx context.Context) (int, error) {
					looks++
					select {
					case <-time.After(time.Second):
					case <-ctx.Done():
					}
					return 0, failed
				}
				var asking sync.WaitGroup
				for n := range 3 {
					asking.Go(func() {
						time.Sleep(time.Duration(n+1) * time.Millisecond)
						ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
						if n == 1 {
							ctx, cancel = context.WithTimeout(t.Context(), time.Second+given.patience)
						}
						defer cancel()
						if _, err := j.since(ctx, time.Now(), look); !errors.Is(err, failed) {
							t.Error(err)
						}
					})
				}
				asking.Wait()
				if looks != given.looks {
					t.Errorf("%d looks, want %d", looks, given.looks)
				}
			})
		})
	}
}

// What is looked for once is looked for until it is found: a failure is that of
// all who asked for one reason, and no other's.
func TestJoint_Once(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j, looks := newJoint[int](), 0
		look := func(context.Context) (int, error) {
			time.Sleep(time.Second)
			if looks++; looks == 1 {
				return 0, errors.New("no answer")
			}
			return looks, nil
		}
		first := time.Now()
		for n, c := range []struct {
			asked time.Time
			want  int
			fails bool
			looks int
		}{
			{first, 0, true, 1},
			{first, 0, true, 1},
			{first.Add(2 * time.Second), 2, false, 2},
			{first, 2, false, 2},
			{first.Add(time.Hour), 2, false, 2},
		} {
			got, err := j.once(t.Context(), c.asked, look)
			if got != c.want || (err != nil) != c.fails || looks != c.looks {
				t.Errorf("%d: %d, %v after %d looks, want %+v", n+1, got, err, looks, c)
			}
		}
	})
}
