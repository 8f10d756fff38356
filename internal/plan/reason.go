package plan

import "conductor/internal/engine"

// Reason is what an instance failed of that is replaced, in one of few words,
// to be counted by. What happened in full is the step's cause.
type Reason string

const (
	CannotStart  Reason = "cannot_start"  // the engine could not start it
	OutOfMemory  Reason = "out_of_memory" // the kernel killed it
	Exited       Reason = "exited"        // its process ended, by itself or killed
	Unhealthy    Reason = "unhealthy"     // it runs, and fails its health check
	NeverHealthy Reason = "never_healthy" // it was not healthy in time after its start
)

// Reasons are all of them.
var Reasons = []Reason{CannotStart, OutOfMemory, Exited, Unhealthy, NeverHealthy}

// reason is the one for which the instances of a slot get a successor; empty:
// none of them failed.
func (p *planner) reason(is []Instance, trial bool) Reason {
	if trial || len(is) == 0 {
		return ""
	}
	last, h := is[len(is)-1], p.policy.Health
	failing := last.Asked && !last.Well && last.Failures >= max(h.UnhealthyAfter, 1)
	switch {
	case last.Sick(h):
		return Unhealthy
	case last.Broken != "":
		return CannotStart
	case last.State != engine.Exited:
		return ""
	case last.OOMKilled:
		return OutOfMemory
	case failing && last.EverWell:
		return Unhealthy // it had to make way before
	case failing && !last.FinishedAt.Before(last.StartedAt.Add(h.StartTimeout.D())):
		return NeverHealthy
	}
	return Exited
}
