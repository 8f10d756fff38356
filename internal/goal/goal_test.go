package goal

import (
	"slices"
	"testing"
	"time"

	"conductor/internal/spec"
)

func release(revision string) Release {
	r := Release{Revision: revision, Image: "sha256:" + revision}
	r.Sum([32]byte{})
	return r
}

func policy(retain int) spec.Policy {
	return spec.Policy{Kind: spec.Web, Replicas: 2, Retain: retain, Upgrade: spec.Upgrade{Order: spec.StartFirst}}
}

// to commits a revision, as an upgrade or as a rollback does.
func (g *Goal) to(revision string, rollback bool) (dropped []string) {
	g.Candidate = &Candidate{Release: release(revision), Policy: policy(3), Rollback: rollback}
	for _, r := range g.Commit() {
		dropped = append(dropped, r.Revision)
	}
	return dropped
}

func (g *Goal) kept() (revisions []string) {
	for _, k := range g.Kept {
		name := k.Revision
		if k.Undone {
			name += " undone"
		}
		revisions = append(revisions, name)
	}
	return revisions
}

func TestGoal_RollbackReachesFurtherBack(t *testing.T) {
	var g Goal
	for _, r := range []string{"v1", "v2", "v3"} {
		g.to(r, false)
	}
	for _, want := range []string{"v2", "v1"} {
		r, ok := g.Previous("")
		if !ok || r.Revision != want {
			t.Fatalf("rollback from %s goes to %q, want %s", g.Current.Revision, r.Revision, want)
		}
		g.to(r.Revision, true)
	}
	if r, ok := g.Previous(""); ok {
		t.Errorf("rollback from v1 goes to %s, want none", r.Revision)
	}
	if r, ok := g.Previous("v3"); !ok || r.Revision != "v3" {
		t.Errorf("a named rollback does not reach v3, which was undone")
	}
}

func TestGoal_UpgradeAfterRollbackForgetsNothing(t *testing.T) {
	var g Goal
	g.to("v1", false)
	g.to("v2", false)
	g.to("v1", true)
	g.to("v3", false)
	if want := []string{"v1", "v2 undone"}; !slices.Equal(g.kept(), want) {
		t.Errorf("kept %v, want %v", g.kept(), want)
	}
	if r, _ := g.Previous(""); r.Revision != "v1" {
		t.Errorf("rollback from v3 goes to %s, want v1: v2 was rolled back from", r.Revision)
	}
}

func TestGoal_CommitRetains(t *testing.T) {
	var g Goal
	var dropped []string
	for _, r := range []string{"v1", "v2", "v3", "v4", "v5"} {
		dropped = append(dropped, g.to(r, false)...)
	}
	if want := []string{"v1"}; !slices.Equal(dropped, want) {
		t.Errorf("dropped %v, want %v", dropped, want)
	}
	if want := []string{"v4", "v3", "v2"}; !slices.Equal(g.kept(), want) {
		t.Errorf("kept %v, want %v: 3 beside the current one", g.kept(), want)
	}
}

func TestGoal_DropLeavesEverythingElse(t *testing.T) {
	var g Goal
	g.Running = true
	g.to("v1", false)
	g.Candidate = &Candidate{Release: release("v2"), Policy: spec.Policy{Replicas: 9}}
	g.Drop(time.Unix(1000, 0))
	if g.Candidate != nil || g.Current.Revision != "v1" || g.Policy.Replicas != 2 || !g.Running {
		t.Errorf("a dropped candidate left %+v", g)
	}
}

func TestGoal_DropOfFirstReleaseStops(t *testing.T) {
	g := Goal{Running: true, Candidate: &Candidate{Release: release("v1")}}
	g.Drop(time.Unix(1000, 0))
	if g.Running {
		t.Error("a service without a release is to run")
	}
}

func TestGoal_DropResumesStopFirst(t *testing.T) {
	var g Goal
	g.to("v1", false)
	since := time.Unix(1000, 0)
	g.Candidate = &Candidate{Release: release("v2"), Since: since, Policy: spec.Policy{Upgrade: spec.Upgrade{Order: spec.StopFirst}}}
	given := since.Add(time.Minute)
	g.Drop(given)
	if !g.Resume.Equal(since) || !g.Dropped.Equal(given) {
		t.Errorf("resume what ended since %v and was started before %v, want %v and %v", g.Resume, g.Dropped, since, given)
	}
}

func TestGoal_Count(t *testing.T) {
	five := 5
	for _, c := range []struct {
		name string
		goal Goal
		want int
	}{
		{"the policy's", Goal{Policy: policy(3)}, 2},
		{"the override", Goal{Policy: policy(3), Replicas: &five}, 5},
		{"a job has none", Goal{Policy: spec.Policy{Kind: spec.Job}, Replicas: &five}, 0},
	} {
		if got := c.goal.Count(c.goal.Policy); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestRelease_SumTellsReleasesApart(t *testing.T) {
	base := release("v1")
	for name, change := range map[string]func(*Release, *[32]byte){
		"revision":    func(r *Release, _ *[32]byte) { r.Revision = "v2" },
		"image":       func(r *Release, _ *[32]byte) { r.Image = "sha256:other" },
		"environment": func(r *Release, _ *[32]byte) { r.Container.Environment = map[string]string{"A": "1"} },
		"port":        func(r *Release, _ *[32]byte) { r.Container.HTTPPort = 3000 },
		"secrets":     func(_ *Release, s *[32]byte) { s[0] = 1 },
	} {
		r, sum := base, [32]byte{}
		change(&r, &sum)
		r.Sum(sum)
		if r.Digest == base.Digest {
			t.Errorf("another %s gives the same digest", name)
		}
	}
	again := base
	again.Reference, again.Pulled = "elsewhere:v1", true
	again.Sum([32]byte{})
	if again.Digest != base.Digest {
		t.Error("where the image came from changes the digest")
	}
}
