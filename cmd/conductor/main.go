// Command conductor deploys containers on this host without dropping a request.
//
// It is wiring alone: which adapters there are, what signals mean, the exit
// code. internal/cli has the commands.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"

	"conductor/internal/cli"
	"conductor/internal/fault"
)

func main() {
	runtime.MemProfileRate = 0 // nobody asks for a profile, for which a supervisor would note a little all the time
	var s signals
	ctx := s.interruptible(context.Background())
	os.Exit(cli.Main(ctx, os.Args[1:], cli.Env{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Name: os.Args[0], Open: open, OpenFleet: openFleet, Signals: s.take,
	}))
}

// signals are SIGINT and SIGTERM: they end the command, unless it has taken
// them to pass them on.
type signals struct {
	mu   sync.Mutex
	pass func(os.Signal)
}

// interruptible returns a context that the first of them ends, so that the
// command comes to a clean end; the second one leaves at once. That is safe at
// any instant: the next command goes on from where things are.
func (s *signals) interruptible(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancelCause(ctx)
	come := make(chan os.Signal, 2)
	signal.Notify(come, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		for sig := range come {
			s.mu.Lock()
			pass := s.pass
			s.mu.Unlock()
			switch {
			case pass != nil:
				pass(sig)
			case ctx.Err() != nil:
				os.Exit(130)
			default:
				cancel(fault.ErrInterrupted)
			}
		}
	}()
	// A reader of our output that goes away must not kill an upgrade: caught,
	// SIGPIPE becomes an error of the write. Ignored, it would be ignored in
	// the commands that we run as well.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	return ctx
}

// take has them go to pass until giveBack is called.
func (s *signals) take(pass func(os.Signal)) (giveBack func()) {
	set := func(f func(os.Signal)) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.pass = f
	}
	set(pass)
	return func() { set(nil) }
}
