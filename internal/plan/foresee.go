package plan

import (
	"slices"
	"time"

	"conductor/internal/engine"
)

// Foresee returns the steps to the goal if all goes well: what --plan prints.
// It bounds itself to limit steps.
func Foresee(in Input, limit int) []Step {
	var steps []Step
	in.Instances = slices.Clone(in.Instances)
	in.Doing = nil
	for len(steps) < limit {
		out := Next(in)
		if len(out.Steps) == 0 {
			if out.LookAt.IsZero() || !out.LookAt.After(in.Now) {
				return steps
			}
			in.Now = out.LookAt
			settle(&in)
			continue
		}
		for _, s := range out.Steps {
			foresee(&in, s)
		}
		steps = append(steps, out.Steps...)
		settle(&in)
	}
	return steps
}

// settle lets what is only a matter of time happen: starting instances are
// well, requests in flight are answered.
func settle(in *Input) {
	for n := range in.Instances {
		i := &in.Instances[n]
		if i.State == engine.Running && i.Failures == 0 {
			i.Asked, i.Well, i.EverWell = true, true, true
		}
		i.InFlight = 0
	}
}

// foresee has the effect of a step that goes well.
func foresee(in *Input, s Step) {
	at := slices.IndexFunc(in.Instances, func(i Instance) bool { return i.Name == s.Instance })
	switch s.Do {
	case Before:
		c := *in.Goal.Candidate
		c.Before = true
		in.Goal.Candidate = &c
	case Create:
		in.Instances = append(in.Instances, Instance{
			Name: s.Instance, Release: s.Release, Revision: s.Revision, Slot: s.Slot, N: s.N,
			Epoch: in.Goal.Epoch, Attempt: s.Attempt, PreviousStart: s.PreviousStart,
			State: engine.Created, Created: in.Now,
		})
	case Start:
		in.Instances[at].State, in.Instances[at].StartedAt = engine.Running, in.Now
	case Stop:
		in.Instances[at].State, in.Instances[at].FinishedAt = engine.Exited, in.Now
	case Remove:
		in.Instances = slices.Delete(in.Instances, at, at+1)
	case Route:
		in.Proxy = Proxy{Known: true, Has: !s.Gone, HTTP: s.HTTP, Targets: s.Targets}
		for n := range in.Instances {
			i := &in.Instances[n]
			i.Route, i.OutSince = Out, time.Time{}
			for _, t := range s.Targets {
				if t.Instance == i.Name {
					i.Route = In
				}
			}
		}
	case Cron:
		in.Crontab = scheduled(in.Goal)
	case Commit:
		in.Goal.Commit()
	case Drop:
		in.Goal.Drop(in.Now)
	}
}
