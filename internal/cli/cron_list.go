package cli

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"conductor/internal/converge"
	"conductor/internal/display"
	"conductor/internal/schedule"
	"conductor/internal/spec"
	"conductor/internal/state"
)

// upcoming is how many of a job's next times are told.
const upcoming = 3

// cronJob is a job of an installed crontab. Its JSON form is part of the contract.
type cronJob struct {
	Service  string          `json:"service"`
	Job      string          `json:"job"` // identifies it, for trigger
	Revision string          `json:"revision"`
	Schedule string          `json:"schedule"`
	Command  string          `json:"command"`
	OnLock   schedule.OnLock `json:"on_lock"`
	Jitter   spec.Duration   `json:"jitter"`
	Next     []time.Time     `json:"next"` // by the clock of the cron daemon
	Last     *state.Run      `json:"last,omitempty"`
	Note     string          `json:"note,omitempty"`
}

func (a *app) cronList() *cobra.Command {
	var id string
	var after timeFlag
	cmd := &cobra.Command{
		Use:   "list [--id ID]",
		Short: "List jobs: the last run, how it went, the next times",
		Long: `Lists the jobs that the host's cron daemon runs: of one service, or of all. The
times are by the clock of the daemon: where it changes to or from summer time,
they are those at which cron really runs the job. With --output json it is a list
with an object for each job.`,
		Example: "conductor cron list --id shop",
		Args:    a.needs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, s, err := a.ask(cmd.Context())
			defer p.close()
			if err != nil {
				return err
			}
			crons, err := p.Core.Crons(cmd.Context(), named(id)...)
			if err != nil {
				return err
			}
			runs, err := p.History.Runs(cmd.Context(), id, 0)
			if err != nil {
				a.warn("the last runs are not known: " + err.Error())
			}
			pid, zone := p.CronDaemon()
			from := a.start
			if !after.t.IsZero() {
				from = after.in(zone)
			}
			jobs, err := cronJobs(crons, runs, from, zone)
			if err != nil {
				return err
			}
			if pid == 0 && len(jobs) > 0 {
				a.warn("no cron daemon runs on this host: nothing runs these jobs")
			}
			if a.json() {
				return a.document(jobs)
			}
			if len(jobs) == 0 {
				a.say("no jobs: no crontab is installed in " + s.Config.CronDir)
				return nil
			}
			t := cronTable(jobs)
			t.Width, t.Paint = a.width(), display.Painter(a.color())
			return t.Write(a.answerTo)
		},
	}
	cmd.Flags().StringVar(&id, "id", "", "only of the service of this `ID`")
	_ = cmd.RegisterFlagCompletionFunc("id", a.completeIDs)
	cmd.Flags().Var(&after, "after", "tell the next times after this `TIME`, such as \"2027-03-28 01:00\" (default now)")
	return cmd
}

// named is the list of one id, of none where it is empty.
func named(id string) []string {
	if id == "" {
		return nil
	}
	return []string{id}
}

// cronJobs are the jobs of the crontabs, with what is known of each. runs are
// newest first.
func cronJobs(crons []converge.Cron, runs []state.Run, now time.Time, zone *time.Location) ([]cronJob, error) {
	jobs := []cronJob{}
	for _, c := range crons {
		tab, err := schedule.Parse(c.Crontab.Source)
		if err != nil {
			return nil, fmt.Errorf("crontab of %s: %w", c.Service, err)
		}
		note := c.Note
		if _, err := os.Stat(c.Crontab.Conductor); err != nil && note == "" {
			note = fmt.Sprintf("its lines call %s: %v; upgrade it again, or `conductor cron generate --install`", c.Crontab.Conductor, err)
		}
		target := c.Crontab.Target(c.Service)
		for _, j := range tab.Jobs() {
			onLock, jitter := target.Options(j)
			job := cronJob{
				Service: c.Service, Job: j.Digest(), Revision: c.Crontab.Release.Revision, Schedule: j.Fields, Command: j.Command,
				OnLock: onLock, Jitter: spec.Duration(jitter), Next: []time.Time{}, Note: note,
			}
			for at, ok := j.Schedule.Next(now, zone); ok && len(job.Next) < upcoming; at, ok = j.Schedule.Next(at, zone) {
				job.Next = append(job.Next, at)
			}
			if i := slices.IndexFunc(runs, func(r state.Run) bool { return r.Service == c.Service && j.Is(r.Service, r.Lock, r.Command) }); i >= 0 {
				job.Last = &runs[i]
			}
			jobs = append(jobs, job)
		}
	}
	return jobs, nil
}

func cronTable(jobs []cronJob) *display.Table {
	t := &display.Table{Columns: []display.Column{
		{Title: "JOB"},
		{Title: "SERVICE"},
		{Title: "REVISION", Rank: 4},
		{Title: "SCHEDULE"},
		{Title: "LAST", Rank: 2},
		{Title: "OUTCOME"},
		{Title: "NEXT", Rank: 1},
		{Title: "COMMAND"},
	}}
	note := ""
	for i, j := range jobs {
		last, outcome, style := "", "", display.Dim
		if j.Last != nil {
			last = j.Last.Started.Local().Format(time.DateTime)
			outcome, style = runOutcome(*j.Last)
		}
		next := make([]string, len(j.Next))
		for n, at := range j.Next {
			next[n] = at.Format("2006-01-02 15:04 MST")
		}
		first := "at boot"
		if len(next) > 0 {
			first = next[0]
		}
		t.Row(display.Cell{Text: j.Job}, display.Cell{Text: j.Service}, display.Cell{Text: j.Revision}, display.Cell{Text: j.Schedule},
			display.Cell{Text: last}, display.Cell{Text: outcome, Style: style}, display.Cell{Text: first}, display.Cell{Text: j.Command})
		if len(next) > 1 {
			t.Note(display.Dim, "then "+strings.Join(next[1:], ", "))
		}
		if j.Note != "" && (i == 0 || jobs[i-1].Service != j.Service || note != j.Note) {
			t.Note(display.Yellow, j.Note)
		}
		note = j.Note
	}
	return t
}

// timeFlag is a time, by a clock that is known only later.
type timeFlag struct {
	t     time.Time
	local bool // it names no zone
}

func (f *timeFlag) String() string { return "" }
func (f *timeFlag) Type() string   { return "time" }
func (f *timeFlag) Set(s string) (err error) {
	if f.t, err = time.Parse(time.RFC3339, s); err == nil {
		return nil
	}
	f.local = true
	for _, layout := range []string{time.DateTime, "2006-01-02 15:04", "2006-01-02T15:04", time.DateOnly} {
		if f.t, err = time.Parse(layout, s); err == nil {
			return nil
		}
	}
	return fmt.Errorf("it is a time such as %q", "2027-03-28 01:00")
}

func (f *timeFlag) in(zone *time.Location) time.Time {
	if !f.local {
		return f.t
	}
	y, m, d := f.t.Date()
	return time.Date(y, m, d, f.t.Hour(), f.t.Minute(), f.t.Second(), 0, zone)
}
