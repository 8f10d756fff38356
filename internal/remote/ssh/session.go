package ssh

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"

	"conductor/internal/fault"
	"conductor/internal/remote"
)

const (
	// greetTimeout is how long the host may take to start its conductor, once it
	// is logged in to.
	greetTimeout = 45 * time.Second
	// deathTimeout is how long the end of a connection takes to be known here,
	// after that of its sessions.
	deathTimeout = time.Second
	// hangUpTimeout is how long a far end may take to end by itself when its
	// input has ended.
	hangUpTimeout = 5 * time.Second
)

// errRefused: the host takes no more sessions on this connection. Nothing of
// the request was sent.
var errRefused = errors.New("session refused")

// exchange is one request on a connection: a session.
type exchange struct {
	transport *Transport
	master    *master
	host      remote.Host
	far       string // what the host is made to run: farCommand or rootCommand
	request   remote.Request
	line      []byte // what is sent first: the request
	streams   remote.Streams

	cmd    *exec.Cmd
	ended  chan error
	stdout *answer
	stderr *answer
	ending *endings
	pipes  [2]*os.File // where its output is read
	copied sync.WaitGroup
	failed chan error // of writing to the caller's streams

	interrupt chan struct{} // closed: the far end shall come to a clean end
	over      chan struct{} // closed: nothing is fed any more
}

// run does the request.
func (x *exchange) run(ctx context.Context) error {
	log, err := x.transport.begin()
	if err != nil {
		return fmt.Errorf("%s: %w", x.host.Name, err)
	}
	defer x.transport.open.Done()
	defer os.Remove(log)
	stdin, err := x.start(log)
	if err != nil {
		return fault.New(fault.ErrUnreachable, "", "reach %s: start ssh: %w", x.host, err)
	}
	x.interrupt, x.over = make(chan struct{}), make(chan struct{})
	go x.feed(stdin)
	err = x.wait(ctx)
	close(x.over)
	x.copied.Wait()
	if err != nil {
		return err
	}
	select {
	case err := <-x.failed:
		return x.lost(err)
	default:
		return x.judge(log)
	}
}

func (x *exchange) lost(err error) error {
	return fmt.Errorf("%s: pass on its output: %w", x.host.Name, err)
}

// start starts ssh.
func (x *exchange) start(log string) (stdin io.WriteCloser, err error) {
	command := x.transport.command
	x.cmd = exec.Command(command[0], sessionArgs(command, x.master.socket, log, x.far)...)
	x.cmd.Dir = x.transport.dir
	x.ending = newEndings(x.streams.Stderr)
	x.stdout = &answer{to: x.streams.Stdout, begun: make(chan struct{})}
	x.stderr = &answer{to: x.ending, begun: make(chan struct{})}
	x.failed = make(chan error, 2)
	if stdin, err = x.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	var theirs [2]*os.File
	for i := range theirs {
		if x.pipes[i], theirs[i], err = os.Pipe(); err != nil {
			return nil, err
		}
		defer theirs[i].Close()
	}
	x.cmd.Stdout, x.cmd.Stderr = theirs[0], theirs[1]
	x.ended = make(chan error, 1)
	if err := start(x.cmd, x.ended); err != nil {
		return nil, errors.Join(err, x.pipes[0].Close(), x.pipes[1].Close())
	}
	for i, to := range []io.Writer{x.stdout, x.stderr} {
		x.copied.Go(func() {
			defer x.pipes[i].Close()
			if _, err := io.Copy(to, x.pipes[i]); err != nil && !errors.Is(err, os.ErrClosed) {
				x.failed <- err
			}
		})
	}
	return stdin, nil
}

// feed writes the far end's input.
func (x *exchange) feed(stdin io.WriteCloser) {
	defer stdin.Close()
	if _, err := stdin.Write(x.line); err != nil {
		return // why is known by how ssh ends
	}
	// What comes after is of the caller's making, and is not read before it is
	// sure that somebody takes it.
	select {
	case <-x.stdout.begun:
	case <-x.over:
		return
	}
	switch x.request.Do.Input() {
	case remote.Bytes:
		if x.streams.Stdin != nil {
			_, _ = io.Copy(stdin, x.streams.Stdin)
		}
	case remote.Beats:
		stop := make(chan struct{})
		go func() {
			defer close(stop)
			select {
			case <-x.interrupt:
			case <-x.over:
			}
		}()
		remote.Beat(stdin, x.streams.Take, stop)
	case remote.Lines:
		select {
		case <-x.interrupt:
			_, _ = io.WriteString(stdin, remote.Interrupt+"\n")
			<-x.over
		case <-x.over:
		}
	}
}

