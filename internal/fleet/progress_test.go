package fleet

import (
	"slices"
	"strings"
	"testing"

	"conductor/internal/rollout"
)

// Who watches sees the stages in their order, each host's steps, and how it is
// in the end.
func TestDeploy_IsWatched(t *testing.T) {
	for _, tt := range []struct {
		strategy rollout.Strategy
		broken   string
		stages   []string
		ends     string // a mark for each host
	}{
		{halves, "", []string{"looking at the hosts", "taking the locks", "test", "images", "new half", "old half"}, "++++"},
		{single, "", []string{"looking at the hosts", "taking the locks", "test", "images", "wave 1 of 4", "wave 2 of 4", "wave 3 of 4", "wave 4 of 4"}, "++++"},
		{single, "web02", []string{"looking at the hosts", "taking the locks", "test", "images", "wave 1 of 4", "wave 2 of 4"}, "+x.."},
	} {
		bubble(t, 4, func(t *testing.T, f *inMemory, d Deploy) {
			d.Strategy, d.Test = tt.strategy, []string{"bin/test"}
			if tt.broken != "" {
				f.change(func() { f.hosts[tt.broken].broken["v2"] = true })
			}
			var stages []string
			steps := map[string][]string{}
			var last Progress
			fl := f.fleet()
			fl.Watch = func(p Progress) {
				last = p
				if len(stages) == 0 || stages[len(stages)-1] != p.Stage {
					stages = append(stages, p.Stage)
				}
				for _, h := range p.Hosts {
					if all := steps[h.Host]; h.Doing != "" && (len(all) == 0 || all[len(all)-1] != h.Doing) {
						steps[h.Host] = append(all, h.Doing)
					}
					if (h.Doing == "") != h.Since.IsZero() && h.Doing != "" {
						t.Errorf("since when? %+v", h)
					}
				}
			}
			_, err := fl.Deploy(t.Context(), d)
			if (err != nil) != (tt.broken != "") {
				t.Fatal(err)
			}
			if !slices.Equal(stages, tt.stages) {
				t.Errorf("the stages were %q, want %q", stages, tt.stages)
			}
			ends := ""
			for _, h := range last.Hosts {
				switch {
				case h.Failure != "" && strings.Contains(h.Failure, "healthy") && !h.Done && !h.In:
					ends += "x"
				case h.Done && h.Revision == "v2" && h.In && h.Doing == "":
					ends += "+"
				case h.Revision == "v1" && h.In && h.Doing == "":
					ends += "."
				default:
					t.Errorf("%+v", h)
				}
			}
			if ends != tt.ends {
				t.Errorf("the hosts end as %s, want %s", ends, tt.ends)
			}
			if got := strings.Join(steps["web01"], " "); tt.strategy == single && !strings.HasPrefix(got, "look image test drain upgrade verify admit") {
				t.Errorf("the steps of web01 were %s", got)
			}
		})
	}
}

// A host that does not answer is seen to be looked at, while others have.
func TestDeploy_WatchSeesWhoDoesNotAnswer(t *testing.T) {
	bubble(t, 3, func(t *testing.T, f *inMemory, d Deploy) {
		f.change(func() { f.hosts["web02"].cut = true })
		fl := f.fleet()
		seen := false
		fl.Watch = func(p Progress) {
			seen = seen || p.Hosts[0].Doing == "" && p.Hosts[0].Revision == "v1" && p.Hosts[1].Doing == "look" && p.Hosts[1].Revision == ""
		}
		if _, err := fl.Deploy(t.Context(), d); err == nil || !seen {
			t.Errorf("%v; seen: %v", err, seen)
		}
	})
}
