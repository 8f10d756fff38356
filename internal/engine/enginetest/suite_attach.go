package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"conductor/internal/engine"
)

// attach begins to attach, and returns once it is attached. The channel has
// what Attach returned.
func (b *bench) attach(ctx context.Context, id string, s engine.Streams) <-chan error {
	b.Helper()
	attached, done := make(chan struct{}), make(chan error, 1)
	go func() { done <- b.Engine.Attach(ctx, id, s, func() { close(attached) }) }()
	select {
	case <-attached:
	case err := <-done:
		b.Fatalf("attach ended before it was attached: %v", err)
	}
	return done
}

// through runs a container to its end, with streams.
func (b *bench) through(c engine.Create, s engine.Streams) (code int, err error) {
	b.Helper()
	id := b.create(c)
	done := b.attach(b.ctx(), id, s)
	b.must(b.Engine.Start(b.ctx(), id))
	err = <-done
	code = b.wait(id)
	b.must(b.Engine.Remove(b.ctx(), id))
	return code, err
}

func testAttach(b *bench) {
	const lines = 500
	var wantOut, wantErrs strings.Builder
	for i := range lines {
		fmt.Fprintln(&wantOut, "out", i+1)
		fmt.Fprintln(&wantErrs, "err", i+1)
	}
	// Output may fall into the moment at which the process starts: try it often.
	for range 5 {
		var out, errs bytes.Buffer
		code, err := b.through(b.plan("talker", Talk(lines, 5)), engine.Streams{Stdout: &out, Stderr: &errs})
		b.must(err)
		if code != 5 || out.String() != wantOut.String() || errs.String() != wantErrs.String() {
			b.Errorf("code %d, %d bytes of %d on stdout and %d of %d on stderr, or out of order",
				code, out.Len(), wantOut.Len(), errs.Len(), wantErrs.Len())
		}
	}
	code, err := b.through(b.plan("dropped", Print("o", "e")), engine.Streams{})
	b.must(err)
	if code != 0 {
		b.Errorf("code %d of one whose output is dropped", code)
	}
	c := b.plan("logged", Print("to stdout", "to stderr"))
	id := b.create(c)
	done := b.attach(b.ctx(), id, engine.Streams{})
	b.must(b.Engine.Start(b.ctx(), id))
	b.must(<-done)
	b.wait(id)
	var out, errs bytes.Buffer
	b.must(b.Engine.Logs(b.ctx(), id, engine.LogOptions{}, &out, &errs))
	if out.String() != "to stdout\n" || errs.String() != "to stderr\n" {
		b.Errorf("the log of what was attached to has %q, %q", out.String(), errs.String())
	}
}

func testAttachStdin(b *bench) {
	text := strings.Repeat("0123456789abcde\n", 1<<16) + "no line feed at the end"
	for _, in := range []string{"", "x", text} {
		c := b.plan("echo", Echo)
		c.Stdin = true
		var out bytes.Buffer
		code, err := b.through(c, engine.Streams{Stdin: strings.NewReader(in), Stdout: &out})
		b.must(err)
		if code != 0 || out.String() != in {
			b.Errorf("code %d, %d bytes of %d came back", code, out.Len(), len(in))
		}
	}
	// An input that never ends keeps nobody waiting.
	r, w := io.Pipe()
	defer w.Close()
	c := b.plan("deaf", Exit(3))
	c.Stdin = true
	if code, err := b.through(c, engine.Streams{Stdin: r}); code != 3 || err != nil {
		b.Errorf("code %d, %v", code, err)
	}
	// Without an input of its own, the process has an empty one.
	if code, err := b.through(b.plan("none", Echo), engine.Streams{}); code != 0 || err != nil {
		b.Errorf("code %d, %v", code, err)
	}
	// What is said after the start arrives, and comes back before the end.
	c = b.plan("talk", Echo)
	c.Stdin = true
	id := b.create(c)
	in, said := io.Pipe()
	heard, out := io.Pipe()
	done := b.attach(b.ctx(), id, engine.Streams{Stdin: in, Stdout: out})
	b.must(b.Engine.Start(b.ctx(), id))
	for i := range 3 {
		_, err := fmt.Fprintf(said, "line %d\n", i)
		b.must(err)
		got := make([]byte, len("line 0\n"))
		_, err = io.ReadFull(heard, got)
		b.must(err)
		if want := fmt.Sprintf("line %d\n", i); string(got) != want {
			b.Errorf("heard %q, want %q", got, want)
		}
	}
	b.must(said.Close())
	b.must(<-done)
	if code := b.wait(id); code != 0 {
		b.Errorf("exit code %d", code)
	}
}

