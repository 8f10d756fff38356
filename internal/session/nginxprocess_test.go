package session

import "testing"

// A new configuration has taken over when none of the processes from before
// takes connections: neither one that did, nor one that was about to.
func TestNginxWorkers_Follows(t *testing.T) {
	before := nginxWorkers{taking: []int{1}, finishing: []int{9}, starting: []int{2}}
	for name, test := range map[string]struct {
		now  nginxWorkers
		want bool
	}{
		"new ones":                      {nginxWorkers{taking: []int{3, 4}}, true},
		"those from before finish":      {nginxWorkers{taking: []int{3, 4}, finishing: []int{1, 2}}, true},
		"one from before":               {nginxWorkers{taking: []int{1, 3, 4}}, false},
		"one that was starting before":  {nginxWorkers{taking: []int{2, 3, 4}, finishing: []int{1}}, false},
		"none yet":                      {nginxWorkers{starting: []int{3}}, false},
		"all from before, still or now": {nginxWorkers{taking: []int{1, 2}}, false},
	} {
		if got := test.now.follows(before); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}
