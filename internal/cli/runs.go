package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"conductor/internal/converge"
	"conductor/internal/display"
	"conductor/internal/engine"
	"conductor/internal/state"
)

func (a *app) runs() *cobra.Command {
	cmd := a.group(&cobra.Command{
		Use:   "runs",
		Short: "List one-off runs, show their logs, end them",
	})
	cmd.AddCommand(a.runsList(), a.runsLogs(), a.runsStop())
	return cmd
}

func (a *app) runsList() *cobra.Command {
	var id string
	var limit int
	cmd := &cobra.Command{
		Use:   "list [--id ID]",
		Short: "List the runs under way, and those that have ended",
		Long: `Lists runs, newest first: of one service, or of all. With --output json it is a
list with an object for each.`,
		Example: "conductor runs list --id shop",
		Args:    a.needs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 0 {
				return usageError("0 shows all", "--limit %d is less than nothing", limit)
			}
			p, _, err := a.ask(cmd.Context())
			defer p.close()
			if err != nil {
				return err
			}
			if err := p.Core.SweepRuns(cmd.Context()); err != nil {
				return err
			}
			all, err := p.History.Runs(cmd.Context(), id, limit)
			if err != nil {
				return err
			}
			live, err := p.Core.LiveRuns(cmd.Context(), id)
			if err != nil {
				return err
			}
			all = withLive(all, live)
			if a.json() {
				return a.document(all)
			}
			if len(all) == 0 {
				a.say("no runs yet")
				return nil
			}
			t := runsTable(all, a.start)
			t.Width, t.Paint = a.width(), display.Painter(a.color())
			return t.Write(a.answerTo)
		},
	}
	cmd.Flags().StringVar(&id, "id", "", "only of the service of this `ID`")
	_ = cmd.RegisterFlagCompletionFunc("id", a.completeIDs)
	cmd.Flags().IntVar(&limit, "limit", 20, "show at most `N` runs; 0: all")
	return cmd
}

// withLive adds the runs that the history does not know: those of
// upgrade.before, and all where it cannot be written.
func withLive(all []state.Run, live []engine.Container) []state.Run {
	out := []state.Run{}
	for _, c := range live {
		if !slices.ContainsFunc(all, func(r state.Run) bool { return r.Name == c.Name }) {
			out = append(out, state.Run{
				Name: c.Name, Service: c.Labels[converge.LabelService], Revision: c.Labels[converge.LabelRevision],
				Release: c.Labels[converge.LabelRelease], Container: c.ID, Lock: c.Labels[converge.LabelLock], Started: c.Created,
			})
		}
	}
	return append(out, all...)
}

func runsTable(all []state.Run, now time.Time) *display.Table {
	t := &display.Table{Columns: []display.Column{
		{Title: "RUN"},
		{Title: "REVISION", Rank: 4},
		{Title: "STARTED", Rank: 1},
		{Title: "WHO", Rank: 3},
		{Title: "TOOK", Right: true},
		{Title: "OUTCOME"},
		{Title: "MEMORY", Right: true, Rank: 2},
		{Title: "COMMAND"},
	}}
	for _, r := range all {
		outcome, style := runOutcome(r)
		took := ""
		switch {
		case r.Outcome == "":
			took = display.Took(now.Sub(r.Started))
		case !r.Ended.IsZero():
			took = display.Took(r.Ended.Sub(r.Started))
		}
		memory := ""
		if r.Memory > 0 {
			memory = display.Bytes(r.Memory)
		}
		t.Row(display.Cell{Text: r.Name}, display.Cell{Text: r.Revision}, display.Cell{Text: r.Started.Local().Format(time.DateTime)},
			display.Cell{Text: r.User}, display.Cell{Text: took}, display.Cell{Text: outcome, Style: style},
			display.Cell{Text: memory}, display.Cell{Text: strings.Join(r.Command, " ")})
		if first, _, _ := strings.Cut(r.Error, "\n"); first != "" {
			t.Note(display.Dim, first)
		}
	}
	return t
}

// runOutcome is how a run went, in a word or two.
func runOutcome(r state.Run) (string, display.Style) {
	switch {
	case r.Outcome == "":
		return "running", display.Yellow
	case r.Outcome == state.Interrupted:
		return r.Outcome, display.Yellow
	case r.Code != 0:
		return fmt.Sprintf("exit %d", r.Code), display.Red
	}
	return r.Outcome, display.Green
}

func (a *app) runsLogs() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:     "logs RUN [-f]",
		Short:   "Show what a run has written",
		Long:    "Shows the output of a run: all of it while the run is under way, its last part\n(5 to 10 MB) once it has ended.",
		Example: "conductor runs logs shop.v2.1a2b-run-0c4d11ef -f",
		Args:    a.oneRun,
		RunE: func(cmd *cobra.Command, args []string) error {
			p, _, err := a.ask(cmd.Context())
			defer p.close()
			if err != nil {
				return err
			}
			c, err := liveRun(cmd.Context(), p.Core, args[0])
			if err != nil {
				return err
			}
			if c.ID != "" {
				return p.Engine.Logs(cmd.Context(), c.ID, engine.LogOptions{Follow: follow}, a.stdout, a.stderr)
			}
			err = p.RunLog(args[0], a.stdout)
			if errors.Is(err, fs.ErrNotExist) {
				return usageError("conductor runs list", "there is no log of a run %s", args[0])
			}
			return err
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on as output comes, until the run ends")
	return cmd
}

func liveRun(ctx context.Context, core Core, name string) (engine.Container, error) {
	live, err := core.LiveRuns(ctx, "")
	if i := slices.IndexFunc(live, func(c engine.Container) bool { return c.Name == name }); i >= 0 {
		return live[i], nil
	}
	return engine.Container{}, err
}

func (a *app) runsStop() *cobra.Command {
	return &cobra.Command{
		Use:   "stop RUN",
		Short: "End a run that is under way",
		Long: `Ends a run as a stop of its service would: by its stop signal and, after its
stop_grace_period, by force.`,
		Example: "conductor runs stop shop.v2.1a2b-run-0c4d11ef",
		Args:    a.oneRun,
		RunE: func(cmd *cobra.Command, args []string) error {
			p, _, err := a.ask(cmd.Context())
			defer p.close()
			if err != nil {
				return err
			}
			if err := p.Core.StopRun(cmd.Context(), args[0]); err != nil {
				return err
			}
			a.say(args[0] + " has ended")
			return nil
		},
	}
}

// oneRun: the command is about one run, by its name.
func (a *app) oneRun(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return usageError("for example: "+cmd.Example, "%s needs the name of one run", name(cmd))
	}
	return nil
}
