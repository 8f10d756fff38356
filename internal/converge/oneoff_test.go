package converge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"conductor/internal/engine"
	"conductor/internal/engine/enginetest"
)

// slowKiller is an engine that takes a while for each signal, less for each
// later one, or hangs at those of some name.
type slowKiller struct {
	*enginetest.Fake
	takes time.Duration // the first
	hangs string

	mu    sync.Mutex
	calls int
	came  []string // signals that it gave to the process
}

func (k *slowKiller) Kill(ctx context.Context, id, signal string) error {
	k.mu.Lock()
	k.calls++
	takes := k.takes / time.Duration(k.calls)
	k.mu.Unlock()
	if signal == k.hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	select {
	case <-time.After(takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	k.mu.Lock()
	k.came = append(k.came, signal)
	k.mu.Unlock()
	return k.Fake.Kill(ctx, id, signal)
}

// A command gets its signals one after the other, however long the engine takes
// for one, and the third interrupt kills it even where the engine hangs with one
// before.
func TestOneOff_Signals(t *testing.T) {
	for _, c := range []struct {
		name    string
		takes   time.Duration
		hangs   string
		signals []string
		came    []string
		code    int
		limit   time.Duration // for its end, from the last signal
	}{
		{"in order", time.Second, "", []string{"SIGUSR1", "SIGHUP", "SIGUSR2", "SIGCONT", "SIGTERM"},
			[]string{"SIGUSR1", "SIGHUP", "SIGUSR2", "SIGCONT", "SIGTERM"}, 3, 5 * time.Second},
		{"one that waits already", time.Second, "", []string{"SIGHUP", "SIGUSR1", "SIGUSR1", "SIGUSR1", "SIGHUP", "SIGTERM"},
			[]string{"SIGHUP", "SIGUSR1", "SIGHUP", "SIGTERM"}, 3, 5 * time.Second},
		{"the third interrupt", time.Millisecond, "SIGINT", []string{"SIGINT", "SIGUSR1", "SIGINT", "SIGTERM"},
			[]string{"SIGKILL"}, 137, time.Second},
		{"one that hangs is given up", time.Second, "SIGHUP", []string{"SIGHUP", "SIGTERM"},
			[]string{"SIGTERM"}, 3, callTimeout + time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := &slowKiller{Fake: enginetest.NewFake(), takes: c.takes, hangs: c.hangs}
				o := startOneOff(t, k.Fake, k)
				signals, streamed, end := make(chan string), make(chan error, 1), make(chan ended)
				streamed <- nil
				go func() {
					code, err := o.await(t.Context(), signals, streamed)
					end <- ended{code, err}
				}()
				began := time.Now()
				for _, s := range c.signals {
					signals <- s
					synctest.Wait()
				}
				if d := time.Since(began); d != 0 {
					t.Errorf("who sends signals was kept for %s", d)
				}
				if e := <-end; e.code != c.code || e.err != nil {
					t.Errorf("exit %d, %v; want %d", e.code, e.err, c.code)
				}
				if d := time.Since(began); d > c.limit {
					t.Errorf("it ended after %s, want at most %s", d, c.limit)
				}
				if !slices.Equal(k.came, c.came) {
					t.Errorf("the command got %v, want %v", k.came, c.came)
				}
			})
		})
	}
}

// The engine goes away while a run is under way: what can be known of its end
// is told.
func TestOneOff_EngineGone(t *testing.T) {
	for _, c := range []struct {
		name string
		back func(context.Context, *enginetest.Fake, string) error // what happens meanwhile; nil: it stays away
		said string
	}{
		{"it ended meanwhile", func(ctx context.Context, f *enginetest.Fake, id string) error { return f.Kill(ctx, id, "SIGKILL") },
			"the engine was restarted while it ran; it ended with exit code 137"},
		{"it is gone meanwhile", func(ctx context.Context, f *enginetest.Fake, id string) error {
			return errors.Join(f.Kill(ctx, id, "SIGKILL"), f.Remove(ctx, id))
		}, "somebody removed its container run: how it ended is not known"},
		{"the engine stays away", nil, "did not come back within 20s"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := enginetest.NewFake()
				o := startOneOff(t, f, f)
				away := time.Now().Add(5 * time.Second)
				f.Intercept = func(op, _ string) enginetest.Fault {
					if op == "Wait" && (c.back == nil || time.Now().Before(away)) {
						return enginetest.Fault{Err: engine.ErrUnreachable}
					}
					return enginetest.Fault{}
				}
				streamed := make(chan error, 1)
				streamed <- fmt.Errorf("attach: %w", engine.ErrUnreachable)
				if c.back != nil {
					if err := c.back(t.Context(), f, o.id); err != nil {
						t.Fatal(err)
					}
				}
				code, err := o.await(t.Context(), nil, streamed)
				if code != codeLost || err == nil || !strings.Contains(err.Error(), c.said) {
					t.Errorf("exit %d, %v; want %d, %s", code, err, codeLost, c.said)
				}
			})
		})
	}
}

// The engine goes away before it has answered the start: whether the command has
// begun is asked, and how it ended.
func TestOneOff_StartUnanswered(t *testing.T) {
	for _, c := range []struct {
		name        string
		begun       bool
		away        time.Duration
		said        string
		least, most time.Duration
	}{
		{"it runs", true, 5 * time.Second, "the engine was restarted while it ran; it ended with exit code 137", 5 * time.Second, 6 * time.Second},
		{"it has not begun", false, 5 * time.Second, "it has not begun: Start ", 5 * time.Second, 6 * time.Second},
		{"the engine stays away", true, time.Hour, "engine does not answer", patience, patience + time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := enginetest.NewFake()
				f.AddImage("shop:v1", "v1")
				id, err := f.Create(t.Context(), engine.Create{Name: "run", Image: "shop:v1"})
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				f.Intercept = func(op, _ string) enginetest.Fault {
					if op == "Attach" || op == "Kill" || op == "Remove" || op != "Start" && time.Since(began) >= c.away {
						return enginetest.Fault{}
					}
					return enginetest.Fault{Err: fmt.Errorf("%w: EOF", engine.ErrUnreachable), Late: op == "Start" && c.begun}
				}
				time.AfterFunc(c.away, func() { // an engine that begins ends what it finds
					if err := f.Kill(t.Context(), id, "SIGKILL"); c.begun == (err != nil) {
						t.Errorf("end it: %v", err)
					}
				})
				o := &oneOff{Host: &Host{Engine: f}, name: "run", id: id, log: nowhere{io.Discard}}
				code, err := o.attend(t.Context())
				if code != codeLost || err == nil || !strings.Contains(err.Error(), c.said) {
					t.Errorf("exit %d, %v; want %d, %s", code, err, codeLost, c.said)
				}
				if d := time.Since(began); d < c.least || d > c.most {
					t.Errorf("it took %s, want %s to %s", d, c.least, c.most)
				}
			})
		})
	}
}

type nowhere struct{ io.Writer }

func (nowhere) Close() error { return nil }

// startOneOff is a run that has been started, at an engine that a fake is.
func startOneOff(t *testing.T, f *enginetest.Fake, e engine.Engine) *oneOff {
	t.Helper()
	f.Behave = func(engine.Create) enginetest.Behaviour { return enginetest.Behaviour{TermCode: 3} }
	f.AddImage("shop:v1", "v1")
	id, err := f.Create(t.Context(), engine.Create{Name: "run", Image: "shop:v1"})
	if err := errors.Join(err, f.Start(t.Context(), id)); err != nil {
		t.Fatal(err)
	}
	return &oneOff{Host: &Host{Engine: e}, name: "run", id: id}
}
