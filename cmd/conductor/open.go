package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"conductor/internal/cli"
	"conductor/internal/control"
	"conductor/internal/converge"
	"conductor/internal/crond"
	"conductor/internal/engine/docker"
	"conductor/internal/health"
	"conductor/internal/proxy/nginx"
	"conductor/internal/secret"
	"conductor/internal/ship"
	"conductor/internal/state"
)

// open puts the host together: Docker, nginx, and the state on disk. Nothing
// is connected before it is used.
func open(_ context.Context, s cli.Setup) (*cli.Parts, error) {
	c := s.Config
	engine, err := docker.New(c.Engine.Host)
	if err != nil {
		return nil, err
	}
	proxy := nginx.New(nginx.Config{
		ConfigDir: c.Proxy.ConfigDir,
		StateDir:  c.StateDir,
		Namespace: c.Namespace,
		Test:      c.Proxy.Test,
		Reload:    c.Proxy.Reload,
		Trusted:   c.Proxy.Trusted,
		Admin:     c.Proxy.Admin,
		Switch:    c.Proxy.Switch,
	})
	parts := &cli.Parts{Engine: engine, Proxy: proxy, Close: engine.Close}
	parts.CronDaemon = func() (int, *time.Location) {
		d := crond.Find()
		return d.PID, d.Zone
	}
	if s.Look {
		if _, err := os.Stat(c.StateDir); errors.Is(err, fs.ErrNotExist) {
			return parts, nil // opening would make it
		}
	}
	dir, err := state.Open(c.StateDir)
	if err != nil {
		return parts, err
	}
	history := state.OpenHistory(dir.HistoryPath(), s.Warn)
	host := &converge.Host{
		Namespace:   c.Namespace,
		Definitions: s.Definitions,
		Engine:      engine,
		Subnet:      c.Engine.Subnet,
		Proxy:       proxy,
		Prober:      health.New(engine),
		Store:       dir,
		Secrets:     secret.New(dir.Key, runDir(c.Namespace)),
		History:     history,
		Runs:        runs{dir, history},
		Crontabs:    crond.Crontabs{Dir: c.CronDir, Namespace: c.Namespace},
		Caller:      s.Caller,
		Emit:        s.Emit,
		User:        s.User,
		Reason:      s.Reason,
		Code:        cli.Code,

		KilledForMemory: converge.KilledForMemory,
	}
	parts.Core = watchedHost{host, control.Client{Path: control.Path(c.Namespace), As: goesBy(s)}}
	parts.Supervise = supervisor{s, dir, history, host}.run
	parts.Supervisor = func() (int, time.Time) {
		h, _ := dir.Supervisor()
		return h.PID, h.Start
	}
	parts.FleetState, parts.Recycling = dir, dir
	parts.Ship = &ship.Store{Dir: filepath.Join(dir.Path(), "incoming"), Engine: engine}
	parts.Routes = dir.Routes
	parts.History = history
	parts.RunLog = dir.ReadRunLog
	parts.Close = func() error { return errors.Join(history.Close(), engine.Close()) }
	return parts, nil
}

// runs is what is kept of runs.
type runs struct {
	*state.Dir
	*state.History
}

// runDir is where secrets that are files lie while their instances run: in
// memory, gone with a reboot, and so are the instances.
func runDir(namespace string) string { return filepath.Join("/run/conductor", namespace) }
