package rollout

import "slices"

// halves: the first half leaves the balancer and gets the revision, the
// migration is run, and in one swap the first half is in and the second out.
func (d *decision) halves(hosts []*Host) {
	first, second := split(hosts)
	if d.swapped(hosts) {
		d.secondHalf(second)
		return
	}
	d.firstHalf(first, second)
}

// split finds the halves again, wherever a deploy was cut off: who has got
// furthest belongs to the first, and who is as far by the fleet's order. The
// second half is not the smaller one, for it serves alone first.
func split(hosts []*Host) (first, second []*Host) {
	furthest := func(h *Host) int {
		switch {
		case h.Current && !h.out():
			return 0
		case h.Current:
			return 1
		case h.out():
			return 2
		}
		return 3
	}
	sorted := slices.Clone(hosts)
	slices.SortStableFunc(sorted, func(a, b *Host) int { return furthest(a) - furthest(b) })
	half := len(hosts) / 2
	return sorted[:half], sorted[half:]
}

// swapped: the revision is served, by what was the first half. Fewer hosts that
// serve it have got it by another way, and wait for the others.
func (d *decision) swapped(hosts []*Host) bool {
	current, serving := 0, false
	for _, h := range hosts {
		if h.Current {
			current++
			serving = serving || h.In
		}
	}
	return serving && current >= len(hosts)/2 && (!d.Migrate || d.Migrated)
}

func (d *decision) firstHalf(first, second []*Host) {
	isUp := func(h *Host) bool { return h.In && h.Up }
	left := 0 // hosts of the second half that serve meanwhile
	for _, h := range second {
		if isUp(h) {
			left++
		}
	}
	if left == 0 && d.halt == "" && slices.ContainsFunc(first, isUp) {
		d.halt = "the balancer sees no host well of " + names(second) + ", which would have to serve alone"
	}
	var ready []*Host
	for _, h := range first {
		switch {
		case h.Current:
			ready = append(ready, h)
		case h.Busy != "":
		case h.out():
			d.upgradeWhenIdle(h)
		case d.halt == "":
			d.step(Drain, "the first half, while "+count(left, "host")+" of the second half serve", h.Name)
		}
	}
	for _, h := range second {
		if d.halt != "" && h.out() && !h.Current && h.Busy == "" {
			d.upgradeWhenIdle(h)
		}
	}
	if d.halt != "" || len(ready) < len(first) || !d.migrated(ready[0]) || !d.verified(ready) {
		return
	}
	d.swap(ready, second)
}

func (d *decision) verified(ready []*Host) bool {
	all := true
	for _, h := range ready {
		if h.out() && !h.Verified {
			all = false
			if h.Busy == "" {
				d.step(Verify, h.Name+" runs the revision and is out of the balancer", h.Name)
			}
		}
	}
	return all
}

func (d *decision) swap(ready, second []*Host) {
	s := Step{Do: Swap, Cause: names(ready) + " answer"}
	if d.Migrate {
		s.Cause += ", and the migration is done"
	}
	for _, h := range ready {
		if h.out() {
			s.Hosts = append(s.Hosts, h.Name)
		}
		if h.Busy != "" {
			return // the swap is under way
		}
	}
	for _, h := range second {
		if h.In && !h.Current {
			s.Out = append(s.Out, h.Name)
		}
	}
	d.out.Steps = append(d.out.Steps, s)
}

func (d *decision) secondHalf(second []*Host) {
	up := false
	for n := range d.Hosts {
		h := &d.Hosts[n]
		d.carryOn(h)
		up = up || h.Current && h.In && h.Up
	}
	if d.halt != "" {
		return
	}
	for _, h := range second {
		switch {
		case h.Busy != "" || h.Current || h.out():
		case up:
			d.step(Drain, "the first half serves the revision", h.Name)
		default:
			d.wait(h.Name, "it serves until the balancer sees the first half well")
		}
	}
}
