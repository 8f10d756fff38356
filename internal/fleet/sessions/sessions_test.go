package sessions

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"testing"

	"conductor/internal/event"
	"conductor/internal/fault"
	"conductor/internal/fleet"
	"conductor/internal/remote"
	"conductor/internal/remote/remotetest"
)

// hosts are two whose conductor answers with serve.
func hosts(t *testing.T, serve remotetest.Serve) (*Hosts, *remotetest.Memory) {
	m := remotetest.New(serve)
	t.Cleanup(func() {
		m.Close()
		m.Wait()
	})
	return &Hosts{Transport: m, At: map[string]remote.Host{"web1": {Name: "web1", SSH: "web1"}}, Version: "1"}, m
}

// What went wrong with an upgrade is told in its own words, and not by whatever
// else it has said to people.
func TestUpgrade_TellsItsResult(t *testing.T) {
	h, _ := hosts(t, func(_ context.Context, _ remote.Host, _ remote.Request, s remote.Streams) error {
		io.WriteString(s.Stderr, "conductor: warning: the history cannot be written\nconductor: upgrade shop: v2 did not become healthy\n")
		io.WriteString(s.Stdout, `{"event":"created","instance":"shop.v2"}`+"\n"+`{"event":"result","ok":false,"code":5,"error":"upgrade shop: v2 did not become healthy","hint":"see its log"}`+"\n")
		return &remote.ExitError{Code: 5}
	})
	var names []event.Name
	seen, err := h.Upgrade(t.Context(), "web1", fleet.Upgrade{Service: "shop", Revision: "v2"}, func(e event.Event) { names = append(names, e.Event) })
	if err == nil || err.Error() != "web1: upgrade shop: v2 did not become healthy" || !errors.Is(err, fault.ErrUnhealthy) || fault.Hint(err) != "see its log" {
		t.Errorf("%v, %q", err, fault.Hint(err))
	}
	if seen != nil {
		t.Errorf("the host did not say how it is: %+v", seen)
	}
	if len(names) != 1 || names[0] != event.Created {
		t.Errorf("%q", names)
	}
}

// Who has a lock is told why it is lost.
func TestHold_TellsWhyItIsLost(t *testing.T) {
	h, m := hosts(t, remotetest.Far)
	held, err := h.Hold(t.Context(), "web1", fleet.Question{Service: "shop"}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Release()
	select {
	case err := <-held.Lost:
		t.Fatalf("it is lost at once: %v", err)
	default:
	}
	m.Cut("web1")
	if err := <-held.Lost; !errors.Is(err, fault.ErrUnreachable) || !errors.Is(err, remote.ErrCut) || fault.Hint(err) == "" {
		t.Errorf("%v", err)
	}
}

// Who waits for a lock and is told to end does not take it later.
func TestHold_IsGivenUp(t *testing.T) {
	asked := make(chan struct{})
	h, m := hosts(t, func(ctx context.Context, _ remote.Host, _ remote.Request, _ remote.Streams) error {
		close(asked)
		<-ctx.Done() // somebody else has it
		return nil
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	go func() {
		<-asked
		cancel(fault.ErrInterrupted)
	}()
	if _, err := h.Hold(ctx, "web1", fleet.Question{Service: "shop"}, true); !errors.Is(err, fault.ErrInterrupted) {
		t.Error(err)
	}
	m.Wait()
}

// One session looks, and takes the lock when it is told to, and no earlier.
func TestAttend(t *testing.T) {
	var locked atomic.Bool
	h, m := hosts(t, func(ctx context.Context, _ remote.Host, r remote.Request, s remote.Streams) error {
		if !r.Attend || !r.Look || !r.Whole || r.Token == "" {
			t.Errorf("asked: %+v", r)
		}
		io.WriteString(s.Stdout, `{"event":"sight","seen":{"live":"v1","troubles":["the disk is full"]}}`+"\n")
		select {
		case <-s.Take:
		case <-ctx.Done():
			return nil
		}
		locked.Store(true)
		defer locked.Store(false)
		io.WriteString(s.Stdout, `{"event":"sight","seen":{"live":"v2"}}`+"\n"+string(remote.Held))
		<-ctx.Done()
		return nil
	})
	attend := func() fleet.Attended {
		t.Helper()
		a, err := h.Attend(t.Context(), "web1", fleet.Question{Service: "shop", Revision: "v2", Whole: true}, false)
		if err != nil {
			t.Fatal(err)
		}
		if a.Seen.Live != "v1" || len(a.Seen.Troubles) != 1 || locked.Load() {
			t.Errorf("it saw %+v; locked: %v", a.Seen, locked.Load())
		}
		return a
	}
	attend().Leave() // without the lock

	a := attend()
	held, err := a.Hold(t.Context())
	if err != nil || held.Seen == nil || held.Seen.Live != "v2" || !locked.Load() {
		t.Fatalf("held: %+v, %v", held, err)
	}
	m.Cut("web1")
	if err := <-held.Lost; !errors.Is(err, remote.ErrCut) {
		t.Errorf("%v", err)
	}
	a.Leave()
	m.Wait() // the host learns of it later

	a = attend()
	m.Cut("web1")
	if _, err := a.Hold(t.Context()); !errors.Is(err, fault.ErrUnreachable) {
		t.Errorf("a lock of a session that was cut: %v", err)
	}
	a.Leave()
	m.Wait()
	if locked.Load() {
		t.Error("the lock was not let go of")
	}
}

// What a host says of itself is what a deploy goes by, or nothing.
func TestAttend_IsRefused(t *testing.T) {
	for said, class := range map[string]error{
		"":                                   fault.ErrHost,
		`{"event":"sight","seen":[]}` + "\n": fault.ErrHost,
	} {
		h, _ := hosts(t, func(ctx context.Context, _ remote.Host, _ remote.Request, s remote.Streams) error {
			if io.WriteString(s.Stdout, said); said != "" {
				<-ctx.Done()
			}
			return nil
		})
		if _, err := h.Attend(t.Context(), "web1", fleet.Question{Service: "shop"}, false); !errors.Is(err, class) {
			t.Errorf("%q: %v", said, err)
		}
	}
}

// A host that says how it is, with its lock and with its upgrade, is not asked
// once more.
func TestSight(t *testing.T) {
	sight := func(live string) string {
		return `{"event":"sight","seen":{"live":"` + live + `","sound":true}}` + "\n"
	}
	h, _ := hosts(t, func(ctx context.Context, _ remote.Host, r remote.Request, s remote.Streams) error {
		if !r.Look {
			t.Errorf("%s does not ask for it", r.Do)
		}
		if r.Do == remote.Hold {
			io.WriteString(s.Stdout, sight("v1")+string(remote.Held))
			<-ctx.Done()
			return nil
		}
		io.WriteString(s.Stdout, `{"event":"committed"}`+"\n"+`{"event":"result","ok":true}`+"\n"+sight("v2"))
		return nil
	})
	held, err := h.Hold(t.Context(), "web1", fleet.Question{Service: "shop", Revision: "v2"}, false)
	if err != nil {
		t.Fatal(err)
	}
	defer held.Release()
	if held.Seen == nil || held.Seen.Live != "v1" {
		t.Errorf("with the lock: %+v", held.Seen)
	}
	told := 0
	seen, err := h.Upgrade(t.Context(), "web1", fleet.Upgrade{Service: "shop", Revision: "v2"}, func(event.Event) { told++ })
	if err != nil || seen == nil || seen.Live != "v2" || !seen.Sound || told != 1 {
		t.Errorf("after the upgrade: %+v, %v; %d events", seen, err, told)
	}
}
