package converge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"conductor/internal/engine"
	"conductor/internal/event"
	"conductor/internal/fault"
	"conductor/internal/goal"
	"conductor/internal/schedule"
	"conductor/internal/spec"
)

const (
	// generateTimeout bounds generate-cron, which prints some lines.
	generateTimeout = time.Minute
	// maxCrontab bounds what it prints, in bytes.
	maxCrontab = 1 << 20
)

// Crontabs are what the host's cron daemon reads; internal/crond is it for real.
type Crontabs interface {
	// Check finds out early whether a crontab could be installed for the service.
	Check(service string) error
	// Read returns the crontab that is installed, "" where there is none.
	Read(service string) (string, error)
	// Install writes it, whole or not at all.
	Install(service, text string) error
	Remove(service string) error
}

// Caller is how cron's lines call this program.
type Caller struct {
	Program string // absolute path
	Config  string // absolute path of conductor.yml; "": the lines name none
}

// CrontabRequest is a crontab to generate.
type CrontabRequest struct {
	Service, Revision string
	// OnLock and Jitter are of jobs that say nothing themselves; nil: as the
	// definition has it.
	OnLock *schedule.OnLock
	Jitter *time.Duration
}

// GenerateCrontab runs the generate-cron of the service's release, and returns
// the crontab that is to run its jobs. Nothing is installed.
func (h *Host) GenerateCrontab(ctx context.Context, r CrontabRequest) (goal.Crontab, error) {
	c, err := h.askCrontab(ctx, r)
	if err != nil {
		return goal.Crontab{}, fmt.Errorf("crontab of %s: %w", r.Service, err)
	}
	return *c, nil
}

func (h *Host) askCrontab(ctx context.Context, r CrontabRequest) (*goal.Crontab, error) {
	s, err := h.Definitions.Get(r.Service)
	if err != nil {
		return nil, err
	}
	if generator(s.Policy) == nil {
		return nil, fault.New(fault.ErrUsage, "add `cron: {}` to its definition", "%s takes no part in cron", r.Service)
	}
	release, err := h.releaseToRun(ctx, r.Service, r.Revision)
	if err != nil {
		return nil, err
	}
	return h.crontab(ctx, goal.Goal{Service: r.Service}, release, s.Policy, r)
}

// InstallCrontab has the cron daemon run the jobs of a revision, whatever
// revision serves, until the next upgrade. A job has nothing else, so for one it
// is the upgrade.
func (h *Host) InstallCrontab(ctx context.Context, r CrontabRequest) (Outcome, error) {
	return h.verb(ctx, r.Service, "cron install", r.Revision, func(ctx context.Context, g *request) error {
		if s, err := h.Definitions.Get(r.Service); err == nil && s.Policy.Kind == spec.Job {
			return h.upgrade(ctx, g, r)
		}
		if err := h.Crontabs.Check(r.Service); err != nil {
			return err
		}
		c, err := h.askCrontab(ctx, r)
		if err != nil {
			return err
		}
		g.Crontab = c
		if g.Scheduled() == nil {
			h.tell(event.Event{Event: event.Warning, Service: r.Service, Detail: "it is stopped: its jobs run when it is started again"})
		}
		return nil
	})
}

// RemoveCrontab takes the service's crontab away, until the next upgrade.
func (h *Host) RemoveCrontab(ctx context.Context, id string) (Outcome, error) {
	return h.verb(ctx, id, "cron remove", "", func(_ context.Context, g *request) error {
		g.Crontab = nil
		return nil
	})
}

// generator is the command that prints the crontab of a service under the
// policy; nil: it takes no part in cron.
func generator(p spec.Policy) []string {
	switch {
	case p.Cron != nil:
		return p.Cron.Command
	case p.Kind == spec.Job:
		return []string{"generate-cron"}
	}
	return nil
}

// crontab returns the crontab of a release, nil where the policy has none. What
// the goal knows already is not generated again: a release prints what it
// prints.
func (h *Host) crontab(ctx context.Context, g goal.Goal, r goal.Release, p spec.Policy, asked CrontabRequest) (*goal.Crontab, error) {
	command := generator(p)
	if command == nil {
		return nil, nil
	}
	c := &goal.Crontab{Release: r, Command: command, Conductor: h.Caller.Program, Config: h.Caller.Config}
	if p.Cron != nil {
		c.OnLock, c.Jitter = schedule.OnLock(p.Cron.OnLock), p.Cron.Jitter
	}
	if asked.OnLock != nil {
		c.OnLock = *asked.OnLock
	}
	if asked.Jitter != nil {
		c.Jitter = spec.Duration(*asked.Jitter)
	}
	known := g.Crontabs()
	i := slices.IndexFunc(known, func(k *goal.Crontab) bool {
		return k.Release.Digest == r.Digest && slices.Equal(k.Command, command)
	})
	if i >= 0 {
		c.Source = known[i].Source
	} else {
		generate := h.generate
		if h.prints != nil {
			generate = h.prints
		}
		text, err := generate(ctx, g.Service, r, command)
		if err != nil {
			return nil, err
		}
		c.Source = text
	}
	if _, err := c.Text(g.Service); err != nil {
		return nil, fault.New(fault.ErrUnhealthy, "mend it in the image; nothing was installed",
			"%s of %s printed what cannot be a crontab here:\n%w", command[0], r.Revision, err)
	}
	return c, nil
}