func testAttachRunning(b *bench) {
	id := b.ready("app", Forever)
	var out bytes.Buffer
	done := b.attach(b.ctx(), id, engine.Streams{Stdout: &out})
	b.must(b.Engine.Stop(b.ctx(), id, 20*time.Second))
	b.must(<-done)
	if out.Len() > 0 {
		b.Errorf("it carries %q, which was printed before", out.String())
	}
	b.is(b.Engine.Attach(b.ctx(), id, engine.Streams{}, func() { b.Error("attached to one that has ended") }), engine.ErrConflict)
}

// A process that has closed its outputs may end Attach; Wait tells its end.
func testAttachMute(b *bench) {
	c := b.plan("mute", Mute)
	c.Spec.Init = false // which would hold them open
	id := b.create(c)
	heard, out := io.Pipe()
	done := b.attach(b.ctx(), id, engine.Streams{Stdout: out})
	b.must(b.Engine.Start(b.ctx(), id))
	got := make([]byte, len("ready\n"))
	_, err := io.ReadFull(heard, got)
	b.must(err)
	ctx, cancel := context.WithTimeout(b.Context(), 100*time.Millisecond)
	defer cancel()
	_, err = b.Engine.Wait(ctx, id)
	b.is(err, context.DeadlineExceeded)
	b.must(b.Engine.Kill(b.ctx(), id, "SIGTERM"))
	b.must(<-done)
	if code := b.wait(id); code != 0 || string(got) != "ready\n" {
		b.Errorf("exit code %d, heard %q", code, got)
	}
}

func testAttachContext(b *bench) {
	for _, start := range []bool{false, true} {
		id := b.create(b.plan(fmt.Sprint("app-", start), Forever))
		ctx, cancel := context.WithCancel(b.ctx())
		done := b.attach(ctx, id, engine.Streams{})
		want := engine.Created
		if start {
			b.must(b.Engine.Start(b.ctx(), id))
			want = engine.Running
		}
		begin := time.Now()
		cancel()
		b.is(<-done, context.Canceled)
		if took := time.Since(begin); took > 5*time.Second {
			b.Errorf("it took %s to end", took)
		}
		if got := b.inspect(id); got.State != want {
			b.Errorf("the container is %s, want %s", got.State, want)
		}
	}
}

func testAttachWriter(b *bench) {
	r, w, err := os.Pipe()
	b.must(err)
	defer w.Close()
	b.must(r.Close())
	for _, c := range []struct {
		s    engine.Streams
		want error
	}{
		{engine.Streams{Stdout: brokenPipe{}}, errBroken},
		{engine.Streams{Stderr: brokenPipe{}}, errBroken},
		{engine.Streams{Stdout: w}, syscall.EPIPE},
	} {
		_, err := b.through(b.plan("printer", Print("o", "e")), c.s)
		b.is(err, c.want)
		if errors.Is(err, engine.ErrUnreachable) {
			b.Errorf("the engine is blamed for it: %v", err)
		}
	}
}

func testAttachTTY(b *bench) {
	c := b.plan("terminal", Print("a", "b"))
	c.TTY = true
	var out, errs bytes.Buffer
	code, err := b.through(c, engine.Streams{TTY: true, Stdout: &out, Stderr: &errs})
	b.must(err)
	if code != 0 || out.String() != "a\r\nb\r\n" || errs.Len() > 0 {
		b.Errorf("code %d, stdout %q, stderr %q", code, out.String(), errs.String())
	}
	// The end of the input is not the end of a terminal.
	c = b.plan("input", Talk(200, 4))
	c.TTY, c.Stdin = true, true
	out.Reset()
	code, err = b.through(c, engine.Streams{TTY: true, Stdin: strings.NewReader(""), Stdout: &out})
	b.must(err)
	if got := strings.Count(out.String(), "\r\n"); code != 4 || got != 400 {
		b.Errorf("code %d, %d lines of 400", code, got)
	}
	c.Name = b.name("shown")
	if got := b.inspect(b.create(c)); !got.TTY {
		b.Errorf("it has no terminal: %+v", got)
	}
}
