package session

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"conductor/internal/converge"
	"conductor/internal/engine"
	"conductor/internal/fault"
	"conductor/internal/fleet"
	"conductor/internal/provision"
	"conductor/internal/remote"
	"conductor/internal/state"
)

// statuses are services that run.
type statuses struct {
	Services
	all []converge.Status
}

func (s statuses) Brief(context.Context, ...string) ([]converge.Status, error) { return s.all, nil }

func newRecycler(t *testing.T) (*Recycler, *state.Dir) {
	t.Helper()
	dir, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &Recycler{Station: &Station{State: dir}, State: dir, Reboot: []string{"true"}}, dir
}

// asks does a request with a handler, and returns what it wrote.
func (r *Recycler) asks(t *testing.T, ctx context.Context, do remote.Do, body any) (string, error) {
	t.Helper()
	c := remote.Request{Do: do, By: "alice@laptop", Token: "abc"}
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		c.Body = b
	}
	var out bytes.Buffer
	err := r.Handlers()[do](ctx, Call{Request: c, Stdout: &out, Stderr: &out})
	return out.String(), err
}

func TestRecycling_Notes(t *testing.T) {
	r, _ := newRecycler(t)
	for _, test := range []struct {
		note        fleet.RecycleNote
		begun, last bool
	}{{"", false, false}, {fleet.RecycleBegun, true, false}, {"", true, false}, {fleet.RecycleDone, false, true}} {
		var body any
		if test.note != "" {
			body = test.note
		}
		out, err := r.asks(t, t.Context(), remote.Recycling, body)
		var got fleet.Recycling
		if err != nil || json.Unmarshal([]byte(out), &got) != nil || got.Begun.IsZero() == test.begun || got.Last.IsZero() == test.last || got.Boot == "" {
			t.Errorf("%q: %s, %v", test.note, out, err)
		}
	}
	if _, err := r.asks(t, t.Context(), remote.Recycling, "nonsense"); !errors.Is(err, fault.ErrUsage) {
		t.Errorf("a note that is none: %v", err)
	}
}

// Nobody boots a host that is not being recycled.
func TestReboot_OnlyWhileRecycled(t *testing.T) {
	r, dir := newRecycler(t)
	if _, err := r.asks(t, t.Context(), remote.Reboot, nil); !errors.Is(err, fault.ErrUsage) {
		t.Errorf("%v", err)
	}
	if err := dir.BeginRecycling(t.Context(), time.Now()); err != nil {
		t.Fatal(err)
	}
	if out, err := r.asks(t, t.Context(), remote.Reboot, nil); err != nil || !strings.Contains(out, "boot") {
		t.Errorf("%s, %v", out, err)
	}
	r.Reboot = []string{"false"}
	if _, err := r.asks(t, t.Context(), remote.Reboot, nil); !errors.Is(err, fault.ErrHost) {
		t.Errorf("%v", err)
	}
}

func TestHoldAll(t *testing.T) {
	r, dir := newRecycler(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := r.asks(t, ctx, remote.HoldAll, []string{"shop", "blog", "shop"})
		ended <- err
	}()
	for begun := time.Now(); ; time.Sleep(time.Millisecond) {
		a, hasA := dir.FleetHolder("shop")
		_, hasB := dir.FleetHolder("blog")
		if hasA && hasB && a.Token == "abc" && a.User == "alice@laptop" {
			break
		}
		select {
		case err := <-ended:
			t.Fatalf("it holds nothing any more: %v", err)
		default:
		}
		if time.Since(begun) > 10*time.Second {
			t.Fatal("it does not hold both")
		}
	}
	if _, err := r.asks(t, t.Context(), remote.HoldAll, []string{"other", "shop"}); !errors.Is(err, fault.ErrLocked) {
		t.Errorf("held twice: %v", err)
	}
	if _, has := dir.FleetHolder("other"); has {
		t.Error("one lock of those that were refused is left")
	}
	cancel(remote.ErrGone)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, has := dir.FleetHolder("shop"); has {
		t.Error("it is held on")
	}
}

func TestRefresh_TellsEvents(t *testing.T) {
	r, _ := newRecycler(t)
	r.Packages = func(_ context.Context, note func(string)) (provision.Refreshed, error) {
		note("waiting")
		return provision.Refreshed{Packages: "3 upgraded", Reboot: true}, nil
	}
	out, err := r.asks(t, t.Context(), remote.Refresh, nil)
	for _, w := range []string{`"event":"note"`, "waiting", `"event":"refreshed"`, "3 upgraded", "should be rebooted"} {
		if err != nil || !strings.Contains(out, w) {
			t.Errorf("%q is not in %s, %v", w, out, err)
		}
	}
}

// Images that came from a registry are fetched by their digests; that one is not
// to be had is told, and no error.
func TestRefreshImages(t *testing.T) {
	r, _ := newRecycler(t)
	r.Services = statuses{all: []converge.Status{{Service: "blog", Image: "sha256:b"}, {Service: "job"}, {Service: "shipped", Image: "sha256:s"}, {Service: "shop", Image: "sha256:a"}}}
	r.Image = func(_ context.Context, ref string) (engine.Image, error) {
		return engine.Image{ID: ref, Digests: map[string][]string{"sha256:a": {"registry.test/shop@sha256:1"}, "sha256:b": {"registry.test/blog@sha256:2"}}[ref]}, nil
	}
	var pulled []string
	r.Pull = func(_ context.Context, ref string) error {
		pulled = append(pulled, ref)
		if strings.Contains(ref, "blog") {
			return errors.New("it is there no more")
		}
		return nil
	}
	out, err := r.asks(t, t.Context(), remote.RefreshImages, nil)
	if err != nil || strings.Join(pulled, " ") != "registry.test/blog@sha256:2 registry.test/shop@sha256:1" {
		t.Errorf("%q, %v", pulled, err)
	}
	if !strings.Contains(out, `"event":"pulled"`) || !strings.Contains(out, `"event":"warning","service":"blog"`) || strings.Contains(out, "shipped") {
		t.Error(out)
	}
}
