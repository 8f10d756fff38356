package cli

import (
	"context"
	"os"
	"sync"

	"github.com/spf13/cobra"

	"conductor/internal/balancer"
	"conductor/internal/event"
	"conductor/internal/fleet"
	"conductor/internal/fleet/local"
	"conductor/internal/notify"
	"conductor/internal/remote"
	"conductor/internal/rollout"
	"conductor/internal/spec"
)

// FleetParts are a fleet's hosts and its balancer, opened. Nothing is connected
// before it is used.
type FleetParts struct {
	Fleet     *fleet.Fleet
	Recyclers fleet.Recyclers // the same hosts
	Transport remote.Transport
	Bare      remote.Bare            // the same connections
	At        map[string]remote.Host // by the names of the hosts
	Balancer  balancer.Balancer      // nil: there is none
	Hooks     local.Hooks
	Tell      func(c notify.Change) // people, of how a deploy ended
	Close     func() error
}

// FleetSetup is what is known when a fleet is opened.
type FleetSetup struct {
	Fleet   spec.Fleet
	Emit    event.Sink
	By      string // who asks, and where: "alice@laptop"
	Reason  string
	Version string
}

// FleetOpener opens a fleet.
type FleetOpener func(s FleetSetup) (*FleetParts, error)

func (a *app) fleetCmd() *cobra.Command {
	cmd := a.group(&cobra.Command{
		Use:   "fleet",
		Short: "Look at and change the hosts of a fleet, over ssh",
	})
	cmd.AddCommand(a.fleetStatus(), a.fleetExec(), a.fleetLogs(), a.fleetBalance("drain"), a.fleetBalance("admit"), a.fleetRollback(), a.fleetHistory(), a.fleetRecycle())
	return cmd
}

// openFleet reads fleet.yml and opens what it describes.
func (a *app) openFleet(emit event.Sink, service, reason string) (*FleetParts, spec.Fleet, error) {
	f, err := a.readFleet()
	if err != nil {
		return nil, f, err
	}
	if service != "" {
		if _, err := f.Service(service); err != nil {
			return nil, f, err
		}
	}
	p, err := a.env.OpenFleet(FleetSetup{Fleet: f, Emit: emit, By: a.whoAsksWhere(), Reason: reason, Version: thisVersion().Version})
	return p, f, err
}

func (p *FleetParts) close() {
	if p != nil && p.Close != nil {
		_ = p.Close() // the connections end with this process at the latest
	}
}

// whoAsksWhere names the person and the machine.
func (a *app) whoAsksWhere() string {
	host, err := os.Hostname()
	if err != nil {
		return a.whoAsks()
	}
	return a.whoAsks() + "@" + host
}

// chosen are the hosts of a service, of those that the words name; no words: all.
func chosen(f spec.Fleet, service string, words []string) (hosts []string, err error) {
	all := f.Hosts
	if service != "" {
		if _, err := f.Service(service); err != nil {
			return nil, err
		}
		all = f.HostsOf(service)
	}
	named := map[string]bool{}
	if len(words) > 0 {
		some, err := f.HostsNamed(words...)
		if err != nil {
			return nil, err
		}
		for _, h := range some {
			named[h.Name] = true
		}
	}
	for _, h := range all {
		if len(words) == 0 || named[h.Name] {
			hosts = append(hosts, h.Name)
		}
	}
	if len(hosts) == 0 {
		return nil, usageError("conductor fleet status shows what runs where", "none of the hosts that --hosts names has %s", service)
	}
	return hosts, nil
}

func (a *app) hostsFlag(cmd *cobra.Command, words *[]string) {
	cmd.Flags().StringSliceVar(words, "hosts", nil, "only these `HOSTS`, by name or role, with commas between them (default all)")
	_ = cmd.RegisterFlagCompletionFunc("hosts", a.completeHosts)
	a.fleetFlag(cmd.Flags())
}

func (a *app) completeHosts(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	f, err := a.readFleet()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var names []string
	for _, h := range f.Hosts {
		names = append(names, h.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// strategy is a service's, for so many hosts.
func strategy(s spec.Strategy, hosts []string) rollout.Strategy {
	r := rollout.Strategy{Kind: rollout.Rolling, Width: s.Width(len(hosts))}
	switch s.Kind {
	case spec.StrategyHalves:
		r.Kind = rollout.Halves
	case spec.StrategyAll:
		r.Kind = rollout.InPlace
	case spec.StrategyFirst:
		for _, h := range hosts {
			if h == s.First {
				r.First = s.First
			}
		}
	}
	return r
}

// each does something for every host at once, and returns the first error in
// the fleet's order.
func each(ctx context.Context, hosts []string, do func(ctx context.Context, host string) error) error {
	errs := make([]error, len(hosts))
	var doing sync.WaitGroup
	for n, h := range hosts {
		doing.Go(func() { errs[n] = do(ctx, h) })
	}
	doing.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
