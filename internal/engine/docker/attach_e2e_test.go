//go:build e2e

package docker_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"conductor/internal/engine"
	"conductor/internal/engine/enginetest"
	"conductor/internal/spec"
)

// attach begins to attach to a container that is not started, and returns once
// it is attached.
func attach(t *testing.T, i enginetest.Instance, id string, s engine.Streams) <-chan error {
	t.Helper()
	attached, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- i.Engine.Attach(t.Context(), id, s, func() { close(attached) }) }()
	select {
	case <-attached:
	case err := <-done:
		t.Fatalf("not attached: %v", err)
	}
	return done
}

// blocks checks the output of enginetest.Flood as it comes.
type blocks struct {
	size int
	head []byte
	err  error
}

func (b *blocks) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		at := b.size % enginetest.FloodBlock
		n := min(len(rest), enginetest.FloodBlock-at)
		if at < 16 {
			n = min(n, 16-at)
			b.head = append(b.head, rest[:n]...)
			if want := fmt.Sprintf("%015d\n", b.size/enginetest.FloodBlock); len(b.head) == 16 {
				if b.err == nil && string(b.head) != want {
					b.err = fmt.Errorf("at byte %d: %q, want %q", b.size, b.head, want)
				}
				b.head = b.head[:0]
			}
		}
		b.size += n
		rest = rest[n:]
	}
	return len(p), nil
}

