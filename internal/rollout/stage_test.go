package rollout

import (
	"fmt"
	"slices"
	"testing"
)

// A deploy that goes well, step after step, goes through its stages in order.
func TestStage_GoesThrough(t *testing.T) {
	for _, tt := range []struct {
		name     string
		in       Input
		balanced bool
		want     []string
	}{
		{"halves", Input{Strategy: Strategy{Kind: Halves}, Test: true, Migrate: true}, true, []string{"test", "images", "new half", "old half"}},
		{"halves without a balancer", Input{Strategy: Strategy{Kind: Halves}}, false, []string{"images", "wave 1 of 2", "wave 2 of 2"}},
		{"one at a time", Input{Strategy: Strategy{Kind: Rolling, Width: 1}}, true, []string{"images", "wave 1 of 4", "wave 2 of 4", "wave 3 of 4", "wave 4 of 4"}},
		{"three at a time", Input{Strategy: Strategy{Kind: Rolling, Width: 3}}, true, []string{"images", "wave 1 of 2", "wave 2 of 2"}},
		{"one first, then three", Input{Strategy: Strategy{Kind: Rolling, Width: 3, First: "web3"}}, true, []string{"images", "wave 1 of 2", "wave 2 of 2"}},
		{"all", Input{Strategy: Strategy{Kind: InPlace}}, true, []string{"images", "all hosts at once"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			in := tt.in
			for n := range 4 {
				in.Hosts = append(in.Hosts, Host{Name: fmt.Sprintf("web%d", n+1), Sound: true, Balanced: tt.balanced, In: tt.balanced, Up: true, Taking: true})
			}
			var got []string
			for range 50 {
				out := Next(in)
				if out.Done {
					break
				}
				for _, s := range out.Steps { // under way
					for _, name := range slices.Concat(s.Hosts, s.Out) {
						in.at(name).Busy = s.Do
					}
				}
				if s := Stage(in); len(got) == 0 || got[len(got)-1] != s {
					got = append(got, s)
				}
				for _, s := range out.Steps {
					in.succeed(s)
				}
				for n := range in.Hosts {
					h := &in.Hosts[n]
					h.Busy, h.Idle, h.Taking = "", !h.In, h.In
				}
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
			for _, h := range in.Hosts {
				if !h.Done() {
					t.Errorf("%+v is not done", h)
				}
			}
		})
	}
}

func (in *Input) at(name string) *Host {
	return &in.Hosts[slices.IndexFunc(in.Hosts, func(h Host) bool { return h.Name == name })]
}

// Hosts that failed had their turn; those that a person took out have none.
func TestStage_CountsHostsThatHadTheirTurn(t *testing.T) {
	in := Input{Strategy: Strategy{Kind: Rolling, Width: 1}, MaxFailed: 1, Hosts: []Host{
		{Name: "web1", HasImage: true, Balanced: true, Failed: "it is not there"},
		{Name: "web2", HasImage: true, Balanced: true, Away: true, Current: true},
		{Name: "web3", HasImage: true, Balanced: true, In: true, Up: true, Busy: Upgrade},
		{Name: "web4", HasImage: true, Balanced: true, In: true, Up: true},
	}}
	if got := Stage(in); got != "wave 2 of 3" {
		t.Error(got)
	}
	if in.Hosts[0].Done() || !in.Hosts[1].Done() || in.Hosts[2].Done() {
		t.Error("who is done is told wrongly")
	}
}
