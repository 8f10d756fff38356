package remotetest

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"conductor/internal/fault"
	"conductor/internal/remote"
)

func dialogue(w World) *remote.Dialogue {
	return &remote.Dialogue{Transport: w, Host: w.Host, Request: remote.Request{Version: "1.0", Do: remote.HAProxy}}
}

// asked returns the session that a question was answered by.
func asked(t *testing.T, d *remote.Dialogue, question string) (session string) {
	t.Helper()
	var a said
	if err := d.Ask(soon(t), question, &a); err != nil || a.Question != question {
		t.Errorf("%.40q: %.40q, %v", question, a.Question, err)
	}
	return a.Session
}

func dialogueKeeps(t *testing.T, w World) {
	d := dialogue(w)
	first := asked(t, d, "first")
	for _, question := range []string{"", "a\nb\x00", remote.Greeting, "Grüße", strings.Repeat("x", 700_000)} {
		if by := asked(t, d, question); by != first {
			t.Errorf("%.40q was asked by another session", question)
		}
	}
}

// Questions at once have one session, and one that ends it takes no other with it.
func dialogueAtOnce(t *testing.T, w World) {
	d := dialogue(w)
	var all sync.WaitGroup
	sessions := make([]string, 20)
	for i := range sessions {
		all.Go(func() { sessions[i] = asked(t, d, fmt.Sprint(i)) })
	}
	all.Wait()
	if slices.Sort(sessions); len(slices.Compact(sessions)) != 1 {
		t.Errorf("%d sessions", len(slices.Compact(sessions)))
	}
	for i := range 20 {
		all.Go(func() {
			if i%5 != 0 {
				asked(t, d, fmt.Sprint(i))
			} else if err := d.Ask(soon(t), "fail", new(said)); !errors.Is(err, fault.ErrLocked) {
				t.Errorf("got %v", err)
			}
		})
	}
	all.Wait()
}

func dialogueCut(t *testing.T, w World) {
	d := dialogue(w)
	first := asked(t, d, "first")
	w.Cut()
	second := asked(t, d, "second")
	if second == first {
		t.Error("it was asked by the session that was cut")
	}
	if asked(t, d, "third") != second {
		t.Error("the new session was not kept")
	}
}

func dialogueFailures(t *testing.T, w World) {
	d := dialogue(w)
	first := asked(t, d, "first")
	err := d.Ask(soon(t), "fail", new(said))
	exit, is := errors.AsType[*remote.ExitError](err)
	if !is || exit.Code != 7 || !errors.Is(err, fault.ErrLocked) || fault.Hint(err) != "wait for them" {
		t.Errorf("got %#v", err)
	}
	second := asked(t, d, "after a failure")
	if second == first {
		t.Error("a session that had failed was asked")
	}

	ctx, cancel := context.WithCancelCause(t.Context())
	ended, waits := make(chan error, 1), filepath.Join(t.TempDir(), "waits")
	go func() { ended <- d.Ask(ctx, "wait "+waits, new(said)) }()
	if !await(soon(t), waits, true) {
		t.Fatal("it was not asked")
	}
	behind := make(chan struct{})
	go func() {
		defer close(behind)
		asked(t, d, "behind it")
	}()
	cancel(fault.ErrTimeout)
	if err := endOf(t, ended); !errors.Is(err, fault.ErrTimeout) {
		t.Errorf("cancelled: %v", err)
	}
	<-behind
	if err := d.Ask(ctx, "late", new(said)); !errors.Is(err, fault.ErrTimeout) {
		t.Errorf("cancelled before: %v", err)
	}
	asked(t, d, "after nobody waited")

	if err := d.Ask(soon(t), "leave", new(said)); !errors.Is(err, fault.ErrHost) || !strings.Contains(err.Error(), "without an answer") {
		t.Errorf("no answer: %v", err)
	}
	if err := d.Ask(soon(t), 3, new(said)); err == nil {
		t.Error("what is no question was answered")
	}
	var no int
	if err := d.Ask(soon(t), "not a number", &no); err == nil || !strings.Contains(err.Error(), "read the answer to haproxy") {
		t.Errorf("an answer of another kind: %v", err)
	}

	nowhere := dialogue(w)
	nowhere.Host = w.Nowhere
	if err := nowhere.Ask(soon(t), "anybody", new(said)); !errors.Is(err, fault.ErrUnreachable) || errors.Is(err, remote.ErrCut) {
		t.Errorf("nowhere: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := d.Ask(soon(t), "closed", new(said)); !errors.Is(err, remote.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}
