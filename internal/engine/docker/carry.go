package docker

import (
	"context"
	"io"
	"time"

	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"

	"conductor/internal/engine"
)

// carry copies streams over a connection that was taken out of HTTP until the
// output has ended, and closes it. resize sets the size of the terminal.
func (e *Engine) carry(ctx context.Context, what string, conn client.HijackedResponse, s engine.Streams, resize func(context.Context, [2]uint) error) error {
	defer conn.Close()
	// The client lets go of ctx once it is connected.
	defer context.AfterFunc(ctx, conn.Close)()

	if s.Stdin != nil {
		// It ends with the connection, at the latest when stdin next has a
		// byte: a read from a terminal cannot be called off.
		go func() {
			_, _ = io.Copy(conn.Conn, s.Stdin)
			// At a terminal Docker would end the output with it.
			if !s.TTY {
				_ = conn.CloseWrite()
			}
		}()
	}
	if s.TTY && s.Resize != nil {
		resizing, cancel := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			passSizes(resizing, s.Resize, resize)
		}()
		defer func() { cancel(); <-done }()
	}
	out, errs := &sink{w: s.Stdout}, &sink{w: s.Stderr}
	var err error
	if s.TTY {
		_, err = io.Copy(out, conn.Reader)
	} else {
		_, err = stdcopy.StdCopy(out, errs, conn.Reader)
	}
	return e.copied(ctx, err, what, out, errs)
}

// The engine refuses sizes until the process runs. resizeTries times at most
// resizeWait, some 10 s, is longer than a start takes.
const (
	resizeTries = 100
	resizeWait  = 100 * time.Millisecond
)

// passSizes passes sizes on until ctx is done. One that is refused is tried
// again, unless there is a later one; one that is not taken in the end is lost,
// since it is no reason to end the process.
func passSizes(ctx context.Context, sizes <-chan [2]uint, resize func(context.Context, [2]uint) error) {
	var size [2]uint
	tries, wait := 0, time.Duration(0)
	for {
		var again <-chan time.Time
		if tries > 0 {
			again = time.After(wait)
		}
		select {
		case next, ok := <-sizes:
			if !ok {
				sizes = nil
				continue
			}
			size, tries, wait = next, resizeTries, 10*time.Millisecond
		case <-again:
			wait = min(wait*3/2, resizeWait)
		case <-ctx.Done():
			return
		}
		if tries--; resize(ctx, size) == nil {
			tries = 0
		}
	}
}
