package remotetest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"conductor/internal/fault"
	"conductor/internal/remote"
)

// watched is where a session writes; it tells of its first line.
type watched struct {
	mu    sync.Mutex
	text  strings.Builder
	begun chan struct{}
}

func watch() *watched { return &watched{begun: make(chan struct{})} }

func (w *watched) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	before := w.text.Len()
	w.text.Write(p)
	if before == 0 && len(p) > 0 {
		close(w.begun)
	}
	return len(p), nil
}

func (w *watched) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.text.String()
}

// under starts a request and returns when it has begun to answer.
func under(ctx context.Context, t *testing.T, w World, r remote.Request, s remote.Streams) (out *watched, ended <-chan error) {
	t.Helper()
	out = watch()
	s.Stdout = out
	done := make(chan error, 1)
	go func() { done <- w.Do(ctx, w.Host, r, s) }()
	select {
	case <-out.begun:
	case err := <-done:
		t.Fatalf("it ended: %v", err)
	case <-time.After(patience):
		t.Fatal("nothing came")
	}
	return out, done
}

func endOf(t *testing.T, ended <-chan error) error {
	t.Helper()
	select {
	case err := <-ended:
		return err
	case <-time.After(patience):
		t.Fatal("it did not end")
		return nil
	}
}

func interrupted(t *testing.T, w World) {
	for _, cause := range []error{fault.ErrInterrupted, fault.ErrTimeout} {
		ctx, cancel := context.WithCancelCause(t.Context())
		_, ended := under(ctx, t, w, command("wait"), remote.Streams{})
		cancel(cause)
		err := endOf(t, ended)
		exit, is := errors.AsType[*remote.ExitError](err)
		if !is || exit.Code != 130 || !errors.Is(err, fault.ErrInterrupted) || exit.Text != "stopped: interrupted" {
			t.Errorf("%v: got %#v", cause, err)
		}
	}
}

func finished(t *testing.T, w World) {
	ctx, cancel := context.WithCancelCause(t.Context())
	out, ended := under(ctx, t, w, command("finish"), remote.Streams{})
	cancel(fault.ErrInterrupted)
	if err := endOf(t, ended); err != nil || out.String() != "waits\ndone\n" {
		t.Errorf("got %v, %q", err, out.String())
	}
}

func bytesEnd(t *testing.T, w World) {
	ctx, cancel := context.WithCancelCause(t.Context())
	in, feed := io.Pipe()
	go func() { _, _ = io.WriteString(feed, "x") }()
	_, ended := under(ctx, t, w, exec("cat"), remote.Streams{Stdin: in})
	cancel(fault.ErrInterrupted)
	err := endOf(t, ended)
	_ = feed.Close()
	if _, is := errors.AsType[*remote.ExitError](err); is || !errors.Is(err, fault.ErrInterrupted) {
		t.Errorf("got %#v", err)
	}
}

func endedBefore(t *testing.T, w World) {
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(fault.ErrInterrupted)
	if err := w.Do(ctx, w.Host, command("wait"), remote.Streams{}); !errors.Is(err, fault.ErrInterrupted) {
		t.Errorf("got %v", err)
	}
}

func hold(t *testing.T, w World) {
	ctx, cancel := context.WithCancelCause(t.Context())
	errs := watch()
	out, ended := under(ctx, t, w, remote.Request{Do: remote.Hold, Service: "shop", Token: "t"}, remote.Streams{Stderr: errs})
	cancel(fault.ErrInterrupted)
	if err := endOf(t, ended); err != nil || out.String() != string(remote.Held) || errs.String() != remote.ErrGone.Error()+"\n" {
		t.Errorf("got %v, %q, %q", err, out.String(), errs.String())
	}
}

