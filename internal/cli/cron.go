package cli

import (
	"errors"
	"io"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"conductor/internal/fault"
	"conductor/internal/schedule"
)

func (a *app) cron() *cobra.Command {
	cmd := a.group(&cobra.Command{
		Use:   "cron",
		Short: "Make crontabs of what images say",
	})
	cmd.AddCommand(a.cronGenerate())
	return cmd
}

func (a *app) cronGenerate() *cobra.Command {
	var id, revision string
	target := schedule.Target{OnLock: schedule.Allow}
	cmd := &cobra.Command{
		Use:   "generate --id ID --revision REV",
		Short: "Print a crontab whose lines run the image's jobs in containers",
		Long: `Runs the image's own generate-cron, which prints a crontab, checks every line of
it as cron would, and prints one whose lines call conductor run, with the
revision pinned. generate-cron is looked for in the image's working directory,
then /, then on its PATH; cron: {command: …} of the definition names another.

A job takes no lock unless --on-lock says what to do when the one before still
runs; a comment before a line, "# conductor: on-lock=skip jitter=30s", says it
for that line.`,
		Example: "conductor cron generate --id shop --revision v2",
		Args:    a.needs("id", "revision"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, _, err := a.ask(cmd.Context())
			defer p.close()
			if err != nil {
				return err
			}
			c, err := p.Core.Crontab(cmd.Context(), id, revision)
			if err != nil {
				return err
			}
			target.Service, target.Revision = id, revision
			if err := a.locate(&target); err != nil {
				return err
			}
			text, err := schedule.Generate(c, target)
			if err != nil {
				return fault.New(fault.ErrUnhealthy, "", "crontab of %s: %w", id, err)
			}
			_, err = io.WriteString(a.stdout, text)
			return err
		},
	}
	a.idFlag(cmd, &id)
	f := cmd.Flags()
	f.StringVar(&revision, "revision", "", "the `REVISION` whose jobs they are")
	f.Var(&cronLockFlag{&target.OnLock}, "on-lock", "when the job before still runs: `allow`, wait, skip, or replace (end that one)")
	f.DurationVar(&target.Jitter, "jitter", 0, "have jobs wait for a random part of this `TIME`")
	_ = cmd.RegisterFlagCompletionFunc("on-lock", cobra.FixedCompletions([]string{"allow", "wait", "skip", "replace"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// locate names this program and its configuration as cron has to call them.
func (a *app) locate(t *schedule.Target) (err error) {
	if t.Conductor, err = os.Executable(); err != nil {
		return fault.New(fault.ErrHost, "", "find the path of conductor: %w", err)
	}
	config, named, err := a.configPath()
	if err != nil {
		return err
	}
	if named != "" {
		t.Config = config
	}
	return nil
}

// cronLockFlag is --on-lock of a crontab.
type cronLockFlag struct{ v *schedule.OnLock }

func (f *cronLockFlag) String() string { return "" }
func (f *cronLockFlag) Type() string   { return "word" }
func (f *cronLockFlag) Set(s string) error {
	if !slices.Contains(schedule.OnLocks, schedule.OnLock(s)) {
		return errors.New("it is allow, wait, skip or replace")
	}
	*f.v = schedule.OnLock(s)
	return nil
}
