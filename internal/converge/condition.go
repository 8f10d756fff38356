package converge

import (
	"fmt"
	"time"

	"conductor/internal/plan"
)

// Condition is how a service fares that is tended, for who tells people of it.
type Condition struct {
	State    State
	Revision string
	Reason   string   // of what is not fine
	Notify   []string // who is to be told; nil: all
}

// State is a service's condition in a word.
type State string

const (
	Fine     State = "fine"     // the goal is reached
	Sick     State = "sick"     // an instance is alive and fails its check, or none can be made
	Crashing State = "crashing" // instances of a slot end again and again
)

const (
	// crashes is how many restarts of a slot in a row are no accident.
	crashes = 3
	// calmed is how long a restarted instance has to run to be no part of it.
	calmed = 30 * time.Second
)

// condition says how the service fares; ok is false where that is about to
// change anyway.
func (t *tender) condition(in plan.Input, out plan.Output) (c Condition, ok bool) {
	g := t.goal
	if g.Current == nil || !g.Running || g.Paused {
		return c, false
	}
	c.Revision, c.Notify = g.Current.Revision, g.Policy.Notify
	for _, i := range in.Instances {
		if i.Release != g.Current.Digest || i.Epoch != g.Epoch {
			continue
		}
		recent := !i.StartedAt.IsZero() && in.Now.Sub(i.StartedAt) < calmed
		switch {
		case i.Attempt >= crashes && recent:
			c.State, c.Reason = Crashing, fmt.Sprintf("slot %d was restarted %d times in a row", i.Slot, i.Attempt)
		case c.State == "" && (i.Sick(t.healthOf(i)) || i.Late(t.healthOf(i), in.Now)):
			c.State, c.Reason = Sick, i.Name+": "+i.LastWord
		}
	}
	last := ""
	for _, tr := range out.Trouble {
		if c.State == "" && tr.Instance == "" {
			c.State, c.Reason = Sick, tr.Cause
		}
		last = tr.Instance + " " + tr.Cause
	}
	if c.State == Crashing && last != "" {
		c.Reason += ", at last " + last
	}
	if c.State == "" && out.Settled(in) {
		c.State = Fine
	}
	return c, c.State != ""
}