func attend(t *testing.T, w World) {
	ctx, cancel := context.WithCancel(t.Context())
	take := make(chan struct{})
	out, ended := under(ctx, t, w, remote.Request{Do: remote.Hold, Service: "shop", Token: "t", Attend: true}, remote.Streams{Take: take})
	// By the answer to another question it would have come.
	if err := w.Do(soon(t), w.Host, command("echo"), remote.Streams{}); err != nil || out.String() != "looked\n" {
		t.Errorf("before it is told: %q, %v", out.String(), err)
	}
	close(take)
	want := "looked\n" + string(remote.Held)
	for deadline := time.Now().Add(patience); out.String() != want && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	cancel()
	if err := endOf(t, ended); err != nil || out.String() != want {
		t.Errorf("got %v, %q", err, out.String())
	}
}

func manyAtOnce(t *testing.T, w World) {
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			var got remote.Request
			want := fmt.Sprint(i)
			if err := remote.Ask(soon(t), w, w.Host, command("echo", want), &got); err != nil || got.Args[1] != want {
				t.Errorf("%d: %v, %v", i, got.Args, err)
			}
		})
	}
	all.Wait()
}

func unreachable(t *testing.T, w World) {
	err := w.Do(soon(t), w.Nowhere, command("echo"), remote.Streams{})
	if !errors.Is(err, fault.ErrUnreachable) || !remote.Unreached(err) || errors.Is(err, remote.ErrCut) || fault.Hint(err) == "" {
		t.Errorf("got %#v", err)
	}
	if err := w.Do(soon(t), w.Host, command("echo"), remote.Streams{}); err != nil {
		t.Errorf("another host: %v", err)
	}
}

func cutAndAgain(t *testing.T, w World) {
	var ends []<-chan error
	for _, r := range []remote.Request{command("go-on", filepath.Join(t.TempDir(), "never"), ""), exec("cat"), {Do: remote.Hold}} {
		in, feed := io.Pipe()
		defer feed.Close()
		if r.Do == remote.Exec {
			go func() { _, _ = io.WriteString(feed, "x") }()
		}
		_, ended := under(t.Context(), t, w, r, remote.Streams{Stdin: in})
		ends = append(ends, ended)
	}
	w.Cut()
	for i, ended := range ends {
		err := endOf(t, ended)
		if !errors.Is(err, fault.ErrUnreachable) || !errors.Is(err, remote.ErrCut) || !remote.Unreached(err) {
			t.Errorf("%d: got %#v", i, err)
		}
	}
	if err := w.Do(soon(t), w.Host, command("echo"), remote.Streams{}); err != nil {
		t.Errorf("the next one: %v", err)
	}
}

func goesOn(t *testing.T, w World) {
	dir := t.TempDir()
	wake, done := filepath.Join(dir, "wake"), filepath.Join(dir, "done")
	_, ended := under(t.Context(), t, w, command("go-on", wake, done), remote.Streams{})
	w.Cut()
	if err := endOf(t, ended); !errors.Is(err, remote.ErrCut) {
		t.Errorf("got %v", err)
	}
	if err := os.WriteFile(wake, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(done); err == nil {
			return
		}
		if time.Since(start) > patience {
			t.Fatal("the far end has not gone on")
		}
	}
}

var errFull = errors.New("full")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }

func readerFails(t *testing.T, w World) {
	err := w.Do(soon(t), w.Host, exec("say", "x", ""), remote.Streams{Stdout: full{}})
	if !errors.Is(err, errFull) {
		t.Errorf("got %v", err)
	}
}

func closed(t *testing.T, w World) {
	_, ended := under(t.Context(), t, w, remote.Request{Do: remote.Hold}, remote.Streams{})
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := endOf(t, ended); !errors.Is(err, remote.ErrCut) {
		t.Errorf("under way: %v", err)
	}
	if err := w.Do(soon(t), w.Host, command("echo"), remote.Streams{}); !errors.Is(err, remote.ErrClosed) {
		t.Errorf("after: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Errorf("again: %v", err)
	}
}
