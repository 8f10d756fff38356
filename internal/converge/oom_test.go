package converge

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"conductor/internal/engine"
)

// oneDead is an engine with one container, which tells after a while that it was
// killed for its memory; 0: it never does.
type oneDead struct {
	engine.Engine
	container engine.Container
	told      time.Duration
}

func (e oneDead) Inspect(context.Context, string) (engine.Container, error) {
	c := e.container
	c.OOMKilled = e.told > 0 && time.Since(c.FinishedAt) >= e.told
	return c, nil
}

// Why a container was killed is waited for, a second at most, and not where it is
// known or was something else.
func TestHost_WhyEnded(t *testing.T) {
	const limit = 64 << 20
	for name, c := range map[string]struct {
		state  engine.State
		code   int
		limit  int64
		told   time.Duration
		kernel bool
		oom    bool
		within time.Duration
	}{
		"the engine tells late":        {engine.Exited, codeKilled, limit, 300 * time.Millisecond, false, true, 400 * time.Millisecond},
		"the kernel tells":             {engine.Exited, codeKilled, limit, 0, true, true, 0},
		"nobody tells":                 {engine.Exited, codeKilled, limit, 0, false, false, 1100 * time.Millisecond},
		"it has no limit":              {engine.Exited, codeKilled, 0, 0, true, false, 0},
		"it ended by itself":           {engine.Exited, 1, limit, 0, true, false, 0},
		"it runs, as far as one knows": {engine.Running, 0, limit, 0, true, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				h := Host{
					Engine:          oneDead{container: engine.Container{State: c.state, ExitCode: c.code, FinishedAt: began}, told: c.told},
					KilledForMemory: func(string) bool { return c.kernel },
				}
				got, err := h.whyEnded(t.Context(), "id", c.limit)
				if took := time.Since(began); err != nil || got.OOMKilled != c.oom || took > c.within {
					t.Errorf("out of memory: %v, after %s, %v; want %v, within %s", got.OOMKilled, took, err, c.oom, c.within)
				}
			})
		})
	}
}
