package cli

import (
	"context"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/term"

	"conductor/internal/engine"
	"conductor/internal/fault"
)

// lendTerminal gives the command in the container our terminal, where there is
// one at both ends: raw, so that every key goes through (Ctrl-C too), and with
// its size. restore takes it back.
func (a *app) lendTerminal(ctx context.Context, s *engine.Streams) (restore func(), err error) {
	in, isIn := terminal(a.env.Stdin)
	out, isOut := terminal(a.stdout)
	if !isIn || !isOut {
		return func() {}, nil
	}
	before, err := term.MakeRaw(in)
	if err != nil {
		return nil, fault.New(fault.ErrHost, "redirect the input: conductor … < /dev/null", "make the terminal raw: %w", err)
	}
	sizes := make(chan [2]uint, 1)
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			if w, h, err := term.GetSize(out); err == nil {
				select {
				case sizes <- [2]uint{uint(w), uint(h)}:
				case <-done:
					return
				}
			}
			select {
			case <-changed:
			case <-done:
				return
			case <-ctx.Done():
				return
			}
		}
	})
	s.TTY, s.Resize = true, sizes
	return func() {
		signal.Stop(changed)
		close(done)
		wg.Wait()
		_ = term.Restore(in, before)
	}, nil
}
