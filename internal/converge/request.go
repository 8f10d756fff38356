package converge

import (
	"context"
	"time"

	"conductor/internal/goal"
	"conductor/internal/plan"
	"conductor/internal/spec"
)

// request is a change of a goal in the making.
type request struct {
	goal.Goal
	// check finds out whether the proxy would take the route, while instances
	// start; nil: it is found out already. No route changes before it is.
	check func(context.Context) error
	// before: there is a run of upgrade.before, whosever it was.
	before bool
}

// setCandidate makes the release the goal; where it is current already, only
// the policy and the crontab change.
func (g *request) setCandidate(c goal.Candidate) {
	if !g.Running && g.Current != nil {
		g.Epoch++ // what was stopped is replaced, not revived
	}
	g.Removing = false
	if g.Current != nil && g.Current.Digest == c.Digest {
		g.Running = true
		g.setPolicy(c.Policy, c.Crontab)
		return
	}
	c.Since = time.Now().UTC()
	if g.Candidate != nil && g.Candidate.Digest == c.Digest {
		c.Since, c.Before = g.Candidate.Since, g.Candidate.Before // an interrupted upgrade goes on
	}
	if g.Current == nil {
		g.Policy = c.Policy
	}
	g.Candidate, g.Running = &c, true
}

// setPolicy applies a policy to the current release in place. Another route is
// on trial until the proxy has proved it.
func (g *request) setPolicy(p spec.Policy, c *goal.Crontab) {
	g.Candidate = nil
	if a, b := g.Policy.HTTP, p.HTTP; a == b || a != nil && b != nil && plan.SameRoute(*a, *b) {
		g.Policy, g.Crontab = p, c
		return
	}
	g.Candidate = &goal.Candidate{Release: *g.Current, Since: time.Now().UTC(), Policy: p, Before: true, Crontab: c}
}