// A great deal of output comes through whole, in order, and is kept nowhere.
func TestEngine_AttachFlood(t *testing.T) {
	const count = 200 << 20 / enginetest.FloodBlock
	i := open(t)
	c := plan(t, i, enginetest.Flood(count))
	// Its own log costs the engine more than all the rest.
	c.Spec.Logging = spec.Logging{Driver: "none"}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	begin := time.Now()
	id, err := i.Engine.Create(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	got := &blocks{}
	done := attach(t, i, id, engine.Streams{Stdout: got})
	if err := i.Engine.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	code, err := i.Engine.Wait(t.Context(), id)
	if err != nil || code != 0 || got.err != nil || got.size != count*enginetest.FloodBlock {
		t.Errorf("code %d, %v, %d bytes of %d, %v", code, err, got.size, count*enginetest.FloodBlock, got.err)
	}
	if err := i.Engine.Remove(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	took := time.Since(begin)
	runtime.ReadMemStats(&after)
	// Sys never falls: it is the most that there was.
	grown := int64(after.Sys) - int64(before.Sys)
	if grown > 32<<20 {
		t.Errorf("memory grew by %d bytes", grown)
	}
	t.Logf("attach: %.0f MB/s (%s), memory grew by %d KiB", 200/took.Seconds(), took.Round(time.Millisecond), grown>>10)

	cli, err := exec.LookPath("docker")
	if err != nil {
		t.Log("there is no docker CLI to compare with")
		return
	}
	cmd := exec.CommandContext(t.Context(), cli, append([]string{"run", "--rm", "--init", "--log-driver", "none", "--name", c.Name, i.Image}, c.Command...)...)
	begin = time.Now()
	if err := cmd.Run(); err != nil {
		t.Fatal(err)
	}
	took = time.Since(begin)
	t.Logf("docker run: %.0f MB/s (%s)", 200/took.Seconds(), took.Round(time.Millisecond))
}

// The process has a terminal, of the size that was there before it, and hears
// of others.
func TestEngine_AttachTerminal(t *testing.T) {
	i := open(t)
	c := plan(t, i, enginetest.Terminal)
	c.TTY, c.Stdin = true, true
	id, err := i.Engine.Create(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	stdin, typed := io.Pipe()
	heard, out := io.Pipe()
	sizes := make(chan [2]uint)
	done := attach(t, i, id, engine.Streams{TTY: true, Stdin: stdin, Stdout: out, Resize: sizes})
	sizes <- [2]uint{80, 24} // passed over, or seen first
	sizes <- [2]uint{101, 31}
	if err := i.Engine.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	words := make(chan string, 100)
	go func() {
		defer close(words)
		all, b := "", make([]byte, 1024)
		for {
			n, err := heard.Read(b)
			if err != nil {
				return
			}
			all += string(b[:n])
			words <- all
		}
	}()
	// until waits for the last line.
	until := func(want string) {
		t.Helper()
		deadline := time.After(time.Minute)
		for last := ""; !strings.HasSuffix(last, want); {
			select {
			case last = <-words:
			case err := <-done:
				t.Fatalf("attach ended with %v", err)
			case <-deadline:
				t.Fatalf("it says %q, want %q at the end", last, want)
			}
		}
	}
	until("0=true 1=true 2=true 101x31\r\n")
	sizes <- [2]uint{132, 50}
	until("0=true 1=true 2=true 132x50\r\n")
	// Keys that would detach with Docker's own client come through at once,
	// and the terminal shows them.
	for _, key := range []string{"\x10", "\x11", "a"} {
		if _, err := io.WriteString(typed, key); err != nil {
			t.Fatal(err)
		}
	}
	until("a")
	if err := typed.Close(); err != nil {
		t.Fatal(err)
	}
	sizes <- [2]uint{90, 20}
	until("90x20\r\n")
	if err := i.Engine.Kill(t.Context(), id, "SIGTERM"); err != nil {
		t.Fatal(err)
	}
	go func() {
		for range words {
		}
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
	_ = out.Close()
	if code, err := i.Engine.Wait(t.Context(), id); err != nil || code != 0 {
		t.Errorf("code %d, %v", code, err)
	}
}

// running starts a container whose output is carried and whose end is waited
// for, and returns when it has said its first word.
func running(t *testing.T, i enginetest.Instance, command []string, word string) (id string, carried <-chan error, waited <-chan ended) {
	t.Helper()
	c := plan(t, i, command)
	c.Network = "none"
	id, err := i.Engine.Create(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	heard, out := io.Pipe()
	carried = attach(t, i, id, engine.Streams{Stdout: out})
	w := make(chan ended, 1)
	go func() {
		code, err := i.Engine.Wait(t.Context(), id)
		w <- ended{code, err}
	}()
	if err := i.Engine.Start(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	hear(t, heard, word)
	go func() { _, _ = io.Copy(io.Discard, heard) }()
	return id, carried, w
}

// hear reads a word, and nothing after it.
func hear(t *testing.T, r io.Reader, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(r, got); err != nil || string(got) != want {
		t.Fatalf("heard %q (%v), want %q", got, err, want)
	}
}

type ended struct {
	code int
	err  error
}

// An engine that is stopped stops its containers: their codes are true ones.
func TestEngine_StoppedDuringARun(t *testing.T) {
	d, _, i := openPrivate(t)
	_, carried, waited := running(t, i, enginetest.Forever, "ready\n")
	d.Stop()
	if err := <-carried; err != nil && !errors.Is(err, engine.ErrUnreachable) {
		t.Errorf("attach: %v", err)
	}
	// The answer may be lost.
	if w := <-waited; w.code != 0 || w.err != nil && !errors.Is(w.err, engine.ErrUnreachable) {
		t.Errorf("code %d, %v", w.code, w.err)
	}
}

// With live restore a container outlives the engine: nothing says that it has
// ended, and it can be attached to and waited for again.
func TestEngine_RestartedDuringARun(t *testing.T) {
	d, _, i := openPrivate(t, "--live-restore")
	const word = "0=false 1=false 2=false \n"
	id, carried, waited := running(t, i, enginetest.Terminal, word)
	d.Stop()
	if err := <-carried; err != nil && !errors.Is(err, engine.ErrUnreachable) {
		t.Errorf("attach: %v", err)
	}
	if w := <-waited; !errors.Is(w.err, engine.ErrUnreachable) {
		t.Errorf("wait: code %d, %v", w.code, w.err)
	}
	if _, err := i.Engine.Wait(t.Context(), id); !errors.Is(err, engine.ErrUnreachable) {
		t.Errorf("wait for a container of an engine that is gone: %v", err)
	}
	d.Start()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := i.Engine.Wait(ctx, id); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("wait for a container that runs: %v", err)
	}
	heard, out := io.Pipe()
	carried = attach(t, i, id, engine.Streams{Stdout: out})
	if err := i.Engine.Kill(t.Context(), id, "SIGWINCH"); err != nil {
		t.Fatal(err)
	}
	hear(t, heard, word)
	if err := i.Engine.Kill(t.Context(), id, "SIGTERM"); err != nil {
		t.Fatal(err)
	}
	if err := <-carried; err != nil {
		t.Error(err)
	}
	code, err := i.Engine.Wait(t.Context(), id)
	if err != nil || code != 0 {
		t.Errorf("code %d, %v", code, err)
	}
}
