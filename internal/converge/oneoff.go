package converge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"conductor/internal/engine"
	"conductor/internal/fault"
	"conductor/internal/goal"
	"conductor/internal/state"
)

// Exit codes of a run that are not its command's, as Docker has them.
const (
	codeLost      = 125 // what became of the command is not known
	codeNotRun    = 126 // the command is there and cannot be run
	codeNoCommand = 127 // the command is not there
	codeKilled    = 137 // by SIGKILL
)

// oneOff is a run under way.
type oneOff struct {
	*Host
	RunRequest
	release goal.Release
	name    string
	id      string
	log     io.WriteCloser
	peak    atomic.Int64
	record  state.Run
	notes   []string

	restarted bool // the engine was away once since the start
}

func (h *Host) run(ctx context.Context, r RunRequest, release goal.Release) (res RunResult, err error) {
	o := &oneOff{Host: h, RunRequest: r, release: release, name: h.runName(r.Service, release)}
	res.Name = o.name
	defer func() { res.Notes = o.notes }() // those of clear among them
	if err := o.create(ctx); err != nil {
		return res, err
	}
	defer o.clear(ctx)
	if o.log, err = h.Runs.RunLog(o.name); err != nil {
		return res, err
	}
	defer o.log.Close()
	o.record = state.Run{
		Name: o.name, Service: r.Service, Revision: release.Revision, Release: release.Digest, Container: o.id,
		Command: slices.Concat(r.entrypoint, r.Command), Lock: r.Lock, User: h.User, Started: time.Now(),
	}
	h.Runs.BeginRun(o.record)
	res.Code, err = o.attend(ctx)
	o.record.Ended, o.record.Code, o.record.Memory = time.Now(), res.Code, o.peak.Load()
	o.record.Outcome = "ok"
	if res.Code != 0 {
		o.record.Outcome = "failed"
	}
	if err != nil {
		o.record.Outcome, o.record.Error = outcomeWord(err), err.Error()
		res.Code = max(res.Code, codeLost)
		if o.record.Code = res.Code; o.record.Outcome != "failed" && h.Code != nil {
			o.record.Code = h.Code(err)
		}
	}
	o.record.Error = firstOf(o.record.Error, strings.Join(o.notes, "; "))
	h.Runs.EndRun(o.record)
	return res, err
}

// create makes the container.
func (o *oneOff) create(ctx context.Context) error {
	reading, cancel := context.WithTimeout(ctx, secretsTimeout)
	defer cancel()
	m, err := o.Secrets.Read(reading, o.release.Container)
	if err != nil {
		return err
	}
	c := engine.Create{
		Name: o.name, Image: o.release.Image, Labels: o.mine(o.Service, KindRun), Env: overlay(m.Env, o.Env),
		Command: o.Command, Spec: o.container(o.release.Container), TTY: o.Streams.TTY, Stdin: o.Streams.Stdin != nil,
	}
	c.Labels[LabelRevision], c.Labels[LabelRelease] = o.release.Revision, o.release.Digest
	c.Labels[LabelRun], c.Labels[LabelProcess] = firstOf(o.Kind, RunCommand), state.Self()
	c.Labels[LabelGrace] = c.Spec.StopGracePeriod.String()
	if o.Lock != "" {
		c.Labels[LabelLock] = o.Lock
	}
	if c.Files, err = o.Secrets.Place(o.name, m.Files); err != nil {
		return err
	}
	err = limited(ctx, func(ctx context.Context) error {
		a := action{Host: o.Host, shared: newShared()}
		if c.Network, c.Address, err = a.address(ctx); err != nil {
			return err
		}
		o.id, err = o.Engine.Create(ctx, c)
		return err
	})
	if err != nil {
		o.id = o.name // it may be there all the same
		o.clear(ctx)
	}
	return err
}

// clear removes what there is of the run. What it leaves, the next command
// sweeps up.
func (o *oneOff) clear(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	err := o.Engine.Remove(ctx, o.id)
	if errors.Is(err, engine.ErrConflict) { // it runs still
		if err = o.Engine.Kill(ctx, o.id, "SIGKILL"); err == nil {
			if _, err = o.Engine.Wait(ctx, o.id); err == nil {
				err = o.Engine.Remove(ctx, o.id)
			}
		}
	}
	if err != nil && !notFound(err) {
		o.notes = append(o.notes, "its container is left to the next command: "+err.Error())
	}
	if err := o.Secrets.Clear(o.name); err != nil {
		o.notes = append(o.notes, err.Error())
	}
}