// wait waits for ssh to end; an error is a reason of our own for its end.
func (x *exchange) wait(ctx context.Context) error {
	greeting := time.NewTimer(greetTimeout)
	defer greeting.Stop()
	begun, cancelled, late := x.stdout.begun, ctx.Done(), (<-chan time.Time)(nil)
	lingers, passed := x.ending.lingers.C, int64(-1)
	if x.request.Do.Input() == remote.Bytes {
		lingers = nil // who reads its output may be slow
	}
	for {
		select {
		case <-x.ended:
			return nil
		case <-begun:
			begun = nil
			greeting.Stop()
		case <-greeting.C:
			x.kill()
			return fault.New(fault.ErrHost, fmt.Sprintf("see what is slow there: %s conductor version", byHand(x.host)),
				"%s: logged in, and its conductor did not start within %s%s", x.host, greetTimeout, lastSaid(x.stderr.preamble()))
		case err := <-x.failed:
			x.kill()
			return x.lost(err)
		case <-cancelled:
			cancelled = nil
			input := x.request.Do.Input()
			if begun != nil || input == remote.Bytes {
				x.kill()
				return fmt.Errorf("%s: %w", x.host.Name, context.Cause(ctx))
			}
			close(x.interrupt)
			grace := x.transport.grace
			if input == remote.Beats {
				grace = hangUpTimeout
			}
			t := time.NewTimer(grace)
			defer t.Stop()
			late = t.C
		case <-lingers:
			if n := x.stdout.passed.Load(); n != passed { // its answer is still on its way
				passed = n
				x.ending.lingers.Reset(hangUpTimeout)
				continue
			}
			x.kill() // it has ended, and something there holds the session open
			return nil
		case <-late:
			x.kill()
			return fmt.Errorf("%s: told to end, it had not ended after a while, and may go on: %w", x.host.Name, context.Cause(ctx))
		}
	}
}

// kill ends ssh, and with it the session, without asking.
func (x *exchange) kill() {
	end(x.cmd, x.ended)
	for _, p := range x.pipes { // the master may hold their other ends
		_ = p.Close()
	}
}

// judge says how the session ended.
func (x *exchange) judge(log string) error {
	if e, ok := x.ending.found(); ok {
		return e.Err(x.host, x.request.Do, x.ending.tail())
	}
	said := readLog(log)
	if refusedBy(said) {
		return refusal(x.host)
	}
	code := x.cmd.ProcessState.ExitCode()
	if code == 255 || code == -1 { // -1: a signal, as when this process dies
		select {
		case <-x.master.done:
			return x.cut()
		case <-time.After(deathTimeout):
		}
	}
	if !x.stdout.hasBegun() {
		return notStarted(x.host, x.request.Do, code, x.stderr.preamble(), said)
	}
	return &fault.Error{
		Class: fault.ErrUnreachable, Hint: "what was asked may be half done: see what became of it, then do it again",
		Err: fmt.Errorf("%s: its conductor ended in the middle of the answer, as if killed%s: %w", x.host, lastSaid(x.ending.tail()), remote.ErrCut),
	}
}

func refusal(host remote.Host) error {
	return fault.New(fault.ErrHost, "raise MaxSessions in its sshd_config; sshd's own default is 10",
		"%s: its sshd takes no more sessions on this connection: %w", host, errRefused)
}

// cut says why the connection is gone, on which the session was.
func (x *exchange) cut() error {
	why := x.master.why(x.host)
	return &fault.Error{
		Class: fault.ErrUnreachable, Hint: fault.Hint(why),
		Err: fmt.Errorf("%s: %w in the middle of %s: %w", x.host.Name, remote.ErrCut, x.request.What(), why),
	}
}
