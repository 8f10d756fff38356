package docker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"

	"conductor/internal/engine"
)

// List returns the containers that carry all the labels, in one call.
func (e *Engine) List(ctx context.Context, labels map[string]string, ids ...string) ([]engine.Container, error) {
	if err := e.agree(ctx); err != nil {
		return nil, err
	}
	filters := byLabels(labels)
	filters.Add("id", ids...)
	res, err := e.api.ContainerList(ctx, client.ContainerListOptions{All: true, Filters: filters})
	if err != nil {
		return nil, e.fail(ctx, err, "list containers")
	}
	out := make([]engine.Container, 0, len(res.Items))
	for _, s := range res.Items {
		c := engine.Container{
			ID: s.ID, Name: listName(s.Names), Image: s.ImageID, Labels: s.Labels,
			State: stateOf(s.State), Created: time.Unix(s.Created, 0),
		}
		if s.NetworkSettings != nil {
			c.Address = address(s.NetworkSettings.Networks, s.HostConfig.NetworkMode, c.State)
		}
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b engine.Container) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.ID, b.ID))
	})
	return out, nil
}

// listName returns the container's own name: links from other containers give
// it names with a second slash.
func listName(names []string) string {
	for _, n := range names {
		if n = strings.TrimPrefix(n, "/"); !strings.Contains(n, "/") {
			return n
		}
	}
	return ""
}

// Inspect returns all of one container.
func (e *Engine) Inspect(ctx context.Context, id string) (engine.Container, error) {
	if err := e.agree(ctx); err != nil {
		return engine.Container{}, err
	}
	res, err := e.api.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
	if err != nil {
		return engine.Container{}, e.fail(ctx, err, "inspect container %s", id)
	}
	r := res.Container
	c := engine.Container{ID: r.ID, Name: strings.TrimPrefix(r.Name, "/"), Image: r.Image, Created: moment(r.Created)}
	if r.Config != nil {
		c.Labels, c.TTY = r.Config.Labels, r.Config.Tty
	}
	if s := r.State; s != nil {
		c.State = stateOf(s.Status)
		c.StartedAt, c.FinishedAt = moment(s.StartedAt), moment(s.FinishedAt)
		c.ExitCode, c.OOMKilled, c.PID = s.ExitCode, s.OOMKilled, s.Pid
		if s.Error != "" {
			c.Error = tidy(fmt.Errorf("%s", s.Error))
		}
	}
	if r.NetworkSettings != nil && r.HostConfig != nil {
		c.Address = address(r.NetworkSettings.Networks, string(r.HostConfig.NetworkMode), c.State)
	}
	return c, nil
}

// address is the one asked for at the creation, which holds in every state.
// One that the engine chose is true only while the container runs: Docker goes
// on showing it for a container whose start has failed.
func address(all map[string]*network.EndpointSettings, mode string, state engine.State) netip.Addr {
	if mode == "" || mode == "default" {
		mode = "bridge"
	}
	n := all[mode]
	if n == nil {
		for _, name := range slices.Sorted(maps.Keys(all)) {
			n = all[name]
			break
		}
	}
	switch {
	case n == nil:
		return netip.Addr{}
	case n.IPAMConfig != nil && n.IPAMConfig.IPv4Address.IsValid():
		return n.IPAMConfig.IPv4Address
	case state == engine.Running || state == engine.Paused:
		return n.IPAddress
	}
	return netip.Addr{}
}

func stateOf(s container.ContainerState) engine.State {
	switch s {
	case container.StateRunning, container.StateRestarting:
		return engine.Running
	case container.StatePaused:
		return engine.Paused
	case container.StateCreated, "configured", "initialized": // the last two are Podman's
		return engine.Created
	case container.StateRemoving, container.StateDead: // the latter's removal failed, and listings call it by the former
		return engine.Removing
	case "stopping": // Podman's: its process has not ended yet
		return engine.Running
	}
	return engine.Exited
}

// moment reads a time of the engine; its year 1 is the zero time.
func moment(s string) time.Time {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil || t.Year() <= 1 {
		return time.Time{}
	}
	return t
}

