package plan

import (
	"testing"
	"time"

	"conductor/internal/engine"
	"conductor/internal/goal"
)

// What a replacement is counted by.
func TestNext_SaysWhatFailed(t *testing.T) {
	oom := func(i *Instance) { dead(i); i.OOMKilled = true }
	broken := func(i *Instance) { created(i); i.Broken = "no such file" }
	stopped := func(i *Instance) { i.State, i.ExitCode, i.FinishedAt = engine.Exited, 137, noon }
	for _, test := range []struct {
		name string
		in   *world
		want Reason
	}{
		{"it exited", running("v1", policy(1)).each(dead).serve("v1"), Exited},
		{"it was killed for its memory", running("v1", policy(1)).each(oom).serve("v1"), OutOfMemory},
		{"it could not be started", running("v1", policy(1)).each(broken).serve("v1"), CannotStart},
		{"it is sick", running("v1", policy(1)).each(sick), Unhealthy},
		{"it was sick and made way", running("v1", policy(1, stopFirst)).each(sick).each(stopped).serve("v1"), Unhealthy},
		{"it never was well, and was stopped", running("v1", policy(1)).each(late).each(stopped).serve("v1"), NeverHealthy},
		{"it ended before it could be well", running("v1", policy(1)).each(late).each(stopped).each(func(i *Instance) { i.StartedAt = noon.Add(-2 * time.Second) }).serve("v1"), Exited},
		{"it is missing", running("v1", policy(1)).with(func(w *world) { w.Instances = nil }).serve("v1"), ""},
		{"it shall be restarted", running("v1", policy(1)).with(func(w *world) { w.Goal.Epoch++ }), ""},
		{"a candidate comes", running("v1", policy(1)).upgrading("v2", policy(1)), ""},
		{"a first release comes", (&world{Input{Namespace: "conductor", Now: noon, Goal: goal.Goal{Service: "shop"}, Proxy: Proxy{Known: true}}}).upgrading("v1", policy(1)), ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			var creates []Step
			for _, s := range Next(test.in.Input).Steps {
				if s.Do == Create {
					creates = append(creates, s)
				}
			}
			if len(creates) != 1 || creates[0].Reason != test.want {
				t.Errorf("want one creation for the reason %q: %+v", test.want, creates)
			}
		})
	}
}
