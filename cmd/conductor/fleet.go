package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"conductor/internal/balancer"
	"conductor/internal/balancer/command"
	"conductor/internal/balancer/haproxy"
	"conductor/internal/balancer/nginx"
	"conductor/internal/cli"
	"conductor/internal/engine/docker"
	"conductor/internal/event"
	"conductor/internal/fleet"
	"conductor/internal/fleet/local"
	"conductor/internal/fleet/sessions"
	"conductor/internal/notify"
	"conductor/internal/remote"
	"conductor/internal/remote/ssh"
	"conductor/internal/spec"
)

// openFleet puts a fleet together: the hosts over ssh, and the balancer. Nothing
// is connected before it is used.
func openFleet(s cli.FleetSetup) (*cli.FleetParts, error) {
	transport := ssh.New(ssh.Options{Command: s.Fleet.SSH, Dir: filepath.Dir(s.Fleet.File)})
	at := map[string]remote.Host{}
	for _, h := range s.Fleet.Hosts {
		at[h.Name] = remoteHost(h)
	}
	b, err := openBalancer(s, transport)
	if err != nil {
		return nil, errors.Join(err, transport.Close())
	}
	hosts := &sessions.Hosts{Transport: transport, At: at, Version: s.Version, By: s.By, Reason: s.Reason}
	closing := transport.Close
	if slices.ContainsFunc(s.Fleet.Services, func(f spec.FleetService) bool { return f.Ship }) {
		engine, err := docker.New("")
		if err != nil {
			return nil, errors.Join(err, transport.Close())
		}
		shipper := &sessions.Shipper{Engine: engine, Hosts: hosts}
		hosts.Ship = shipper.Ship
		hosts.Ships = func(id string) bool {
			f, err := s.Fleet.Service(id)
			return err == nil && f.Ship
		}
		closing = func() error { return errors.Join(transport.Close(), shipper.Close(), engine.Close()) }
	}
	ctx, stop := context.WithCancel(context.Background())
	people := notify.FromConfig(spec.Config{Notify: s.Fleet.Notify}, notify.Options{Warn: func(target string, _ bool, err error) {
		s.Emit(event.Event{Time: time.Now(), Event: event.Warning, Detail: fmt.Sprintf("a message to %s could not be sent: %v", target, err)})
	}})
	var telling sync.WaitGroup
	telling.Go(func() { people.Run(ctx) })
	commands := local.Commands{Dir: filepath.Dir(s.Fleet.File), Emit: s.Emit}
	return &cli.FleetParts{
		Fleet:     &fleet.Fleet{Hosts: hosts, Balancer: b, Emit: s.Emit, Version: s.Version},
		Recyclers: hosts,
		Transport: transport,
		Bare:      transport,
		At:        at,
		Balancer:  b,
		Hooks:     local.Hooks{Commands: commands, Hooks: s.Fleet.Hooks},
		Tell:      func(c notify.Change) { people.Tell(c) },
		Close: func() error {
			stop()
			telling.Wait()
			return closing()
		},
	}, nil
}

func remoteHost(h spec.FleetHost) remote.Host {
	return remote.Host{Name: h.Name, SSH: h.SSH, Port: h.Port}
}

// openBalancer is the fleet's, nil where there is none.
func openBalancer(s cli.FleetSetup, transport remote.Transport) (balancer.Balancer, error) {
	b := s.Fleet.Balancer
	var hosts []balancer.Host
	for _, h := range s.Fleet.Hosts {
		at := h.Address
		if b.Kind == spec.BalancerHAProxy {
			at = h.Server
		}
		hosts = append(hosts, balancer.Host{Name: h.Name, At: at})
	}
	on, _ := s.Fleet.BalancerHost()
	asking := func(do remote.Do) *remote.Dialogue {
		return &remote.Dialogue{Transport: transport, Host: remoteHost(on), Request: remote.Request{Version: s.Version, By: s.By, Do: do}}
	}
	switch b.Kind {
	case spec.BalancerHAProxy:
		ask := asking(remote.HAProxy).Ask
		return haproxy.New(haproxy.Config{Backend: b.Backend, Hosts: hosts, Run: func(ctx context.Context, lines string) (answer string, err error) {
			err = ask(ctx, balancer.RuntimeRequest{Socket: b.Socket, Lines: lines}, &answer)
			return answer, err
		}})
	case spec.BalancerNginx:
		ask := asking(remote.NginxFile).Ask
		return nginx.New(nginx.Config{File: b.File, Upstream: b.Backend, Hosts: hosts, Run: func(ctx context.Context, r balancer.FileRequest) (answer balancer.FileAnswer, err error) {
			err = ask(ctx, r, &answer)
			return answer, err
		}})
	case spec.BalancerCommand:
		return command.New(command.Config{Hosts: hosts, Drain: b.Drain, Admit: b.Admit, Timeout: time.Minute})
	}
	return nil, nil
}
