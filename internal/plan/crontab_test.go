package plan

import (
	"slices"
	"testing"

	"conductor/internal/goal"
	"conductor/internal/spec"
)

// The crontab follows the goal: a candidate's waits for the commit, and those
// of services that are stopped or removed go.
func TestNext_Crontab(t *testing.T) {
	release := func(revision string) goal.Release {
		r := goal.Release{Revision: revision}
		r.Sum([32]byte{})
		return r
	}
	v1, v2 := release("v1"), release("v2")
	one, two := &goal.Crontab{Release: v1, Source: "* * * * * a\n"}, &goal.Crontab{Release: v2, Source: "* * * * * a\n"}
	job := spec.Policy{Kind: spec.Job}
	running := goal.Goal{Service: "jobs", Running: true, Current: &v1, Crontab: one, Policy: job}
	with := func(change func(*goal.Goal)) goal.Goal {
		g := running
		change(&g)
		return g
	}
	trial := with(func(g *goal.Goal) {
		g.Candidate = &goal.Candidate{Release: v2, Policy: job, Crontab: two}
	})
	for _, c := range []struct {
		name      string
		goal      goal.Goal
		installed string
		doing     []Step
		want      []string // steps, by kind
		gone      bool
	}{
		{name: "as it should be", goal: running, installed: one.ID()},
		{name: "missing", goal: running, want: []string{"crontab"}},
		{name: "edited", goal: running, installed: Unknown, want: []string{"crontab"}},
		{name: "in flight", goal: running, doing: []Step{{Do: Cron}}},
		{name: "with a candidate", goal: trial, installed: one.ID(), want: []string{"commit"}},
		{name: "missing, with a candidate", goal: trial, want: []string{"commit"}},
		{name: "in flight, with a candidate", goal: trial, doing: []Step{{Do: Cron}}},
		{name: "while it is committed", goal: trial, doing: []Step{{Do: Commit}}},
		{name: "committed", goal: with(func(g *goal.Goal) { g.Current, g.Crontab = &v2, two }), installed: one.ID(), want: []string{"crontab"}},
		{name: "stopped", goal: with(func(g *goal.Goal) { g.Running = false }), installed: one.ID(), want: []string{"crontab"}, gone: true},
		{name: "stopped and gone", goal: with(func(g *goal.Goal) { g.Running = false })},
		{name: "removed", goal: with(func(g *goal.Goal) { g.Running, g.Removing = false, true }), installed: one.ID(), want: []string{"crontab"}, gone: true},
		{name: "no jobs any more", goal: with(func(g *goal.Goal) { g.Crontab = nil }), installed: Unknown, want: []string{"crontab"}, gone: true},
		{name: "jobs and nothing else", goal: goal.Goal{Service: "jobs", Crontab: one}, want: []string{"crontab"}},
	} {
		in := Input{Namespace: "conductor", Goal: c.goal, Crontab: c.installed, Doing: c.doing, Proxy: Proxy{Known: true}}
		out := Next(in)
		var got []string
		for _, s := range out.Steps {
			got = append(got, string(s.Do))
			if s.Do == Cron && s.Gone != c.gone {
				t.Errorf("%s: %s", c.name, s)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: steps %v, want %v", c.name, out.Steps, c.want)
		}
		if len(c.want) == 0 && len(c.doing) == 0 && !out.Settled(in) {
			t.Errorf("%s: it waits for %v", c.name, out.Waiting)
		}
	}
	foreseen := Foresee(Input{Namespace: "conductor", Goal: trial, Crontab: one.ID(), Proxy: Proxy{Known: true}}, 10)
	if len(foreseen) != 2 || foreseen[0].Do != Commit || foreseen[1].Name() != "install the crontab of v2" {
		t.Errorf("foreseen: %v", foreseen)
	}
}
