package rollout

import (
	"fmt"
	"slices"
	"testing"
)

func fleetOf(n int) (hosts []Host) {
	for i := range n {
		hosts = append(hosts, Host{Name: fmt.Sprintf("web%d", i+1), Sound: true, Balanced: true, In: true, Up: true, Taking: true, HasImage: true})
	}
	return hosts
}

func lines(steps []Step) (s []string) {
	for _, step := range steps {
		line := fmt.Sprint(step.Do, " ", step.Hosts)
		if len(step.Out) > 0 {
			line += fmt.Sprint(" for ", step.Out)
		}
		s = append(s, line)
	}
	return s
}

func TestForesee_Strategies(t *testing.T) {
	for _, test := range []struct {
		what string
		in   Input
		want []string
	}{
		{"halves, with a migration", Input{Hosts: fleetOf(4), Strategy: Strategy{Kind: Halves}, Migrate: true}, []string{
			"drain [web1]", "drain [web2]", "upgrade [web1]", "upgrade [web2]", "migrate [web1]", "verify [web1]", "verify [web2]",
			"swap [web1 web2] for [web3 web4]", "upgrade [web3]", "upgrade [web4]", "verify [web3]", "verify [web4]", "admit [web3]", "admit [web4]",
		}},
		{"one at a time", Input{Hosts: fleetOf(2), Strategy: Strategy{Kind: Rolling, Width: 1}, Test: true, Migrate: true}, []string{
			"test [web1]", "migrate [web1]",
			"drain [web1]", "upgrade [web1]", "verify [web1]", "admit [web1]", "drain [web2]", "upgrade [web2]", "verify [web2]", "admit [web2]",
		}},
		{"all", Input{Hosts: fleetOf(2), Strategy: Strategy{Kind: InPlace}}, []string{"upgrade [web1]", "upgrade [web2]"}},
		{"the last alone first", Input{Hosts: fleetOf(3), Strategy: Strategy{Kind: Rolling, Width: 2, First: "web3"}}, []string{
			"drain [web3]", "upgrade [web3]", "verify [web3]", "admit [web3]", "confirm [web3]",
			"drain [web1]", "drain [web2]", "upgrade [web1]", "upgrade [web2]", "verify [web1]", "verify [web2]", "admit [web1]", "admit [web2]",
		}},
		{"one host alone", Input{Hosts: fleetOf(1), Strategy: Strategy{Kind: Halves}}, []string{"upgrade [web1]"}},
		{"nothing to do", Input{Hosts: current(fleetOf(3)), Strategy: Strategy{Kind: Halves}, Test: true}, nil},
	} {
		if got := lines(Foresee(test.in)); !slices.Equal(got, test.want) {
			t.Errorf("%s:\n%q\nwant\n%q", test.what, got, test.want)
		}
	}
}

func current(hosts []Host) []Host {
	for n := range hosts {
		hosts[n].Current = true
	}
	return hosts
}
