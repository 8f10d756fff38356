// Command conductor deploys containers on this host without dropping a request.
//
// It is wiring alone: which adapters there are, what signals mean, the exit
// code. internal/cli has the commands.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"conductor/internal/cli"
	"conductor/internal/fault"
)

func main() {
	ctx := interruptible(context.Background())
	os.Exit(cli.Main(ctx, os.Args[1:], cli.Env{
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv, Open: open,
	}))
}

// interruptible returns a context that the first SIGINT or SIGTERM ends, so
// that the command comes to a clean end; the second one leaves at once. That
// is safe at any instant: the next command goes on from where things are.
func interruptible(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancelCause(ctx)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	go func() {
		<-signals
		cancel(fault.ErrInterrupted)
		<-signals
		os.Exit(130)
	}()
	// A reader of our output that goes away must not kill an upgrade: caught,
	// SIGPIPE becomes an error of the write. Ignored, it would be ignored in
	// the commands that we run as well.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	return ctx
}
