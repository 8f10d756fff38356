package converge

import (
	"context"
	"strings"

	"conductor/internal/goal"
)

// simCrontabs are what cron reads, as a process sees it.
type simCrontabs struct{ *process }

func (x simCrontabs) Check(service string) error {
	_, err := x.Read(service)
	return err
}

func (x simCrontabs) Read(service string) (text string, err error) {
	err = x.pass(context.Background(), "Crontab", service, func(context.Context) error {
		x.sim.mu.Lock()
		defer x.sim.mu.Unlock()
		text = x.sim.crontabs[service]
		return nil
	})
	return text, err
}

func (x simCrontabs) Install(service, text string) error { return x.put("Install", service, text) }
func (x simCrontabs) Remove(service string) error        { return x.put("Uninstall", service, "") }

func (x simCrontabs) put(op, service, text string) error {
	return x.park(&call{op: op, arg: service, ctx: context.Background(), crontab: text, inner: func(context.Context) error {
		x.sim.mu.Lock()
		defer x.sim.mu.Unlock()
		x.sim.crontabs[service] = text
		return nil
	}})
}

// prints is the generate-cron of all images.
func (p *process) prints(_ context.Context, _ string, r goal.Release, _ []string) (string, error) {
	return "* * * * * job " + r.Revision + "\n", nil
}

// mayInstall: cron runs the jobs of the release that was committed, not those
// of one on trial, nor of one that is no more. s.mu is held.
func (s *sim) mayInstall(c *call) {
	if want := scheduledText(s.goals[c.arg]); c.crontab != want {
		s.violateLocked(3, "%s: the crontab becomes %q, and its goal says %q", c.arg, c.crontab, want)
		s.violated.kind = "crontab"
	}
}

// scheduledText is the crontab as the goal has it.
func scheduledText(g goal.Goal) string {
	c := g.Scheduled()
	if c == nil {
		return ""
	}
	text, err := c.Text(g.Service)
	if err != nil {
		panic(err)
	}
	return text
}

// edit has somebody change crontabs by hand. s.mu is held.
func (s *sim) edit() {
	for service, text := range s.crontabs {
		if text != "" {
			s.crontabs[service] = strings.ToUpper(text)
		}
	}
}
