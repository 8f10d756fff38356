package docker

import (
	"context"
	"fmt"
	"strings"

	"github.com/moby/moby/client"

	"conductor/internal/engine"
)

// neverDetach stands for the keys that end an attachment and leave the
// container running. The engine's own, Ctrl-P Ctrl-Q, would keep each Ctrl-P
// back until the next key. These are bytes that no text in UTF-8 contains.
var neverDetach = strings.TrimSuffix(strings.Repeat("\xff,", 16), ",")

// Attach connects to a container. Docker has connected its side when it
// answers. It would connect to one that has ended, too, and wait for its next
// start; so the state is looked at once the connection is there.
func (e *Engine) Attach(ctx context.Context, id string, s engine.Streams, attached func()) error {
	if err := e.agree(ctx); err != nil {
		return err
	}
	what := "attach to container " + id
	opts := client.ContainerAttachOptions{Stream: true, Stdin: s.Stdin != nil, Stdout: true, Stderr: true}
	if s.TTY {
		opts.DetachKeys = neverDetach
	}
	res, err := e.api.ContainerAttach(ctx, id, opts)
	if err != nil {
		return e.fail(ctx, err, "%s", what)
	}
	c, err := e.Inspect(ctx, id)
	switch {
	case err != nil:
		res.Close()
		return fmt.Errorf("%s: %w", what, err)
	case c.State == engine.Exited || c.State == engine.Removing:
		res.Close()
		return fmt.Errorf("%s: %w: it has ended", what, engine.ErrConflict)
	}
	attached()
	return e.carry(ctx, what, res.HijackedResponse, s, func(ctx context.Context, size [2]uint) error {
		_, err := e.api.ContainerResize(ctx, id, client.ContainerResizeOptions{Width: size[0], Height: size[1]})
		return err
	})
}
