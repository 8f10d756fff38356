package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"conductor/test/bench/container"
	"conductor/test/image"
)

// swarmService is the name of what is measured in a swarm of one.
const swarmService = namespace + "-swarm"

// inARow kills a process ten times as soon as it answers again, and measures
// each time how long that takes: by Conductor, by Docker's own restart policy,
// and by Swarm.
func (s *stage) inARow(ctx context.Context, r *report) error {
	restarts := 10
	if s.quick {
		restarts = 3
	}
	own, err := s.conductorInARow(ctx, restarts)
	if err != nil {
		return err
	}
	docker, err := s.dockerInARow(ctx, restarts)
	if err != nil {
		return fmt.Errorf("docker: %w", err)
	}
	swarm, err := s.swarmInARow(ctx, restarts)
	if err != nil {
		return fmt.Errorf("swarm: %w", err)
	}
	const section = "a process is killed again and again, 1 replica: until it answers again"
	for _, n := range []int{0, restarts - 1} {
		r.add(row{section: section, what: fmt.Sprintf("restart %d in a row", n+1), value: ms(own[n]),
			baseline: fmt.Sprintf("`--restart always`: %s; Swarm: %s", ms(docker[n]), ms(swarm[n]))})
	}
	d := detail{title: "Killed as soon as it answers, until it answers again:", head: []string{"restart", "conductor supervise", "docker --restart always", "Swarm"}}
	for n := range restarts {
		d.lines = append(d.lines, []string{fmt.Sprint(n + 1), ms(own[n]), ms(docker[n]), ms(swarm[n])})
	}
	r.details = append(r.details, d)
	return nil
}

func (s *stage) conductorInARow(ctx context.Context, restarts int) (took times, err error) {
	const id = "row"
	proxy, err := s.service(id, 1)
	if err != nil {
		return nil, err
	}
	if err := s.deploy(ctx, id); err != nil {
		return nil, err
	}
	err = s.supervised(ctx, func(sup *supervisor) error {
		victim, p, err := s.victim(ctx, id)
		for range restarts {
			if err != nil {
				return err
			}
			since, began := sup.heard(), time.Now()
			if err := p.Kill(); err != nil {
				return err
			}
			fresh, d, err := s.replaced(ctx, sup, since, id, victim, proxy, began)
			if err != nil {
				return err
			}
			took, victim = append(took, d["serving"]), fresh
			if p, err = container.Inspect(ctx, s.engine, victim, namespace); err != nil {
				return err
			}
		}
		return nil
	})
	return took, errors.Join(err, s.clear(ctx, id))
}

func (s *stage) dockerInARow(ctx context.Context, restarts int) (took times, err error) {
	spec := s.floorSpec()
	spec.Restart = "always"
	id, _, err := s.floorStart(ctx, spec, time.Now())
	if err != nil {
		return nil, err
	}
	for range restarts {
		p, err := container.Inspect(ctx, s.engine, id, s.network.name)
		if err != nil {
			return nil, err
		}
		heard, began := s.heard.count(), time.Now()
		if err := p.Kill(); err != nil {
			return nil, err
		}
		// Who dials before it has its address again waits for a second.
		if _, err := s.heard.first(ctx, heard, "start", is(id)); err != nil {
			return nil, err
		}
		if err := container.Answer(ctx, spec.Addr); err != nil {
			return nil, err
		}
		took = append(took, time.Since(began))
	}
	return took, s.engine.RemoveContainer(ctx, id)
}

func (s *stage) swarmInARow(ctx context.Context, restarts int) (took times, err error) {
	defer func() { err = errors.Join(err, s.leaveSwarm()) }()
	if err := s.swarm(ctx); err != nil {
		return nil, fmt.Errorf("make a swarm: %w", err)
	}
	heard := s.heard.count()
	if err := s.engine.Do(ctx, "POST", "/services/create", nil, map[string]any{
		"Name": swarmService,
		"TaskTemplate": map[string]any{
			"ContainerSpec": map[string]any{"Image": s.image, "Init": true, "Labels": map[string]string{container.Label: namespace}},
			"RestartPolicy": map[string]any{"Condition": "any"},
			"Networks":      []map[string]string{{"Target": "bridge"}},
			"LogDriver":     map[string]any{"Name": "local", "Options": map[string]string{"max-size": "10m", "max-file": "3"}},
		},
		"Mode":         map[string]any{"Replicated": map[string]any{"Replicas": 1}},
		"EndpointSpec": map[string]any{"Mode": "dnsrr"},
	}, nil); err != nil {
		return nil, err
	}
	began := time.Now()
	for n := range restarts + 1 {
		e, err := s.heard.first(ctx, heard, "start", labelled("com.docker.swarm.service.name", swarmService))
		if err != nil {
			return nil, err
		}
		p, err := container.Inspect(ctx, s.engine, e.Actor.ID, "bridge")
		if err != nil {
			return nil, err
		}
		if err := container.Answer(ctx, netip.AddrPortFrom(p.Addr, 8080)); err != nil {
			return nil, err
		}
		if n > 0 {
			took = append(took, time.Since(began))
		}
		if n == restarts {
			break
		}
		heard, began = s.heard.count(), time.Now()
		if err := p.Kill(); err != nil {
			return nil, err
		}
	}
	return took, nil
}

const (
	// swarmMark says that the engine's swarm is ours, also to the next run if
	// this one is killed.
	swarmMark = "/run/" + namespace + "-swarm"
	// swarmBridge is a network that the engine makes for a swarm and leaves behind.
	swarmBridge = "docker_gwbridge"
)

// swarm makes the engine a swarm of one. An engine that is in a swarm, or was,
// is somebody's.
func (s *stage) swarm(ctx context.Context) error {
	var info struct {
		Swarm struct{ LocalNodeState string }
	}
	if err := s.engine.Do(ctx, "GET", "/info", nil, nil, &info); err != nil {
		return err
	}
	ns, err := s.engine.Networks(ctx)
	if err != nil {
		return err
	}
	if info.Swarm.LocalNodeState != "inactive" || slices.ContainsFunc(ns, func(n image.Network) bool { return n.Name == swarmBridge }) {
		return fmt.Errorf("the engine is in a swarm (%s), or has a network %s of one: it is left alone", info.Swarm.LocalNodeState, swarmBridge)
	}
	if err := os.WriteFile(swarmMark, nil, 0o600); err != nil {
		return err
	}
	return s.engine.Do(ctx, "POST", "/swarm/init", nil, map[string]any{"ListenAddr": "127.0.0.1:2377", "AdvertiseAddr": "127.0.0.1"}, nil)
}

// leaveSwarm ends the swarm if it is ours.
func (h *host) leaveSwarm() error {
	if _, err := os.Stat(swarmMark); err != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_ = h.engine.Do(ctx, "DELETE", "/services/"+swarmService, nil, nil, nil) // it may never have been
	err := h.engine.Do(ctx, "POST", "/swarm/leave", url.Values{"force": {"1"}}, nil, nil)
	if err != nil && !strings.Contains(err.Error(), "not part of a swarm") {
		return fmt.Errorf("leave the swarm: %w", err)
	}
	if err := h.removeContainers(ctx, "com.docker.swarm.service.name="+swarmService); err != nil {
		return err
	}
	ns, err := h.engine.Networks(ctx)
	if err != nil {
		return err
	}
	for _, n := range ns {
		if n.Name == swarmBridge {
			if err := h.engine.RemoveNetwork(ctx, n.ID); err != nil {
				return err
			}
		}
	}
	return os.Remove(swarmMark)
}
