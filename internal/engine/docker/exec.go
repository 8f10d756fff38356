package docker

import (
	"context"
	"io"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"

	"conductor/internal/engine"
)

// Exec runs a command in a running container. A command that is not there is
// exit code 126 or 127, with the reason on its output, as Docker has it. When
// ctx ends the connection is closed; the process in the container goes on,
// since Docker has no way to end it.
func (e *Engine) Exec(ctx context.Context, id string, x engine.Exec) (int, error) {
	if err := e.agree(ctx); err != nil {
		return 0, err
	}
	what := "exec in container " + id
	made, err := e.api.ExecCreate(ctx, id, client.ExecCreateOptions{
		Cmd: x.Command, TTY: x.TTY, AttachStdin: x.Stdin != nil, AttachStdout: true, AttachStderr: true,
	})
	if err != nil {
		return 0, e.fail(ctx, err, "%s", what)
	}
	conn, err := e.api.ExecAttach(ctx, made.ID, client.ExecAttachOptions{TTY: x.TTY})
	if err != nil {
		return 0, e.fail(ctx, err, "%s", what)
	}
	defer conn.Close()
	// The client lets go of ctx once it is connected.
	defer context.AfterFunc(ctx, conn.Close)()

	if x.Stdin != nil {
		// It ends with the connection, at the latest when stdin next has a
		// byte: a read from a terminal cannot be called off.
		go func() {
			_, _ = io.Copy(conn.Conn, x.Stdin)
			_ = conn.CloseWrite()
		}()
	}
	if x.TTY && x.Resize != nil {
		resizing, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			e.resize(resizing, made.ID, x.Resize)
		}()
		defer func() { cancel(); <-done }()
	}
	out, errs := &sink{w: x.Stdout}, &sink{w: x.Stderr}
	if x.TTY {
		_, err = io.Copy(out, conn.Reader)
	} else {
		_, err = stdcopy.StdCopy(out, errs, conn.Reader)
	}
	if err := e.copied(ctx, err, what, out, errs); err != nil {
		return 0, err
	}
	return e.execCode(ctx, made.ID, what)
}

// execCode waits for the end of a command whose output has ended, which is
// nearly always at once, and returns its exit code.
func (e *Engine) execCode(ctx context.Context, execID, what string) (int, error) {
	for wait := 2 * time.Millisecond; ; wait = min(2*wait, 200*time.Millisecond) {
		r, err := e.api.ExecInspect(ctx, execID, client.ExecInspectOptions{})
		if err != nil {
			return 0, e.fail(ctx, err, "%s", what)
		}
		if !r.Running {
			return r.ExitCode, nil
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return 0, e.fail(ctx, ctx.Err(), "%s", what)
		}
	}
}

// resizeTries bounds the wait for the command to be far enough for its first
// size to be taken: the engine refuses sizes until its process runs.
const resizeTries = 10

// resize passes sizes on until ctx is done. A size that is not taken is lost:
// it is no reason to end the command.
func (e *Engine) resize(ctx context.Context, execID string, sizes <-chan [2]uint) {
	for {
		select {
		case size, ok := <-sizes:
			if !ok {
				return
			}
			for try := range resizeTries {
				_, err := e.api.ExecResize(ctx, execID, client.ExecResizeOptions{Width: size[0], Height: size[1]})
				if err == nil {
					break
				}
				select {
				case <-time.After(time.Duration(try+1) * 10 * time.Millisecond):
				case <-ctx.Done():
					return
				}
			}
		case <-ctx.Done():
			return
		}
	}
}
