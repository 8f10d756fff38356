// Package goal has what should be: the goal of one service, and how the verbs
// of the command line change it.
//
// It is pure: no I/O, no clock. plan decides from it, state keeps it, converge
// changes it.
package goal

import (
	"slices"
	"time"

	"conductor/internal/spec"
)

// Goal is what should be true of one service. It is the truth that survives
// crashes; what is, is found by looking.
type Goal struct {
	Service string `json:"service"`
	// Running is what start and an upgrade set, and stop takes back.
	Running bool `json:"running"`
	// Paused keeps the supervisor from the service; commands go on as ever.
	Paused bool `json:"paused,omitempty"`
	// Removing is what remove sets: the route, the instances and at last the
	// goal itself are to go.
	Removing bool `json:"removing,omitempty"`
	// Current is the committed release; nil before the first upgrade is done.
	Current *Release `json:"current,omitempty"`
	// Candidate is the release that an upgrade or rollback is bringing in.
	Candidate *Candidate `json:"candidate,omitempty"`
	// Kept are releases that were committed before, newest first.
	Kept []Kept `json:"kept,omitempty"`
	// Crontab is what the host's cron daemon is to run; nil: nothing.
	Crontab *Crontab `json:"crontab,omitempty"`
	// Replicas overrides the definition's count, until it is nil again.
	Replicas *int `json:"replicas,omitempty"`
	// Epoch is raised by restart and start: instances of an older one are replaced.
	Epoch int `json:"epoch"`
	// Resume and Dropped are set when a stop-first candidate is dropped: when it
	// had come, and when it was given up. Instances of the current release that
	// ended since the one and were started before the other are started again as
	// they are.
	Resume  time.Time `json:"resume,omitzero"`
	Dropped time.Time `json:"dropped,omitzero"`
	// Policy is the definition's policy as it was last applied. It serves
	// while the definition is missing or not valid.
	Policy spec.Policy `json:"policy"`
}

// Release is what an instance is made from.
type Release struct {
	// Digest identifies it: 64 hexadecimal digits over everything below and
	// the contents of env files and secrets.
	Digest   string `json:"digest"`
	Revision string `json:"revision"`
	Image    string `json:"image"` // image ID; what runs
	// Reference is the name that Image was resolved from, once.
	Reference string         `json:"reference"`
	Pulled    bool           `json:"pulled,omitempty"` // Reference came to this host by Conductor's pull
	Container spec.Container `json:"container"`
}

// Candidate is a release on trial.
type Candidate struct {
	Release
	Since time.Time `json:"since"`
	// Before is true once the command of upgrade.before has ended well.
	Before bool `json:"before,omitempty"`
	// Policy takes the place of the goal's when the candidate is committed: a
	// candidate that fails leaves everything as it was.
	Policy spec.Policy `json:"policy"`
	// Rollback is true where the candidate was current once, and the release
	// that it replaces shall not be what the next rollback goes to.
	Rollback bool `json:"rollback,omitempty"`
	// Crontab takes the place of the goal's in the same way; nil: there is none
	// then.
	Crontab *Crontab `json:"crontab,omitempty"`
}

// Kept is a release that was current before.
type Kept struct {
	Release
	// Undone: a rollback left it, so a plain rollback passes over it.
	Undone bool `json:"undone,omitempty"`
	// Crontab is what was installed with it, and is put back by a rollback.
	Crontab *Crontab `json:"crontab,omitempty"`
}

// Count is the number of replicas that should be under the policy: the goal's,
// or its candidate's.
func (g *Goal) Count(p spec.Policy) int {
	if p.Kind == spec.Job {
		return 0
	}
	if g.Replicas != nil {
		return *g.Replicas
	}
	return p.Replicas
}

// Commit makes the candidate the current release and keeps the ones before it,
// at most retain of them. It returns the releases that fell out.
func (g *Goal) Commit() (dropped []Release) {
	c := g.Candidate
	if c == nil {
		return nil
	}
	g.Policy = c.Policy
	kept := slices.DeleteFunc(slices.Clone(g.Kept), func(k Kept) bool { return k.Digest == c.Digest })
	if g.Current != nil && g.Current.Digest != c.Digest {
		kept = slices.Insert(kept, 0, Kept{Release: *g.Current, Undone: c.Rollback, Crontab: g.Crontab})
	}
	keep := max(g.Policy.Retain, 0)
	if len(kept) > keep {
		for _, k := range kept[keep:] {
			dropped = append(dropped, k.Release)
		}
		kept = kept[:keep]
	}
	r := c.Release
	g.Current, g.Candidate, g.Kept, g.Crontab = &r, nil, kept, c.Crontab
	g.Resume, g.Dropped = time.Time{}, time.Time{}
	return dropped
}

// Drop gives the candidate up.
func (g *Goal) Drop(now time.Time) {
	if g.Candidate == nil {
		return
	}
	if g.Changes() && g.Candidate.Policy.Upgrade.Order == spec.StopFirst && g.Current != nil {
		g.Resume, g.Dropped = g.Candidate.Since, now.UTC()
	}
	g.Candidate = nil
	if g.Current == nil {
		g.Running = false
	}
}

// Changes is true where the candidate brings another release, and not only
// another policy for the current one.
func (g *Goal) Changes() bool {
	return g.Candidate != nil && (g.Current == nil || g.Current.Digest != g.Candidate.Digest)
}

// Previous is the release that a rollback goes to: the last committed one
// before the current, or the newest of the revision that is named.
func (g *Goal) Previous(revision string) (Kept, bool) {
	for _, k := range g.Kept {
		if revision == "" && !k.Undone || revision != "" && k.Revision == revision {
			return k, true
		}
	}
	return Kept{}, false
}

// Releases are all that the goal may still need, each once: current, candidate,
// kept, and those whose jobs are in crontabs.
func (g *Goal) Releases() []Release {
	var rs []Release
	add := func(r Release) {
		if !slices.ContainsFunc(rs, func(o Release) bool { return o.Digest == r.Digest }) {
			rs = append(rs, r)
		}
	}
	if g.Current != nil {
		add(*g.Current)
	}
	if g.Candidate != nil {
		add(g.Candidate.Release)
	}
	for _, k := range g.Kept {
		add(k.Release)
	}
	for _, c := range g.Crontabs() {
		add(c.Release)
	}
	return rs
}
