package converge

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"conductor/internal/engine"
	"conductor/internal/engine/enginetest"
	"conductor/internal/state/statetest"
)

// lateEngine still makes what another process has asked it for: the name is
// taken, and there is no container of it, for a while.
type lateEngine struct {
	*enginetest.Fake
	until time.Time
}

func (e lateEngine) Create(ctx context.Context, c engine.Create) (string, error) {
	if time.Now().Before(e.until) {
		return "", fmt.Errorf("create container %s: %w", c.Name, engine.ErrConflict)
	}
	return e.Fake.Create(ctx, c)
}

func TestMake_WaitsForANameThatNothingHas(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake := enginetest.NewFake()
		image := fake.AddImage("app:1", "one")
		begun := time.Now()
		h := &Host{Namespace: "ns", Engine: lateEngine{fake, begun.Add(time.Second)}, Store: statetest.NewMemory()}
		a := action{Host: h, service: "shop", shared: newShared()}
		c := engine.Create{Name: "ns.shop.v1.abcd-1-1", Image: image.ID, Labels: map[string]string{LabelService: "shop"}}
		id, err := a.make(t.Context(), &c)
		if took := time.Since(begun); err != nil || took < time.Second || took > 2*time.Second {
			t.Fatalf("%q, %v after %s", id, err, took)
		}
		// One that is there by now, and is what it should be, is taken over.
		if again, err := a.make(t.Context(), &c); err != nil || again != id {
			t.Errorf("%q, %v; want %q", again, err, id)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		h.Engine = lateEngine{fake, time.Now().Add(time.Hour)}
		c.Name = "ns.shop.v1.abcd-2-1"
		if id, err := a.make(ctx, &c); err == nil {
			t.Errorf("a name that is never free: %q", id)
		}
	})
}
