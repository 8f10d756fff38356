// Package cli is the command line: flags become a request, the request goes to
// the core, and what the core says is shown. It decides nothing else.
//
// Each command has a file of its own. cmd/conductor is the only importer; it
// hands in an Opener, so that this package knows no adapter and commands that
// need no host open none.
package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"os/user"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"conductor/internal/display"
	"conductor/internal/fault"
	"conductor/internal/remote"
)

// Env is the process around the command line.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	Name           string // as the program was called: a path, or a name to be found
	Open           Opener
	OpenFleet      FleetOpener
	// Signals has SIGINT and SIGTERM go to pass instead of ending the command's
	// context, until giveBack is called; nil: it cannot be had.
	Signals func(pass func(os.Signal)) (giveBack func())
	// Session is the request, from another machine, that this command line is
	// part of; nil: none.
	Session *remote.Request
}

// Main runs one command and returns the process's exit code. When ctx ends
// with the cause fault.ErrInterrupted, the command is brought to a clean end.
func Main(ctx context.Context, args []string, e Env) int {
	a := &app{env: e, args: args, start: time.Now(), stdout: &guard{w: e.Stdout}, stderr: e.Stderr}
	a.answerTo = a.stdout
	a.output.mode = a.defaultMode()

	a.completing = len(args) > 0 && strings.HasPrefix(args[0], cobra.ShellCompRequestCmd)

	root := a.root()
	root.SetArgs(args)
	root.SetIn(e.Stdin)
	root.SetOut(a.stdout)
	root.SetErr(e.Stderr)
	defer func() { a.cancel() }()

	err := root.ExecuteContext(ctx)
	if err == nil || errors.Is(err, errReaderGone) {
		return 0
	}
	if own, ok := errors.AsType[exitCode](err); ok {
		return int(own)
	}
	return a.fail(err, args)
}

// app is one run of the command line.
type app struct {
	env    Env
	args   []string
	start  time.Time
	stdout *guard
	stderr io.Writer

	// answerTo is where progress and the result go: stdout, but for commands
	// that leave stdout to a program inside a container.
	answerTo io.Writer
	disp     display.Display
	outcomes any // of a verb that failed for some of its services

	completing bool // a shell asks what a word could become
	configFile string
	reason     string // for the history
	fleetFile  string
	output     outputFlag
	timeout    timeoutFlag
	flagsRead  bool            // the flags above are what was given
	ctx        context.Context // the command's, with its timeout
	stop       context.CancelFunc
}

func (a *app) cancel() {
	if a.stop != nil {
		a.stop()
	}
}

// exitCode is the exit code of a program that the command ran: nothing of ours
// went wrong, so nothing is said.
type exitCode int

func (c exitCode) Error() string { return "exit code " + strconv.Itoa(int(c)) }

func (a *app) root() *cobra.Command {
	root := a.group(&cobra.Command{
		Use:   "conductor",
		Short: "Deploys containers on this host without dropping a request",
		Long: `Conductor brings the containers of this host to what their definitions say,
behind a proxy, without dropping a request.

A service is a file, services/<id>.yml. A first look:

  conductor validate                                  are the definitions right?
  conductor doctor                                    is the host ready?
  conductor service upgrade --id shop --revision v2   run revision v2 of shop
  conductor service status                            what runs, and how it is
  conductor deploy --id shop --revision v2            the same on all hosts of fleet.yml`,
	})
	f := root.PersistentFlags()
	f.StringVar(&a.configFile, "config", "", "configuration `FILE` (default $CONDUCTOR_CONFIG, then "+defaultConfig+")")
	f.Var(&a.output, "output", "`FORM` of the output: tty, plain, json or quiet (default by terminal)")
	f.Var(&a.timeout, "timeout", "give up after this `TIME`, such as 90s or 10m")
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
		if t := a.timeout.d; t > 0 {
			ctx, a.stop = context.WithTimeoutCause(ctx, t, fault.ErrTimeout)
			cmd.SetContext(ctx)
		}
		a.ctx, a.flagsRead = ctx, true
		return nil
	}
	root.SilenceErrors, root.SilenceUsage = true, true
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(flagError)
	_ = root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions(modeWords(), cobra.ShellCompDirectiveNoFileComp))

	root.AddCommand(a.service(), a.run(), a.runs(), a.cron(), a.convergeCmd(), a.supervise(), a.validate(), a.doctor(), a.prune(), a.schema(), a.version(), a.completion(root), a.man(root))
	if a.env.Session == nil { // else it is about this host, and about no other
		root.AddCommand(a.deploy(), a.fleetCmd(), a.hostCmd(root), a.syncCmd(), a.session(), a.packageCmd(root))
	}
	return root
}

// display returns where this command shows what it does.
func (a *app) display() display.Display {
	if a.disp == nil {
		a.disp = display.New(a.displayOptions())
	}
	return a.disp
}

func (a *app) displayOptions() display.Options {
	return display.Options{Mode: a.output.mode, Out: a.answerTo, Err: a.stderr, Color: a.color(), Start: a.start}
}

// fail shows why the command failed and returns its exit code.
func (a *app) fail(err error, args []string) int {
	if !a.flagsRead {
		// Flags were not read to their end; who asked for JSON still gets it.
		a.output.mode = modeIn(args, a.output.mode)
	}
	err = ended(a.ctx, err)
	code := Code(err)
	a.display().End(display.Result{Code: code, Failures: failures(err), Outcomes: a.outcomes})
	return code
}

// json says whether stdout carries JSON.
func (a *app) json() bool { return a.output.mode == display.JSON }

func (a *app) warn(text string) {
	display.WriteWarning(a.stderr, display.Painter(a.color()), text)
}

// say writes a line for people where answers go; nothing where a program
// reads, or where it shall be quiet.
func (a *app) say(text string) {
	if m := a.output.mode; m == display.TTY || m == display.Plain {
		_, _ = io.WriteString(a.answerTo, text+"\n") // news, no answer
	}
}

// whoAsks names the person behind the command, for locks and the history.
func (a *app) whoAsks() string {
	if r := a.env.Session; r != nil && r.By != "" {
		return r.By
	}
	if s := a.env.Getenv("SUDO_USER"); s != "" {
		return s
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return strconv.Itoa(os.Getuid())
}
