package supervise

import (
	"context"
	"fmt"
	"slices"
	"time"

	"conductor/internal/converge"
	"conductor/internal/notify"
	"conductor/internal/schedule"
	"conductor/internal/state"
)

// Teller tells people of changes; notify.Notifier is it for real. It ignores
// what it has told already.
type Teller interface {
	Tell(c notify.Change, targets ...string)
}

// Log is what was done on the host, by whichever process; state.History has it.
type Log interface {
	List(ctx context.Context, service string, limit int) ([]state.Operation, error)
	Runs(ctx context.Context, service string, limit int) ([]state.Run, error)
}

const (
	// reading is how often the log is read.
	reading = 2 * time.Second
	// recent is how much of it is read: more does not happen in that time.
	recent = 100
)

// fares tells how a service fares.
func (s *Supervisor) fares(id string, c converge.Condition) {
	kind := map[converge.State]notify.Kind{
		converge.Fine: notify.Recovered, converge.Sick: notify.Sick, converge.Crashing: notify.Crashing,
	}[c.State]
	if s.Tell != nil {
		s.Tell.Tell(notify.Change{Host: s.HostName, Service: id, Revision: c.Revision, Kind: kind, Text: c.Reason}, c.Notify...)
	}
}

// engine tells that the engine is gone, or back.
func (s *Supervisor) engine(kind notify.Kind, text string) {
	if s.Tell != nil {
		s.Tell.Tell(notify.Change{Host: s.HostName, Kind: kind, Text: text})
	}
}

// read tells of upgrades and jobs that failed, from now on.
func (s *Supervisor) read(ctx context.Context) {
	if s.Tell == nil || s.Log == nil {
		return
	}
	since := time.Now()
	for tick := time.NewTicker(reading); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
		last := since
		ops, err := s.Log.List(ctx, "", recent)
		if err != nil {
			continue // the history alone is concerned, and it says so itself
		}
		for _, op := range slices.Backward(ops) {
			if op.Ended.After(since) {
				last = later(last, op.Ended)
				s.upgraded(op)
			}
		}
		runs, err := s.Log.Runs(ctx, "", recent)
		if err != nil {
			continue
		}
		for _, r := range slices.Backward(runs) {
			if r.Ended.After(since) {
				last = later(last, r.Ended)
				s.ran(r)
			}
		}
		since = last
	}
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func (s *Supervisor) upgraded(op state.Operation) {
	if op.Verb != "upgrade" && op.Verb != "rollback" || op.Outcome != "failed" {
		return
	}
	s.Tell.Tell(notify.Change{Host: s.HostName, Service: op.Service, Revision: op.To, Kind: notify.FailedUpgrade, Text: op.Error, At: op.Ended},
		s.targets(op.Service)...)
}

// ran tells of the jobs of crontabs. Who runs a command by hand sees what
// becomes of it.
func (s *Supervisor) ran(r state.Run) {
	g, ok, err := s.Goals.Goal(r.Service)
	if err != nil || !ok || g.Crontab == nil {
		return
	}
	tab, err := schedule.Parse(g.Crontab.Source)
	if err != nil {
		return
	}
	jobs := tab.Jobs()
	i := slices.IndexFunc(jobs, func(j schedule.Job) bool { return j.Is(r.Service, r.Lock, r.Command) })
	if i < 0 {
		return
	}
	c := notify.Change{Host: s.HostName, Service: r.Service, Revision: r.Revision, Job: jobs[i].Command, Kind: notify.Recovered, At: r.Ended}
	if r.Code != 0 {
		c.Kind, c.Text = notify.FailedRun, fmt.Sprintf("exit %d", r.Code)
		if r.Error != "" {
			c.Text += ": " + r.Error
		}
	}
	s.Tell.Tell(c, g.Policy.Notify...)
}

// targets are who is told of a service; nil: all.
func (s *Supervisor) targets(id string) []string {
	g, _, _ := s.Goals.Goal(id) // one that is not known is all's business
	return g.Policy.Notify
}
