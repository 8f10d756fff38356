package converge

import (
	"context"
	"fmt"

	"conductor/internal/event"
	"conductor/internal/goal"
	"conductor/internal/plan"
	"conductor/internal/schedule"
)

// cron has the cron daemon's file say what the goal says.
func (a action) cron() error {
	c := a.goal.Scheduled()
	if c == nil {
		if err := a.Crontabs.Remove(a.service); err != nil {
			return err
		}
		a.say(event.Unscheduled, a.step.Cause, "")
		return nil
	}
	text, err := c.Text(a.service)
	if err != nil {
		return fmt.Errorf("crontab of %s: %w", a.service, err)
	}
	if err := a.Crontabs.Install(a.service, text); err != nil {
		return err
	}
	a.say(event.Scheduled, a.step.Cause, jobs(c))
	return nil
}

// jobs counts them, in words.
func jobs(c *goal.Crontab) string {
	parsed, err := schedule.Parse(c.Source)
	if n := len(parsed.Jobs()); err == nil && n != 1 {
		return fmt.Sprintf("%d jobs", n)
	}
	return "1 job"
}

// installed observes the service's crontab: its identity, where it is one that
// the goal knows.
func (h *Host) installed(g goal.Goal) (string, error) {
	known := g.Crontabs()
	text, err := h.Crontabs.Read(g.Service)
	if err != nil && len(known) == 0 {
		return "", nil // somebody else's file is in nobody's way
	}
	if text == "" || err != nil {
		return "", err
	}
	for _, c := range known {
		if t, err := c.Text(g.Service); err == nil && t == text {
			return c.ID(), nil
		}
	}
	return plan.Unknown, nil
}

// Cron is the crontab of a service as it should be installed.
type Cron struct {
	Service string
	Crontab goal.Crontab
	// Note is what a person should know: that it is not what is installed.
	Note string
}

// Crons are the crontabs of the services, of all where none is named, ordered
// by service.
func (h *Host) Crons(ctx context.Context, ids ...string) ([]Cron, error) {
	goals, err := h.Store.Goals()
	var crons []Cron
	for _, g := range goals {
		if len(ids) > 0 && g.Service != ids[0] || g.Crontab == nil {
			continue
		}
		crons = append(crons, Cron{Service: g.Service, Crontab: *g.Crontab, Note: h.cronNote(g)})
	}
	return crons, err
}

// cronNote says what a person should know about the goal's crontab.
func (h *Host) cronNote(g goal.Goal) string {
	id, err := h.installed(g)
	want := g.Scheduled()
	switch {
	case err != nil:
		return err.Error()
	case want == nil && id == "":
		return "the service is stopped: its jobs do not run"
	case want == nil:
		return "the service is stopped, and its jobs run still: `conductor converge --id " + g.Service + "` takes its crontab away"
	case id == "":
		return "its crontab is not installed: `conductor converge --id " + g.Service + "` installs it"
	case id != want.ID():
		return "another crontab is installed than the one that is due: `conductor converge --id " + g.Service + "` puts it right"
	}
	return ""
}