// updated is the crontab that a policy makes of the one that there is: nothing
// is generated unless the definition's part about cron has changed. Where that
// fails, it stays as it is, and so does that part of the policy.
func (h *Host) updated(ctx context.Context, g goal.Goal, p *spec.Policy) *goal.Crontab {
	if reflect.DeepEqual(generator(g.Policy), generator(*p)) && reflect.DeepEqual(g.Policy.Cron, p.Cron) {
		return g.Crontab
	}
	c, err := h.crontab(ctx, g, *g.Current, *p, CrontabRequest{})
	if c != nil && err == nil {
		err = h.Crontabs.Check(g.Service)
	}
	if err != nil {
		p.Cron = g.Policy.Cron
		h.tell(event.Event{Event: event.Warning, Service: g.Service, Detail: "its crontab stays as it was: " + err.Error()})
		return g.Crontab
	}
	return c
}

// again is a crontab that was installed before, called as this process is now.
func (h *Host) again(c *goal.Crontab) *goal.Crontab {
	if c == nil {
		return nil
	}
	n := *c
	n.Conductor, n.Config = h.Caller.Program, h.Caller.Config
	return &n
}

// generate runs the release's generate-cron and returns what it printed.
func (h *Host) generate(ctx context.Context, service string, r goal.Release, command []string) (string, error) {
	var missing error
	for _, place := range places(command[0]) {
		text, err := h.printed(ctx, RunRequest{
			Service: service, Revision: r.Revision, Kind: RunGenerate, Command: command[1:], entrypoint: []string{place},
		}, r)
		if !errors.Is(err, engine.ErrCannotRun) {
			return text, err
		}
		missing = firstOf(missing, err)
	}
	return "", fault.New(fault.ErrUnhealthy, "put it into the image, or name it: cron: {command: […]}",
		"the image of %s has no %s: looked in its working directory, in / and on its PATH: %w", r.Revision, command[0], missing)
}

// places are where a program of the image is looked for.
func places(program string) []string {
	if strings.Contains(program, "/") {
		return []string{program}
	}
	return []string{"./" + program, "/" + program, program}
}

// printed runs it and returns what it printed.
func (h *Host) printed(ctx context.Context, r RunRequest, release goal.Release) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, generateTimeout, fault.New(fault.ErrUnhealthy, "run it by hand: conductor run", "%s did not end within %s", r.entrypoint[0], generateTimeout))
	defer cancel()
	out, errs := &limitedBuffer{max: maxCrontab}, &limitedBuffer{max: 4 << 10, drop: true}
	r.Streams = engine.Streams{Stdout: out, Stderr: errs}
	res, err := h.run(ctx, r, release)
	said := strings.TrimSpace(errs.String())
	if said != "" {
		said = "\n  it said:\n    " + strings.ReplaceAll(said, "\n", "\n    ")
	}
	switch {
	case out.full:
		return "", fault.New(fault.ErrUnhealthy, "a crontab has some lines", "%s printed more than %d MiB", r.entrypoint[0], maxCrontab>>20)
	case err != nil && errors.Is(context.Cause(ctx), fault.ErrUnhealthy):
		return "", context.Cause(ctx)
	case err != nil:
		return "", err
	case res.Code != 0:
		return "", fault.New(fault.ErrUnhealthy, "mend it in the image; nothing was installed", "%s of %s exited %d%s", r.entrypoint[0], release.Revision, res.Code, said)
	}
	return out.String(), nil
}

// limitedBuffer keeps so many bytes, and then refuses more, or drops them.
type limitedBuffer struct {
	bytes.Buffer
	max  int
	drop bool
	full bool
}

var errFull = errors.New("it printed too much")

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if room := b.max - b.Len(); len(p) > room {
		b.Buffer.Write(p[:room])
		if b.full = true; !b.drop {
			return room, errFull
		}
		return len(p), nil
	}
	return b.Buffer.Write(p)
}
