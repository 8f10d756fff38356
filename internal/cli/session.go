package cli

import (
	"cmp"
	"context"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"conductor/internal/provision"
	"conductor/internal/remote"
	"conductor/internal/session"
	"conductor/internal/spec"
)

// session is what a deploy starts on each host, over ssh.
func (a *app) session() *cobra.Command {
	return &cobra.Command{
		Use:   "session",
		Short: "Do what a conductor on another machine asks",
		Long: `Reads one request from its input, does it, and answers. It is what conductor
deploy starts on hosts over ssh; it is not for people.`,
		Example: "conductor session",
		Hidden:  true,
		Args:    a.needs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			// What was begun goes on when the connection ends.
			signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
			p, setup, err := a.ask(cmd.Context())
			defer p.close()
			s := session.Server{Version: thisVersion().Version, Code: Code, Trouble: err, Do: map[remote.Do]session.Handler{
				remote.Command: a.command,
				remote.Exec:    a.command,
			}}
			if err == nil && p.FleetState != nil {
				station := a.station(p, setup)
				maps.Copy(s.Do, station.Handlers())
				s.Do[remote.Command] = station.Looking(a.command)
				maps.Copy(s.Do, recycler(p, station).Handlers())
				s.Holds = station.Holds
			}
			if code := s.Serve(cmd.Context(), a.env.Stdin, a.env.Stdout, a.stderr); code != 0 {
				return exitCode(code)
			}
			return nil
		},
	}
}

// station is this host, as a fleet asks it.
func (a *app) station(p *Parts, s Setup) *session.Station {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return &session.Station{
		Version: s.Version, Commit: s.Commit, Hostname: host,
		Services: p.Core, State: p.FleetState, Image: p.Engine.Image,
		Definition: func(id string) (spec.Service, string, error) {
			d, err := s.Definitions.Get(id)
			if err != nil {
				return d, "", err
			}
			text, err := os.ReadFile(filepath.Join(s.Config.ServicesDir, id+".yml"))
			return d, digestOf(text), err
		},
		ServicesDir: s.Config.ServicesDir,
		Troubles:    a.troubles,
		Ship:        p.Ship,
		Nginx:       session.NginxBalancer{Test: s.Config.Proxy.Test, Reload: s.Config.Proxy.Reload},
	}
}

// recycler is this host, as fleet recycle asks it.
func recycler(p *Parts, s *session.Station) *session.Recycler {
	return &session.Recycler{
		Station: s, State: p.Recycling, Packages: provision.Refresh, Reboot: []string{"systemctl", "--no-block", "reboot"},
		Pull: func(ctx context.Context, reference string) error {
			_, err := p.Engine.Pull(ctx, reference)
			return err
		},
	}
}

// troubles are what doctor finds wrong with the host itself. A service that is
// not well, or a definition that is not valid, is for whoever upgrades that one.
func (a *app) troubles(ctx context.Context) (all []string) {
	d := doctor{now: a.start, statfs: syscall.Statfs}
	a.examine(ctx, &d)
	for _, f := range d.findings {
		if f.Level == levelFail && slices.Contains([]string{"config", "state", "host", "engine", "network", "disk", "proxy"}, f.Check) {
			all = append(all, f.Check+": "+f.Text)
		}
	}
	return all
}

// command is one of the commands of this program, asked for from elsewhere. It
// says by itself how it ended.
func (a *app) command(ctx context.Context, c session.Call) error {
	e := a.env
	e.Session = &c.Request
	e.Stdin, e.Stdout, e.Stderr = c.Stdin, c.Stdout, c.Stderr
	var flags []string
	if c.Do == remote.Command {
		flags = append(flags, "--output=json")
	}
	if a.configFile != "" {
		flags = append(flags, "--config="+a.configFile)
	}
	return session.Exit(Main(ctx, append(flags, c.Args...), e))
}

// why is the reason that was given for what is done; it may be empty.
func (a *app) why() string {
	if r := a.env.Session; r != nil {
		return cmp.Or(a.reason, r.Reason)
	}
	return a.reason
}