// attend starts the command and stays with it to its end.
func (o *oneOff) attend(ctx context.Context) (int, error) {
	// The streams end with the container, and not with ctx: what it says while
	// it is being ended is heard.
	streaming, hangUp := context.WithCancel(context.WithoutCancel(ctx))
	defer hangUp()
	attached, streamed := make(chan struct{}), make(chan error, 1)
	s := o.Streams
	s.Stdout, s.Stderr = both(o.log, s.Stdout), both(o.log, s.Stderr)
	go func() { streamed <- o.Engine.Attach(streaming, o.id, s, func() { close(attached) }) }()
	select {
	case <-attached:
	case err := <-streamed:
		return codeLost, fmt.Errorf("attach: %w", err)
	case <-ctx.Done():
		return codeLost, cutShort(ctx)
	}
	var signals <-chan string
	if o.Signals != nil {
		signals = o.Signals() // what comes before the start has ended waits for that
	}
	err := limited(ctx, func(ctx context.Context) error { return o.Engine.Start(ctx, o.id) })
	if err != nil && transient(err) {
		err = o.begun(ctx, err)
	}
	if err != nil {
		if ctx.Err() != nil {
			return codeLost, cutShort(ctx)
		}
		return cannotRun(o.Command, err)
	}
	if o.Started != nil {
		o.Started(o.name)
	}
	watching, done := context.WithCancel(streaming)
	defer done()
	go o.watchMemory(watching)

	code, err := o.await(ctx, signals, streamed)
	if err != nil {
		return code, err
	}
	o.epilogue(streaming, code)
	return code, nil
}

// begun is nil if the command runs or has run, although the engine went away
// before it answered the start, or did not in time.
func (o *oneOff) begun(ctx context.Context, start error) error {
	o.restarted = errors.Is(start, engine.ErrUnreachable) // or it was only slow
	for away := time.Now(); ctx.Err() == nil && time.Since(away) < patience; time.Sleep(100 * time.Millisecond) {
		var c engine.Container
		err := limited(ctx, func(ctx context.Context) (err error) {
			c, err = o.Engine.Inspect(ctx, o.id)
			return err
		})
		switch {
		case err == nil && c.State == engine.Created:
			return fmt.Errorf("it has not begun: %w", start)
		case err == nil:
			return nil
		case !transient(err):
			return err
		}
	}
	return start
}

type ended struct {
	code int
	err  error
}

// await passes signals on until the command has ended and all that it said was
// carried.
func (o *oneOff) await(ctx context.Context, signals <-chan string, streamed <-chan error) (int, error) {
	free := context.WithoutCancel(ctx)
	exited := make(chan ended, 1)
	go func() { exited <- o.exit(free) }()
	passing, done := context.WithCancel(free)
	defer done()
	next := make(chan string)
	go o.passOn(passing, next)
	var waiting []string // signals, while the engine takes one before
	interrupts, result := 0, (*ended)(nil)
	var why error // it is ended before its time
	finished := ctx.Done()
	for result == nil || streamed != nil {
		first, to := "", chan<- string(nil)
		if len(waiting) > 0 {
			first, to = waiting[0], next
		}
		select {
		case to <- first:
			waiting = waiting[1:]
		case sig := <-signals:
			if result != nil {
				return result.code, result.err // its output goes nowhere: who waits gives up
			}
			if sig == "SIGINT" || sig == "SIGTERM" {
				interrupts++
			}
			switch {
			case interrupts >= 3: // it waits for no other, which may hang in the engine
				waiting = nil
				go func() { _ = o.signal(passing, "SIGKILL") }()
			case !slices.Contains(waiting, sig): // as the kernel has it with one that is pending
				waiting = append(waiting, sig)
			}
		case <-finished:
			finished, why = nil, cutShort(ctx)
			go o.stop(free)
		case err := <-streamed:
			streamed = nil
			if err != nil && result == nil && !transient(err) {
				why = fmt.Errorf("%w: %w", errReaderGone, err)
				go o.stop(free)
			}
		case e := <-exited:
			result, exited = &e, nil
		}
	}
	if errors.Is(why, errReaderGone) {
		return result.code, result.err // as a program in a pipe ends that is read no more
	}
	return result.code, firstOf(result.err, why)
}

