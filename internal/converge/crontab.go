package converge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"conductor/internal/engine"
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

// Crontab runs the generate-cron of the service's release and reads what it
// prints.
func (h *Host) Crontab(ctx context.Context, id, revision string) (schedule.Crontab, error) {
	c, err := h.crontab(ctx, id, revision)
	if err != nil {
		return c, fmt.Errorf("crontab of %s: %w", id, err)
	}
	return c, nil
}

func (h *Host) crontab(ctx context.Context, id, revision string) (c schedule.Crontab, err error) {
	s, err := h.Definitions.Get(id)
	if err != nil {
		return c, err
	}
	command := []string{"generate-cron"}
	switch {
	case s.Policy.Cron != nil:
		command = s.Policy.Cron.Command
	case s.Policy.Kind != spec.Job:
		return c, fault.New(fault.ErrUsage, "add `cron: {}` to its definition", "%s takes no part in cron", id)
	}
	release, err := h.releaseToRun(ctx, id, revision)
	if err != nil {
		return c, err
	}
	var missing error
	for _, place := range places(command[0]) {
		text, err := h.generate(ctx, RunRequest{
			Service: id, Revision: revision, Kind: RunGenerate, Command: command[1:], entrypoint: []string{place},
		}, release)
		if errors.Is(err, engine.ErrCannotRun) {
			missing = firstOf(missing, err)
			continue
		}
		if err != nil {
			return c, err
		}
		c, err := schedule.Parse(text)
		if err != nil {
			return c, fault.New(fault.ErrUnhealthy, "mend it in the image; nothing was installed", "%s of %s printed what is no crontab:\n%w", command[0], release.Revision, err)
		}
		return c, nil
	}
	return c, fault.New(fault.ErrUnhealthy, "put it into the image, or name it: cron: {command: […]}",
		"the image of %s has no %s: looked in its working directory, in / and on its PATH: %w", release.Revision, command[0], missing)
}

// places are where a program of the image is looked for.
func places(program string) []string {
	if strings.Contains(program, "/") {
		return []string{program}
	}
	return []string{"./" + program, "/" + program, program}
}

// generate runs it and returns what it printed.
func (h *Host) generate(ctx context.Context, r RunRequest, release goal.Release) (string, error) {
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
