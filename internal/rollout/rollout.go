// Package rollout decides how a revision goes over the hosts of a fleet: which
// of them leave the balancer, are upgraded, and come back, in which order.
//
// It is pure: what is known of the hosts goes in, the steps that may begin now
// come out, and nothing is remembered in between. So a deploy that was cut off
// is continued by the next one, whatever it had reached. internal/fleet, its
// only user, observes, does the steps and asks again.
package rollout

import "slices"

// Kind is how a revision goes over the hosts.
type Kind string

const (
	// Rolling takes Width hosts at a time through all their steps.
	Rolling Kind = "rolling"
	// Halves has one half run the new revision unseen, migrates, and swaps.
	Halves Kind = "halves"
	// InPlace upgrades all hosts at once, each behind its own proxy.
	InPlace Kind = "in place"
)

// Strategy is a Kind with its figures.
type Strategy struct {
	Kind  Kind
	Width int    // Rolling: hosts at a time, at least 1
	First string // Rolling: this host goes alone, and then somebody is asked; empty: none
}

// Host is what is known of a host now.
type Host struct {
	Name     string
	HasImage bool // of the revision
	Current  bool // the service runs the revision here, complete and healthy
	Sound    bool // it runs some revision here, complete and healthy
	// Balanced: the balancer knows this host. The next six mean nothing without.
	Balanced bool
	In       bool // it is sent new requests
	Away     bool // it was taken out by a person: it is upgraded, and stays out
	Idle     bool // nothing is in flight at it, or that was awaited for long enough
	Up       bool // the balancer sees it well; where it does not look, as In
	Taking   bool // it is in and up, and requests have come to it if there are any
	Verified bool // it has answered from outside since it is current
	// Busy is what this deploy does here at the moment, "" for nothing.
	Busy Do
	// Failed is why this deploy has given the host up, "" for not. What else is
	// said of such a host is how it was when it was last seen.
	Failed string
}

// Input is all that a decision depends on.
type Input struct {
	Hosts     []Host // in the fleet's order
	Strategy  Strategy
	MaxFailed int // so many hosts may fail before no other is begun

	Test    bool // there is a test command
	Tested  bool // it has passed for this revision
	Migrate bool // there is a migration
	// Migrated: it has been done for this revision, on any host, ever.
	Migrated  bool
	Confirmed bool // who was asked after the first host has said yes
	// Refused is why nothing new may begin, "" for nothing of that kind: a test
	// or a migration that failed, an interruption.
	Refused string
}

// Do is what a step does.
type Do string

const (
	Image   Do = "image"   // bring the image there
	Test    Do = "test"    // run the test command there
	Migrate Do = "migrate" // run the migration there
	Drain   Do = "drain"   // have the balancer send nothing new there
	Upgrade Do = "upgrade" // have the host's own conductor upgrade
	Verify  Do = "verify"  // ask the host from outside
	Admit   Do = "admit"   // have the balancer send requests there
	Swap    Do = "swap"    // Admit Hosts and Drain Out as one
	Confirm Do = "confirm" // ask whether to go on
	Exclude Do = "exclude" // have the balancer send nothing to a host that was given up
)

// Step is something that may begin now.
type Step struct {
	Do    Do       `json:"do"`
	Hosts []string `json:"hosts"`
	Out   []string `json:"out,omitempty"` // Swap's
	Cause string   `json:"cause"`         // in words, true without context
}

// Wait is what is awaited at a host.
type Wait struct{ Host, Cause string }

// Output is a decision.
type Output struct {
	Steps []Step
	// Waits says what is awaited, and at which hosts.
	Waits []Wait
	// Done: all hosts that have not failed serve the revision.
	Done bool
	// Stopped is why the deploy ends before that, when nothing is under way any
	// more; "" otherwise.
	Stopped string
}

// Next decides what may begin now.
func Next(in Input) Output {
	in.Hosts = slices.Clone(in.Hosts)
	d := &decision{Input: in}
	d.look()
	if !d.prepare() {
		d.away()
		if present := d.present(); d.inHalves(present) {
			d.halves(present)
		} else {
			d.rolling()
		}
		d.exclude()
	}
	d.conclude()
	return d.out
}

// decision is a run of Next.
type decision struct {
	Input
	out    Output
	failed int
	busy   bool // a step is under way
	halt   string
}

// present: it has not failed, and is to take requests.
func (h Host) present() bool { return h.Failed == "" && !h.Away }

// serves: it runs the revision, and is sent requests where it should be.
func (h Host) serves() bool { return h.Current && (!h.Balanced || h.Away || h.In && h.Taking) }