// cutShort is the error of a run that its caller ends.
func cutShort(ctx context.Context) error {
	if errors.Is(context.Cause(ctx), fault.ErrTimeout) || errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fault.New(fault.ErrTimeout, "give --timeout more, or leave it away", "--timeout passed, so it was ended")
	}
	return fault.New(fault.ErrInterrupted, "", "interrupted, so it was ended")
}

var errReaderGone = errors.New("nobody reads its output any more")

// passOn gives the command one signal after the other, until ctx is done.
func (o *oneOff) passOn(ctx context.Context, signals <-chan string) {
	for {
		select {
		case sig := <-signals:
			_ = o.signal(ctx, sig) // a command that has ended needs none
		case <-ctx.Done():
			return
		}
	}
}

func (o *oneOff) signal(ctx context.Context, sig string) error {
	return limited(ctx, func(ctx context.Context) error { return o.Engine.Kill(ctx, o.id, sig) })
}

func (o *oneOff) stop(ctx context.Context) {
	g := o.release.Container.StopGracePeriod.D()
	ctx, cancel := context.WithTimeout(ctx, g+callTimeout)
	defer cancel()
	_ = o.Engine.Stop(ctx, o.id, g) // what still runs then, clear kills
}

// exit waits for the command's end, over a restart of the engine too, with
// which it ends unless the engine lets containers live on.
func (o *oneOff) exit(ctx context.Context) ended {
	away := time.Time{}
	for {
		slice, cancel := context.WithTimeout(ctx, callTimeout)
		code, err := o.Engine.Wait(slice, o.id)
		cancel()
		switch {
		case err == nil && !o.restarted:
			return ended{code: code}
		case err == nil:
			return ended{codeLost, fault.New(fault.ErrUnreachable, "what it printed last may be missing; `conductor runs logs "+o.name+"` has what was heard",
				"the engine was restarted while it ran; it ended with exit code %d", code)}
		case notFound(err):
			return ended{codeLost, fmt.Errorf("somebody removed its container %s: how it ended is not known", o.name)}
		case errors.Is(err, context.DeadlineExceeded):
			away = time.Time{}
			continue // a long answer: asked anew, since one can be lost
		case !errors.Is(err, engine.ErrUnreachable):
			return ended{codeLost, err}
		case away.IsZero():
			away, o.restarted = time.Now(), true
		case time.Since(away) > patience:
			return ended{codeLost, fmt.Errorf("the engine went away while it ran, and did not come back within %s: %w", patience, err)}
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// epilogue says what the exit code alone does not.
func (o *oneOff) epilogue(ctx context.Context, code int) {
	if code != codeKilled {
		return
	}
	limit := o.container(o.release.Container).Limits.Memory
	var c engine.Container
	err := limited(ctx, func(ctx context.Context) (err error) {
		c, err = o.whyEnded(ctx, o.id, limit)
		return err
	})
	if err == nil && c.OOMKilled {
		o.notes = append(o.notes, fmt.Sprintf("killed: out of memory, its limit is %d MiB (give it more with --memory)", limit>>20))
	}
}

// cannotRun is the exit code of a command that could not be started.
func cannotRun(command []string, err error) (int, error) {
	if !errors.Is(err, engine.ErrCannotRun) {
		return codeLost, err
	}
	code := codeNotRun
	if t := err.Error(); strings.Contains(t, "not found") || strings.Contains(t, "no such file") {
		code = codeNoCommand
	}
	return code, fmt.Errorf("start %q: %w", strings.Join(command, " "), err)
}

// watchMemory keeps the most memory that the run has held. The kernel keeps
// that figure itself, so looks may be far apart; it is gone with the run.
func (o *oneOff) watchMemory(ctx context.Context) {
	c, err := o.Engine.Inspect(ctx, o.id)
	if err != nil || c.PID == 0 {
		return
	}
	g := cgroupOf(c.PID)
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 250*time.Millisecond) {
		o.peak.Store(max(o.peak.Load(), g.peak()))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// both writes to the log first: who reads may go away.
func both(log, to io.Writer) io.Writer {
	if to == nil {
		return log
	}
	return io.MultiWriter(log, to)
}
