package sessions

import (
	"context"
	"errors"
	"io"
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
