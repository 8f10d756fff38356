package docker

import (
	"context"
	"time"

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
	err = e.carry(ctx, what, conn.HijackedResponse, x.Streams, func(ctx context.Context, size [2]uint) error {
		_, err := e.api.ExecResize(ctx, made.ID, client.ExecResizeOptions{Width: size[0], Height: size[1]})
		return err
	})
	if err != nil {
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
