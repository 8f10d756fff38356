package plan

import "conductor/internal/goal"

// crontab has the cron daemon's file follow the goal: with a candidate it stays
// that of the current release, until the candidate is committed.
func (p *planner) crontab() {
	want := scheduled(p.Goal)
	if p.Crontab == want || p.doing[Cron] || p.doing[Commit] {
		return // a commit changes what is wanted
	}
	s := Step{Do: Cron, Gone: want == ""}
	switch {
	case p.Goal.Removing:
		s.Cause = "the service is removed"
	case want == "" && p.Goal.Crontab != nil:
		s.Cause = "the service is stopped"
	case want == "":
		s.Cause = "the service has no jobs"
	case p.Crontab == "":
		s.Cause = "its jobs are not installed"
	default:
		s.Cause = "another crontab is installed"
	}
	if !s.Gone {
		s.Revision = p.Goal.Crontab.Release.Revision
	}
	p.step(s)
}

// scheduled is the identity of the crontab that should be installed; "": none.
func scheduled(g goal.Goal) string {
	if c := g.Scheduled(); c != nil {
		return c.ID()
	}
	return ""
}
