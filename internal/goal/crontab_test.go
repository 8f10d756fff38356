package goal

import (
	"slices"
	"testing"

	"conductor/internal/schedule"
)

// A crontab comes with its release and goes with it; a rollback puts back the
// one before.
func TestGoal_CrontabFollowsTheRelease(t *testing.T) {
	var g Goal
	to := func(c Candidate) {
		c.Policy = policy(3)
		g.Candidate = &c
		g.Commit()
	}
	pinned := release("pinned")
	one, two := &Crontab{Release: release("v1"), Source: "a"}, &Crontab{Release: pinned, Source: "b"}
	to(Candidate{Release: release("v1"), Crontab: one})
	to(Candidate{Release: release("v2"), Crontab: two})
	if g.Crontab != two || g.Kept[0].Crontab != one {
		t.Errorf("the crontab is %v, the one kept %v", g.Crontab, g.Kept[0].Crontab)
	}
	var names []string
	for _, r := range g.Releases() {
		names = append(names, r.Revision)
	}
	if want := []string{"v2", "v1", "pinned"}; !slices.Equal(names, want) {
		t.Errorf("releases %v, want %v", names, want)
	}
	k, _ := g.Previous("")
	to(Candidate{Release: k.Release, Crontab: k.Crontab, Rollback: true})
	if g.Crontab != one {
		t.Errorf("after the rollback: %v", g.Crontab)
	}
	to(Candidate{Release: release("v3")})
	if g.Crontab != nil {
		t.Errorf("of a release without jobs: %v", g.Crontab)
	}
}

func TestCrontab_TextAndIdentity(t *testing.T) {
	c := Crontab{Release: release("v1"), Source: "MAILTO=ops\n0 3 * * * a\n", Conductor: "/usr/bin/conductor"}
	text, err := c.Text("jobs")
	if want := "MAILTO=ops\n0 3 * * * root /usr/bin/conductor run --id jobs --revision v1 a\n"; text != want || err != nil {
		t.Errorf("%q, %v", text, err)
	}
	printed, err := c.Print("jobs")
	if want := "MAILTO=ops\n0 3 * * * /usr/bin/conductor run --id jobs --revision v1 a\n"; printed != want || err != nil {
		t.Errorf("%q, %v", printed, err)
	}
	for name, change := range map[string]func(*Crontab){
		"release":   func(c *Crontab) { c.Release = release("v2") },
		"source":    func(c *Crontab) { c.Source = "0 4 * * * a\n" },
		"conductor": func(c *Crontab) { c.Conductor = "/bin/conductor" },
		"config":    func(c *Crontab) { c.Config = "/c.yml" },
		"on-lock":   func(c *Crontab) { c.OnLock = schedule.Skip },
		"jitter":    func(c *Crontab) { c.Jitter = 1 },
	} {
		other := c
		change(&other)
		if other.ID() == c.ID() {
			t.Errorf("another %s makes no other crontab", name)
		}
	}
}
