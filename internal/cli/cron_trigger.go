package cli

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"os/user"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"conductor/internal/fault"
	"conductor/internal/schedule"
)

func (a *app) cronTrigger() *cobra.Command {
	var id string
	cmd := &cobra.Command{
		Use:   "trigger --id ID JOB",
		Short: "Run a job now, as cron would",
		Long: `Runs the line of an installed crontab as the cron daemon does: by the host's
shell, with cron's environment and the line's input, under its lock, and without
jitter. Its output comes here instead of by mail; the exit code is the job's.
JOB is what conductor cron list names it, or enough of its first digits.`,
		Example: "conductor cron trigger --id shop 1f3a09bc",
		Args: func(cmd *cobra.Command, args []string) error {
			if missing := a.missing(cmd, []string{"id"}); len(missing) > 0 {
				return a.mustHave(cmd, missing)
			}
			if len(args) != 1 {
				return usageError("conductor cron list --id "+id, "%s needs the name of one job", name(cmd))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			a.answerTo = a.stderr // stdout is the job's
			line, err := a.cronLine(cmd.Context(), id, args[0])
			if err != nil {
				return err
			}
			return a.likeCron(cmd.Context(), line)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	a.idFlag(cmd, &id)
	return cmd
}

// cronLine finds the job, as its line in the crontab runs it: but at once.
func (a *app) cronLine(ctx context.Context, id, job string) (schedule.Job, error) {
	p, _, err := a.ask(ctx)
	defer p.close()
	if err != nil {
		return schedule.Job{}, err
	}
	crons, err := p.Core.Crons(ctx, id)
	if err != nil {
		return schedule.Job{}, err
	}
	if len(crons) == 0 {
		return schedule.Job{}, usageError("conductor cron list", "no crontab of %s is installed", id)
	}
	c := crons[0].Crontab
	tab, err := schedule.Parse(c.Source)
	if err != nil {
		return schedule.Job{}, fmt.Errorf("crontab of %s: %w", id, err)
	}
	var names []string
	found := -1
	for n, line := range tab.Lines {
		if line.Job == nil {
			continue
		}
		names = append(names, line.Job.Digest())
		if !strings.HasPrefix(line.Job.Digest(), job) || job == "" {
			continue
		}
		if found >= 0 && tab.Lines[found].Job.Digest() != line.Job.Digest() {
			return schedule.Job{}, usageError("write more of its name", "%s could be several jobs of %s: %s", job, id, strings.Join(names, ", "))
		}
		found = n
	}
	if found < 0 {
		return schedule.Job{}, usageError("its jobs are "+strings.Join(slices.Compact(names), ", "), "%s has no job %s", id, job)
	}
	tab.Lines = tab.Lines[:found+1] // the variables before it count
	c.Jitter = 0
	tab.Lines[found].Job.Jitter = new(time.Duration)
	text, err := schedule.Generate(tab, c.Target(id))
	if err != nil {
		return schedule.Job{}, fmt.Errorf("crontab of %s: %w", id, err)
	}
	if tab, err = schedule.Parse(text); err != nil {
		return schedule.Job{}, fmt.Errorf("crontab of %s: %w", id, err)
	}
	jobs := tab.Jobs()
	return jobs[len(jobs)-1], nil
}

// likeCron runs the line as cron does, and returns its exit code as an error.
func (a *app) likeCron(ctx context.Context, j schedule.Job) error {
	u, err := user.Current()
	if err != nil {
		return fault.New(fault.ErrHost, "", "run the job: %w", err)
	}
	cmd := exec.CommandContext(ctx, schedule.DefaultShell, "-c", j.Command)
	cmd.Env = []string{"PATH=/usr/bin:/bin", "HOME=" + u.HomeDir, "LOGNAME=" + u.Username, "SHELL=" + schedule.DefaultShell}
	cmd.Dir = u.HomeDir
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(j.Input), a.stdout, a.stderr
	// A group of its own: a Ctrl-C comes to it once, by us.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	err = cmd.Run()
	if ctx.Err() != nil {
		return ended(ctx, fmt.Errorf("run the job: %w", ctx.Err()))
	}
	if code, ok := errors.AsType[*exec.ExitError](err); ok {
		return exitCode(max(code.ExitCode(), 1))
	}
	if err != nil {
		return fault.New(fault.ErrHost, "", "run the job: %w", err)
	}
	return nil
}
