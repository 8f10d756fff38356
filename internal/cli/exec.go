package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"conductor/internal/converge"
	"conductor/internal/display"
	"conductor/internal/engine"
	"conductor/internal/fault"
)

func (a *app) exec() *cobra.Command {
	var id, instance string
	cmd := &cobra.Command{
		Use:   "exec --id ID CMD…",
		Short: "Run a command inside a live instance of a service",
		Long: `Runs a command inside a live instance, a healthy one where there is one, and
exits with the command's exit code. At a terminal the command gets one too, so
that a shell works; otherwise its input, output and errors are the caller's.

Flags end at the first word of the command.`,
		Example: "conductor service exec --id shop bin/console",
		Args: func(cmd *cobra.Command, args []string) error {
			if missing := a.missing(cmd, []string{"id"}); len(missing) > 0 {
				return a.mustHave(cmd, missing)
			}
			if len(args) == 0 {
				return usageError("for example: "+cmd.Example, "service exec needs a command to run")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			a.answerTo = a.stderr // stdout is the command's
			p, _, err := a.ask(cmd.Context())
			defer p.close()
			if err != nil {
				return err
			}
			statuses, err := p.Core.Brief(cmd.Context(), id)
			if err != nil {
				return err
			}
			i, err := chooseInstance(id, instance, statuses)
			if err != nil {
				return err
			}
			return a.execIn(cmd.Context(), p.Engine, i, args)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().SetInterspersed(false)
	a.idFlag(cmd, &id)
	cmd.Flags().StringVar(&instance, "instance", "", "in the instance of this `NAME`")
	return cmd
}

// errNotLive: there is nothing to run a command in. The request was right, so
// it is no wrong usage; it has no exit code of its own.
var errNotLive = errors.New("not live")

// chooseInstance picks the instance that was named, else a live one: healthy
// before routed before any, and the lowest slot of those.
func chooseInstance(id, named string, statuses []converge.Status) (converge.InstanceStatus, error) {
	var best converge.InstanceStatus
	var names []string
	score, bestScore := 0, 0
	for _, s := range statuses {
		for _, i := range s.Instances {
			live := i.State == string(engine.Running)
			if named != "" && i.Name == named {
				if !live {
					return i, fault.New(errNotLive, "conductor service status --id "+id, "%s does not run: it is %s", i.Name, i.State)
				}
				return i, nil
			}
			if !live {
				continue
			}
			names = append(names, i.Name)
			score = 1
			if i.Health == "healthy" {
				score += 2
			}
			if i.Route == "in" {
				score++
			}
			if score > bestScore {
				best, bestScore = i, score
			}
		}
	}
	switch {
	case named != "":
		return best, unknownInstance(id, named, names)
	case bestScore == 0:
		return best, fault.New(errNotLive, "start it (conductor service start --id "+id+"), or look: conductor service status --id "+id,
			"no instance of %s is live", id)
	}
	return best, nil
}

func unknownInstance(id, named string, names []string) error {
	hint := id + " has no instances: conductor service status --id " + id
	if len(names) > 0 {
		hint = "its instances: " + strings.Join(names, ", ")
	}
	return usageError(hint, "%s has no instance %s", id, named)
}

// execIn runs the command in the instance and returns its exit code, as an
// error where it is not 0.
func (a *app) execIn(ctx context.Context, e engine.Engine, i converge.InstanceStatus, command []string) error {
	x := engine.Exec{Command: command, Streams: engine.Streams{Stdin: a.env.Stdin, Stdout: a.stdout, Stderr: a.stderr}}
	restore, err := a.lendTerminal(ctx, &x.Streams)
	if err != nil {
		return err
	}
	code, err := e.Exec(ctx, i.Container, x)
	restore()
	switch {
	case errors.Is(err, engine.ErrCannotRun):
		display.WriteFailures(a.stderr, display.Painter(a.color()), failures(fmt.Errorf("run %q in %s: %w", command[0], i.Name, err)))
		return exitCode(127) // as a shell and Docker do
	case err != nil:
		return fmt.Errorf("run %q in %s: %w", command[0], i.Name, err)
	case code != 0:
		return exitCode(code)
	}
	return nil
}