func byLabels(labels map[string]string) client.Filters {
	f := client.Filters{}
	for k, v := range labels {
		f.Add("label", k+"="+v)
	}
	return f
}

// Start starts a container.
func (e *Engine) Start(ctx context.Context, id string) error {
	if err := e.agree(ctx); err != nil {
		return err
	}
	if _, err := e.api.ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
		return e.failStart(ctx, err, "start container %s", id)
	}
	return nil
}

// Stop stops a container. Docker counts whole seconds, so grace is rounded up.
func (e *Engine) Stop(ctx context.Context, id string, grace time.Duration) error {
	if err := e.agree(ctx); err != nil {
		return err
	}
	// A negative time would mean for ever.
	seconds := wholeSeconds(max(grace, 0))
	if _, err := e.api.ContainerStop(ctx, id, client.ContainerStopOptions{Timeout: &seconds}); err != nil {
		return e.fail(ctx, err, "stop container %s", id)
	}
	return nil
}

func wholeSeconds(d time.Duration) int { return int(math.Ceil(d.Seconds())) }

// Kill sends a signal.
func (e *Engine) Kill(ctx context.Context, id, signal string) error {
	if err := e.agree(ctx); err != nil {
		return err
	}
	if _, err := e.api.ContainerKill(ctx, id, client.ContainerKillOptions{Signal: signal}); err != nil {
		return e.fail(ctx, err, "send %s to container %s", signal, id)
	}
	return nil
}

// removalPoll is how often a removal that somebody else began is looked at.
const removalPoll = 50 * time.Millisecond

// Remove removes a container that does not run, with its anonymous volumes.
func (e *Engine) Remove(ctx context.Context, id string) error {
	if err := e.agree(ctx); err != nil {
		return err
	}
	for {
		_, err := e.api.ContainerRemove(ctx, id, client.ContainerRemoveOptions{RemoveVolumes: true})
		if err == nil {
			return nil
		}
		gone := e.fail(ctx, err, "remove container %s", id)
		switch {
		case kind(err, "") == engine.ErrNotFound:
			return nil
		case !strings.Contains(gone.Error(), "already in progress"):
			return gone
		}
		// Another call removes it. Ours is done when that one is.
		select {
		case <-time.After(removalPoll):
		case <-ctx.Done():
			return e.fail(ctx, err, "remove container %s", id)
		}
	}
}

// Wait returns the exit code once the container has ended. It asks to be told
// of the next end first and looks at the state then, so that no end falls
// between the two; a container that was never started has not ended.
func (e *Engine) Wait(ctx context.Context, id string) (int, error) {
	if err := e.agree(ctx); err != nil {
		return 0, err
	}
	waiting, cancel := context.WithCancel(ctx)
	res := e.api.ContainerWait(waiting, id, client.ContainerWaitOptions{Condition: container.WaitConditionNextExit})
	drained := false
	defer func() {
		cancel()
		if !drained {
			// The client's goroutine ends with one value on one of the two.
			select {
			case <-res.Result:
			case <-res.Error:
			}
		}
	}()
	select {
	case err := <-res.Error:
		drained = true
		return 0, e.fail(ctx, err, "wait for container %s", id)
	default:
	}
	c, err := e.Inspect(ctx, id)
	if err != nil {
		return 0, err
	}
	switch {
	case c.State == engine.Removing && c.StartedAt.IsZero():
		return 0, fmt.Errorf("wait for container %s, which is being removed: %w", id, engine.ErrNotFound)
	case c.State == engine.Exited, c.State == engine.Removing:
		return c.ExitCode, nil
	}
	select {
	case r := <-res.Result:
		drained = true
		msg := ""
		if r.Error != nil {
			msg = r.Error.Message
		}
		if r.StatusCode < 0 {
			// No process ends with that: the engine has given up waiting.
			return 0, e.fail(ctx, fmt.Errorf("it stopped waiting: %s", msg), "wait for container %s", id)
		}
		if msg != "" {
			return 0, e.fail(ctx, &answer{errors.New(msg)}, "wait for container %s", id)
		}
		return int(r.StatusCode), nil
	case err := <-res.Error:
		drained = true
		return 0, e.fail(ctx, err, "wait for container %s", id)
	}
}
