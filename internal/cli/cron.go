package cli

import (
	"errors"
	"io"
	"slices"
	"time"

	"context"

	"github.com/spf13/cobra"

	"conductor/internal/converge"
	"conductor/internal/schedule"
)

func (a *app) cron() *cobra.Command {
	cmd := a.group(&cobra.Command{
		Use:   "cron",
		Short: "Have the host's cron run the jobs of images in containers",
	})
	cmd.AddCommand(a.cronGenerate(), a.cronList(), a.cronTrigger())
	return cmd
}

func (a *app) cronGenerate() *cobra.Command {
	var r converge.CrontabRequest
	var install, remove bool
	cmd := &cobra.Command{
		Use:   "generate --id ID --revision REV [--install]",
		Short: "Print, or install, a crontab whose lines run the image's jobs in containers",
		Long: `Runs the image's own generate-cron, which prints a crontab, checks every line of
it as cron would, and prints one whose lines call conductor run, with the
revision pinned. generate-cron is looked for in the image's working directory,
then /, then on its PATH; cron: {command: …} of the definition names another.

With --install it becomes what the host's cron daemon runs, whichever revision
serves, until the next upgrade: an upgrade installs the crontab of its revision,
and a rollback puts back the one before. --remove takes it away.

A job takes no lock unless --on-lock says what to do when the one before still
runs; a comment before a line, "# conductor: on-lock=skip jitter=30s", says it
for that line.`,
		Example: "conductor cron generate --id shop --revision v2",
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case install && remove:
				return usageError("leave one away", "--install and --remove cannot be had together")
			case remove && (r.Revision != "" || r.OnLock != nil || r.Jitter != nil):
				return usageError("conductor cron generate --id ID --remove", "--remove needs --id and nothing else")
			case remove:
				return a.needs("id")(cmd, args)
			}
			return a.needs("id", "revision")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case install:
				return a.one(cmd.Context(), func(ctx context.Context, c Core) (converge.Outcome, error) {
					return c.InstallCrontab(ctx, r)
				})
			case remove:
				return a.one(cmd.Context(), func(ctx context.Context, c Core) (converge.Outcome, error) {
					return c.RemoveCrontab(ctx, r.Service)
				})
			}
			return a.printCrontab(cmd.Context(), r)
		},
	}
	a.idFlag(cmd, &r.Service)
	f := cmd.Flags()
	revisionFlag(cmd, &r.Revision, "the `REVISION` whose jobs they are")
	f.BoolVar(&install, "install", false, "install it for the host's cron daemon")
	f.BoolVar(&remove, "remove", false, "take the installed one away")
	f.Var(&cronLockFlag{&r.OnLock}, "on-lock", "when the job before still runs: `allow`, wait, skip, or replace (end that one)")
	f.Var(&jitterFlag{&r.Jitter}, "jitter", "have jobs wait for a random part of this `TIME`")
	_ = cmd.RegisterFlagCompletionFunc("on-lock", cobra.FixedCompletions([]string{"allow", "wait", "skip", "replace"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) printCrontab(ctx context.Context, r converge.CrontabRequest) error {
	p, _, err := a.ask(ctx)
	defer p.close()
	if err != nil {
		return err
	}
	c, err := p.Core.GenerateCrontab(ctx, r)
	if err != nil {
		return err
	}
	text, err := c.Print(r.Service)
	if err != nil {
		return err
	}
	_, err = io.WriteString(a.stdout, text)
	return err
}

// cronLockFlag is --on-lock of a crontab.
type cronLockFlag struct{ v **schedule.OnLock }

func (f *cronLockFlag) String() string { return "" }
func (f *cronLockFlag) Type() string   { return "word" }
func (f *cronLockFlag) Set(s string) error {
	v := schedule.OnLock(s)
	if !slices.Contains(schedule.OnLocks, v) {
		return errors.New("it is allow, wait, skip or replace")
	}
	*f.v = &v
	return nil
}

// jitterFlag is --jitter of a crontab.
type jitterFlag struct{ v **time.Duration }

func (f *jitterFlag) String() string { return "" }
func (f *jitterFlag) Type() string   { return "duration" }
func (f *jitterFlag) Set(s string) error {
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || d > schedule.MaxJitter {
		return errors.New("it is a time of at most 24h, such as 30s")
	}
	*f.v = &d
	return nil
}
