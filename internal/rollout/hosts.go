package rollout

import (
	"fmt"
	"slices"
	"strings"
)

// rolling takes Width hosts at a time from in to in again.
func (d *decision) rolling() {
	under := 0
	for n := range d.Hosts {
		if h := d.Hosts[n]; h.present() && h.underWay() {
			under++
		}
	}
	for n := range d.Hosts {
		d.carryOn(&d.Hosts[n])
	}
	present := d.present()
	if d.halt != "" || len(present) == 0 || !d.migrated(present[0]) {
		return
	}
	width, next := d.width(), d.waiting()
	if first := d.Strategy.First; first != "" && !d.Confirmed {
		if alone, ok := d.aloneFirst(first); !ok {
			return
		} else if alone {
			next, width = []string{first}, 1
		}
	}
	for _, name := range next {
		if under >= width {
			break
		}
		d.begin(name, under == 0)
		under++
	}
}

// width is how many hosts go at a time, at least 1.
func (d *decision) width() int {
	switch d.Strategy.Kind {
	case InPlace:
		return max(len(d.Hosts), 1)
	case Halves: // of hosts that no balancer knows
		return max(len(d.Hosts)/2, 1)
	}
	return max(d.Strategy.Width, 1)
}

// aloneFirst says whether the first host's turn is now; ok is false where it has
// to be awaited, or somebody asked.
func (d *decision) aloneFirst(first string) (alone, ok bool) {
	h := d.host(first)
	switch {
	case !h.present():
		return false, true
	case !h.Current && !h.out():
		return true, h.Busy == ""
	case !h.serves():
		return false, false // on its way
	case len(d.waiting()) == 0:
		return false, true
	case d.begun():
		return false, true
	case !d.busy:
		d.step(Confirm, first+" serves it", first)
	}
	return false, false
}

// begun: it was confirmed that the others may follow the first host, now or by a
// deploy before, as some have.
func (d *decision) begun() bool {
	return d.Confirmed || slices.ContainsFunc(d.Hosts, func(o Host) bool { return o.Name != d.Strategy.First && o.present() && (o.Current || o.out()) })
}

// underWay: it has left the state in which the deploy found it, and is not back.
func (h Host) underWay() bool {
	return h.Busy != "" && h.Busy != Migrate && h.Busy != Confirm || h.out() || h.Current && !h.serves()
}

// waiting are the hosts that nothing was done to.
func (d *decision) waiting() (names []string) {
	for _, h := range d.Hosts {
		if h.present() && !h.Current && h.Busy == "" && !h.out() {
			names = append(names, h.Name)
		}
	}
	return names
}

// carryOn does what comes next for a host that is under way.
func (d *decision) carryOn(h *Host) {
	switch {
	case !h.present() || h.Busy != "":
	case h.out() && !h.Current:
		d.upgradeWhenIdle(h)
	case h.out() && !h.Verified:
		d.step(Verify, h.Name+" runs the revision and is out of the balancer", h.Name)
	case h.out():
		d.step(Admit, h.Name+" answers", h.Name)
	case h.Current && !h.serves():
		d.wait(h.Name, "it is in again, and has to be seen to take requests")
	}
}

// upgradeWhenIdle is for a host that is out. When the deploy stops, one that
// still runs what it ran is put back.
func (d *decision) upgradeWhenIdle(h *Host) {
	switch {
	case d.halt != "" && h.Sound && !h.Away:
		d.step(Admit, "the deploy stops, and "+h.Name+" runs what it ran", h.Name)
	case d.halt != "":
	case !h.Idle:
		d.wait(h.Name, "requests are in flight")
	default:
		d.step(Upgrade, h.Name+" is out of the balancer and idle", h.Name)
	}
}

// begin takes a host out, or upgrades it in place: where there is no balancer,
// where all go at once, and where nobody else would serve.
func (d *decision) begin(name string, only bool) {
	h := d.host(name)
	cause := "its turn"
	if d.Strategy.Kind == InPlace {
		cause = "all hosts at once"
	}
	inPlace := d.Strategy.Kind == InPlace || !h.Balanced
	if !inPlace && d.othersIn(name) == 0 {
		if !only {
			return // when those that are under way are back
		}
		inPlace, cause = true, "no other host is in the balancer: it is upgraded behind its own proxy"
	}
	if inPlace {
		d.step(Upgrade, cause, name)
		return
	}
	h.In = false // for those that are begun beside it
	d.step(Drain, cause, name)
}

// othersIn counts the other hosts that the balancer sends requests to and that
// are well there.
func (d *decision) othersIn(name string) (n int) {
	for _, h := range d.Hosts {
		if h.Name != name && h.Balanced && h.In && h.Up {
			n++
		}
	}
	return n
}

func (d *decision) host(name string) *Host {
	for n := range d.Hosts {
		if d.Hosts[n].Name == name {
			return &d.Hosts[n]
		}
	}
	return &Host{Failed: "there is no such host"}
}

// migrated returns whether there is nothing to migrate any more; where there is
// it has that done on the host, once.
func (d *decision) migrated(on *Host) bool {
	if !d.Migrate || d.Migrated {
		return true
	}
	for _, h := range d.Hosts {
		if h.Busy == Migrate {
			return false
		}
	}
	if on.Busy == "" {
		d.step(Migrate, "once for the revision, over all hosts", on.Name)
	}
	return false
}

func names(hosts []*Host) string {
	var s []string
	for _, h := range hosts {
		s = append(s, h.Name)
	}
	return strings.Join(s, ", ")
}

func count(n int, word string) string {
	if n == 1 {
		return "1 " + word
	}
	return fmt.Sprintf("%d %ss", n, word)
}
