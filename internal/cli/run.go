package cli

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"conductor/internal/converge"
	"conductor/internal/display"
	"conductor/internal/fault"
	"conductor/internal/spec"
)

// failedRun is the exit code of a run that failed by no fault of its command,
// as Docker has it: the other codes are the command's.
const failedRun = 125

// runFlags are what run was asked for besides the request.
type runFlags struct {
	converge.RunRequest
	detach   bool
	announce int // file descriptor to write the run's name to; 0: none
}

func (a *app) run() *cobra.Command {
	var r runFlags
	cmd := &cobra.Command{
		Use:   "run --id ID [--revision REV] CMD…",
		Short: "Run a command in a container of its own",
		Long: `Runs a command in a fresh container of a service: its image at the revision, its
environment, secrets, volumes, network and limits. Without --revision it is the
release that is live. The container is removed afterwards.

At a terminal the command gets one too; otherwise its input (where it is no
terminal), output and errors are the caller's. Signals are passed on; the third
Ctrl-C kills. The exit code is the command's: 124 when --timeout passed, 125 when
it could not be run, 126 or 127 when the image has no such command.

Flags end at the first word of the command.`,
		Example: "conductor run --id shop --revision v2 bin/cleanup --dry-run",
		Args: func(cmd *cobra.Command, args []string) error {
			if missing := a.missing(cmd, []string{"id"}); len(missing) > 0 {
				return a.mustHave(cmd, missing)
			}
			if len(args) == 0 {
				return usageError("for example: "+cmd.Example, "run needs a command to run")
			}
			if r.OnLock != converge.LockWait && r.Lock == "" {
				return usageError("add --lock NAME", "--on-lock is about a lock, and there is none")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			a.answerTo = a.stderr // stdout is the command's
			r.Command = args
			if r.detach {
				return a.detach(args)
			}
			return a.oneOff(cmd.Context(), r)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := cmd.Flags()
	f.SetInterspersed(false)
	a.idFlag(cmd, &r.Service)
	f.StringVar(&r.Revision, "revision", "", "the `REVISION` to run (default that of the live release)")
	f.Var(&envFlag{&r.Env, a.env.Getenv}, "env", "set a variable, `NAME=VALUE`, or NAME to take it from here; may be repeated")
	f.StringVar(&r.User, "user", "", "run as this `USER`, a name or number, with :group where wanted")
	f.Var(&memoryFlag{&r.Memory}, "memory", "another limit of memory, a `SIZE` such as 512m")
	f.Var(&cpusFlag{&r.CPUs}, "cpus", "another limit of processors, a `NUMBER` such as 0.5")
	f.StringVar(&r.Lock, "lock", "", "run only while holding the lock of this `NAME`")
	r.OnLock = converge.LockWait
	f.Var(&onLockFlag{&r.OnLock}, "on-lock", "when another run holds it: `wait`, skip, or replace (end that one)")
	f.DurationVar(&r.Jitter, "jitter", 0, "wait before it for a random part of this `TIME`")
	f.BoolVarP(&r.detach, "detach", "d", false, "leave it running and print its name")
	f.IntVar(&r.announce, "announce", 0, "")
	_ = f.MarkHidden("announce") // of a run that was detached
	_ = cmd.RegisterFlagCompletionFunc("on-lock", cobra.FixedCompletions([]string{"wait", "skip", "replace"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// oneOff runs the command, and returns its exit code as an error.
func (a *app) oneOff(ctx context.Context, r runFlags) error {
	p, _, err := a.ask(ctx)
	defer p.close()
	if err != nil {
		return a.notRun(failedRun, err)
	}
	r.Streams.Stdout, r.Streams.Stderr = a.stdout, a.stderr
	if _, is := terminal(a.env.Stdin); !is {
		r.Streams.Stdin = a.env.Stdin
	}
	restore := func() {}
	if _, out := terminal(a.stdout); out && r.Streams.Stdin == nil && r.announce == 0 {
		r.Streams.Stdin = a.env.Stdin
		if restore, err = a.lendTerminal(ctx, &r.Streams); err != nil {
			return a.notRun(failedRun, err)
		}
	}
	giveBack := func() {}
	r.Signals = func() (names <-chan string) {
		names, giveBack = a.takeSignals()
		return names
	}
	r.Started = func(name string) { a.announce(r.announce, name) }
	res, err := p.Core.Run(ctx, r.RunRequest)
	restore()
	giveBack()
	for _, n := range res.Notes {
		a.warn(n)
	}
	switch {
	case err != nil:
		code := failedRun
		if res.Code > failedRun {
			code = res.Code
		}
		return a.notRun(code, err)
	case res.Skipped != "":
		// Cron would mail it, each time that a job is due while it still runs.
		if _, is := terminal(a.stderr); is || a.json() {
			a.say("skipped: " + res.Skipped)
		}
	case res.Code != 0:
		return exitCode(res.Code)
	}
	return nil
}

// notRun tells why, and returns the exit code.
func (a *app) notRun(code int, err error) error {
	err = ended(a.ctx, err)
	for _, class := range []error{fault.ErrTimeout, fault.ErrInterrupted} {
		if errors.Is(err, class) {
			code = Code(class)
		}
	}
	a.display().End(display.Result{Code: code, Failures: failures(err)})
	return exitCode(code)
}

// passedOn are the signals that a run's command gets, besides those that end
// Conductor's own commands.
var passedOn = []os.Signal{syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGALRM, syscall.SIGCONT}

// takeSignals has signals go to a channel, by name, until they are given back.
func (a *app) takeSignals() (names <-chan string, giveBack func()) {
	ch, done := make(chan string), make(chan struct{})
	pass := func(s os.Signal) {
		if n, ok := s.(syscall.Signal); ok {
			select {
			case ch <- unix.SignalName(n):
			case <-done:
			}
		}
	}
	back := func() {}
	if a.env.Signals != nil {
		back = a.env.Signals(pass)
	}
	more := make(chan os.Signal, 8)
	signal.Notify(more, passedOn...)
	go func() {
		for {
			select {
			case s := <-more:
				pass(s)
			case <-done:
				return
			}
		}
	}()
	return ch, func() {
		signal.Stop(more)
		back()
		close(done)
	}
}

// envFlag is --env.
type envFlag struct {
	env    *[]string
	getenv func(string) string
}

func (f *envFlag) String() string { return "" }
func (f *envFlag) Type() string   { return "name=value" }
func (f *envFlag) Set(s string) error {
	name, _, has := strings.Cut(s, "=")
	if name == "" || strings.ContainsRune(s, 0) {
		return errors.New("it is NAME=VALUE, or NAME")
	}
	if !has {
		s += "=" + f.getenv(name)
	}
	*f.env = append(*f.env, s)
	return nil
}

// memoryFlag is --memory.
type memoryFlag struct{ n *int64 }

func (f *memoryFlag) String() string { return "" }
func (f *memoryFlag) Type() string   { return "size" }
func (f *memoryFlag) Set(s string) (err error) {
	*f.n, err = spec.ParseMemory(s)
	return err
}

// cpusFlag is --cpus.
type cpusFlag struct{ n *float64 }

func (f *cpusFlag) String() string { return "" }
func (f *cpusFlag) Type() string   { return "number" }
func (f *cpusFlag) Set(s string) error {
	n, err := strconv.ParseFloat(s, 64)
	if err != nil || n < 0.01 || n > 1024 {
		return errors.New("it is a number of processors, such as 0.5")
	}
	*f.n = n
	return nil
}

// onLockFlag is --on-lock.
type onLockFlag struct{ v *converge.OnLock }

func (f *onLockFlag) String() string { return "" }
func (f *onLockFlag) Type() string   { return "word" }
func (f *onLockFlag) Set(s string) error {
	switch v := converge.OnLock(s); v {
	case converge.LockWait, converge.LockSkip, converge.LockReplace:
		*f.v = v
		return nil
	}
	return errors.New("it is wait, skip or replace")
}