// out: the balancer sends it nothing.
func (h Host) out() bool { return h.Balanced && !h.In }

// present are the hosts that are.
func (d *decision) present() (hs []*Host) {
	for n := range d.Hosts {
		if d.Hosts[n].present() {
			hs = append(hs, &d.Hosts[n])
		}
	}
	return hs
}

// inHalves: the balancer can swap one half of these hosts for the other.
func (d *decision) inHalves(hs []*Host) bool {
	return d.Strategy.Kind == Halves && len(hs) > 1 && !slices.ContainsFunc(hs, func(h *Host) bool { return !h.Balanced })
}

func (d *decision) look() {
	for _, h := range d.Hosts {
		if h.Failed != "" {
			d.failed++
			if d.failed > d.MaxFailed && d.halt == "" {
				d.halt = h.Name + " failed: " + h.Failed
			}
		}
		d.busy = d.busy || h.Busy != ""
	}
	if first := d.host(d.Strategy.First); d.Strategy.First != "" && first.Failed != "" && !d.begun() && d.halt == "" {
		d.halt = first.Name + " was to show whether the others may go, and failed: " + first.Failed
	}
	if d.Refused != "" {
		d.halt = d.Refused
	}
	if !slices.ContainsFunc(d.Hosts, func(h Host) bool { return !h.serves() }) {
		d.Tested = true // nothing would come of it
	}
}

func (d *decision) step(do Do, cause string, hosts ...string) {
	d.out.Steps = append(d.out.Steps, Step{Do: do, Hosts: hosts, Cause: cause})
}

func (d *decision) wait(host, cause string) {
	d.out.Waits = append(d.out.Waits, Wait{host, cause})
}

// prepare does what comes before any host is touched, and returns false when
// that is done. The test goes before the image goes everywhere.
func (d *decision) prepare() bool {
	var first *Host
	var lacking []string
	bringing := false
	for n := range d.Hosts {
		h := &d.Hosts[n]
		if h.Failed != "" {
			continue
		}
		if h.Busy == Test {
			return true
		}
		bringing = bringing || h.Busy == Image
		if first == nil || h.HasImage && !first.HasImage {
			first = h // where the test needs no image to travel
		}
		if !h.HasImage && h.Busy == "" {
			lacking = append(lacking, h.Name)
		}
	}
	switch {
	case d.halt != "" || first == nil:
		return false
	case d.Test && !d.Tested:
		switch {
		case bringing:
		case !first.HasImage:
			d.step(Image, "the test needs it", first.Name)
		case first.Busy == "":
			d.step(Test, "before any host is touched", first.Name)
		}
		return true
	}
	for _, name := range lacking {
		d.step(Image, name+" lacks it", name)
	}
	return bringing || len(lacking) > 0
}

// away upgrades the hosts that a person took out, whose turn is any time.
func (d *decision) away() {
	for n := range d.Hosts {
		if h := &d.Hosts[n]; h.Away && h.Failed == "" && h.Busy == "" && !h.Current {
			d.upgradeWhenIdle(h)
		}
	}
}

// exclude takes hosts out of the balancer that were given up, once the revision
// has begun to spread: those that it does not see well, so that they do not come
// back by themselves with whatever they run then; and, where the deploy goes on
// without them and others serve the revision, those that do not run it.
func (d *decision) exclude() {
	if d.Refused != "" {
		return
	}
	spread, served := false, false
	for _, h := range d.Hosts {
		spread = spread || h.Current
		served = served || h.present() && h.Current && h.In && h.Up
	}
	for _, h := range d.Hosts {
		if h.Failed == "" || !h.Balanced || !h.In || h.Busy != "" {
			continue
		}
		switch {
		case !h.Up && spread && d.othersIn(h.Name) > 0:
			d.step(Exclude, h.Name+" was given up, and the balancer does not see it well", h.Name)
		case !h.Current && served && d.halt == "":
			d.step(Exclude, "others serve the revision, and "+h.Name+" was given up", h.Name)
		}
	}
}

// conclude says how it ends when nothing can begin and nothing is under way.
func (d *decision) conclude() {
	done := true
	for _, h := range d.Hosts {
		done = done && (h.Failed != "" || h.serves())
	}
	switch {
	case len(d.out.Steps) > 0 || d.busy || len(d.out.Waits) > 0:
	case d.failed == len(d.Hosts):
		d.out.Stopped = d.halt
		if d.halt == "" {
			d.out.Stopped = "no host is left"
		}
	case done && d.Refused == "":
		d.out.Done = true
	case d.halt != "":
		d.out.Stopped = d.halt
	}
}
