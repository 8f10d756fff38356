package session

import (
	"bufio"
	"context"
	"errors"
	"io"

	"conductor/internal/balancer"
	"conductor/internal/fault"
	"conductor/internal/remote"
)

// questions is the far end of a remote.Dialogue: it answers what the request asks,
// and then each line of the input. An error is the last answer.
func questions[Q, A any](do func(ctx context.Context, q Q) (A, error)) Handler {
	return func(ctx context.Context, c Call) error {
		in := bufio.NewReader(c.Stdin)
		for text := []byte(c.Body); ; {
			var q Q
			if err := read(c.Do, text, &q); err != nil {
				return err
			}
			a, err := do(ctx, q)
			if err != nil {
				return err
			}
			if err := answer(c.Stdout, a); err != nil {
				return err
			}
			text, err = readLine(in, remote.MaxRequest)
			switch {
			case errors.Is(err, io.EOF):
				return nil // half of a question is nobody's any more
			case err != nil:
				return fault.New(fault.ErrUsage, "", "read what %q asks with: %w", c.Do, err)
			}
		}
	}
}

func askHAProxy(ctx context.Context, r balancer.RuntimeRequest) (string, error) {
	return HAProxy(ctx, r.Socket, r.Lines)
}
