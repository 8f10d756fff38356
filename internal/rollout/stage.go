package rollout

import (
	"fmt"
	"slices"
)

// Stage is how far a deploy is, in a few words for people: "images", "new half",
// "wave 2 of 3".
func Stage(in Input) string {
	in.Hosts = slices.Clone(in.Hosts)
	d := &decision{Input: in}
	d.look()
	if d.prepare() {
		if d.Test && !d.Tested {
			return "test"
		}
		return "images"
	}
	if present := d.present(); d.inHalves(present) {
		if d.swapped(present) {
			return "old half"
		}
		return "new half"
	}
	return d.wave()
}

// wave counts the hosts that were begun, by how many go at a time. They do not
// wait for each other: one that is back lets the next one begin.
func (d *decision) wave() string {
	var all, begun int
	for _, h := range d.Hosts {
		if h.Away {
			continue
		}
		all++
		if h.Failed != "" || h.Current || h.underWay() {
			begun++
		}
	}
	waves := func(hosts int) int { return (hosts + d.width() - 1) / d.width() }
	now, of := waves(begun), waves(all)
	if d.Strategy.First != "" && all > 0 { // which is a wave of its own
		now, of = 1+waves(max(begun-1, 0)), 1+waves(all-1)
	}
	if of <= 1 {
		return "all hosts at once"
	}
	return fmt.Sprintf("wave %d of %d", max(now, 1), of)
}

// Done: it runs the revision, and takes requests where it should.
func (h Host) Done() bool { return h.Failed == "" && h.serves() }
