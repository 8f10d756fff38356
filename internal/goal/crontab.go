package goal

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"

	"conductor/internal/schedule"
	"conductor/internal/spec"
)

// Crontab is the jobs of a release: what its own generate-cron has printed, and
// how its lines are made to run in containers.
type Crontab struct {
	// Release is what the jobs run. Its image is kept as long as the crontab is.
	Release Release  `json:"release"`
	Command []string `json:"command"` // the generate-cron that printed it
	Source  string   `json:"source"`  // what it printed

	// Conductor and Config are the program that the lines call and the
	// configuration that they name, "" for none: absolute paths.
	Conductor string          `json:"conductor"`
	Config    string          `json:"config,omitempty"`
	OnLock    schedule.OnLock `json:"on_lock,omitempty"` // of jobs that say nothing; "": allow
	Jitter    spec.Duration   `json:"jitter,omitempty"`  // of jobs that say nothing
}

// Target is what the lines of the service's crontab call, in the form of a
// user's crontab.
func (c Crontab) Target(service string) schedule.Target {
	return schedule.Target{
		Conductor: c.Conductor, Config: c.Config, Service: service, Revision: c.Release.Revision,
		OnLock: c.OnLock, Jitter: c.Jitter.D(),
	}
}

// Text is the crontab as the host's cron daemon is to read it: its lines have
// the column of the user, who is root.
func (c Crontab) Text(service string) (string, error) {
	t := c.Target(service)
	t.User = "root"
	return c.generate(t)
}

// Print is the crontab in the form of a user's, which has no such column.
func (c Crontab) Print(service string) (string, error) { return c.generate(c.Target(service)) }

func (c Crontab) generate(t schedule.Target) (string, error) {
	parsed, err := schedule.Parse(c.Source)
	if err != nil {
		return "", err
	}
	return schedule.Generate(parsed, t)
}

// ID identifies the crontab: what makes its text is in it.
func (c Crontab) ID() string {
	h := sha256.New()
	if err := json.NewEncoder(h).Encode(c); err != nil {
		panic("crontab cannot be encoded: " + err.Error()) // all of its fields are plain data
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Scheduled is the crontab that should be installed now; nil: none. Jobs of a
// service that is stopped do not run.
func (g *Goal) Scheduled() *Crontab {
	if g.Removing || g.Current != nil && !g.Running {
		return nil
	}
	return g.Crontab
}

// Crontabs are all that the goal knows: the one that should be installed, its
// candidate's, and those that a rollback puts back.
func (g *Goal) Crontabs() []*Crontab {
	all := []*Crontab{g.Crontab}
	if g.Candidate != nil {
		all = append(all, g.Candidate.Crontab)
	}
	for _, k := range g.Kept {
		all = append(all, k.Crontab)
	}
	known := all[:0]
	for _, c := range all {
		if c != nil {
			known = append(known, c)
		}
	}
	return known
}
