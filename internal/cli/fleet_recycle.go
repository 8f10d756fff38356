package cli

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"conductor/internal/display"
	"conductor/internal/fleet"
	"conductor/internal/spec"
)

func (a *app) fleetRecycle() *cobra.Command {
	var words []string
	var ask fleet.Recycle
	var plan bool
	var reason string
	cmd := &cobra.Command{
		Use:   "recycle [--reboot]",
		Short: "Make the host fresh that was not for longest, against bit rot",
		Long: `Takes the one host whose recycling is longest ago out of the balancer and sees it
idle; upgrades its packages, fetches the images of what runs there again, replaces
all instances by fresh ones, reboots it if asked; and puts it in again when it
answers. No request fails for that. From cron, once a day, each host has its turn.

It refuses where nobody would stand in for the host: another host of its services
is out of the balancer, or not well, or there is none. When a step fails the host
stays out, and the next fleet recycle takes it first.`,
		Example: "conductor fleet recycle --reboot",
		Args:    a.needs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, f, err := a.openFleet(a.display().Event, "", reason)
			defer p.close()
			if err != nil {
				return err
			}
			if ask.Hosts, err = recyclable(f, words); err != nil {
				return err
			}
			ask.Services = placed(f)
			if plan {
				return a.planRecycle(cmd.Context(), p, ask)
			}
			defer context.AfterFunc(cmd.Context(), func() { a.interrupted(cmd.Context()) })()
			r, err := p.Fleet.Recycle(cmd.Context(), p.Recyclers, ask)
			a.outcomes = r
			if err != nil {
				return err
			}
			a.display().End(display.Result{Outcomes: r, Summary: []string{fmt.Sprintf("%s: recycled, %s", r.Host, display.Took(r.Took))}})
			return nil
		},
	}
	cmd.Flags().BoolVar(&ask.Reboot, "reboot", false, "reboot the host, too")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the history of the host: a `TEXT`")
	planFlag(cmd, &plan)
	a.hostsFlag(cmd, &words)
	return cmd
}

// recyclable are the hosts that the words name, but for the one that has the
// balancer: nobody stands in for that.
func recyclable(f spec.Fleet, words []string) ([]string, error) {
	hosts, err := chosen(f, "", words)
	if err != nil {
		return nil, err
	}
	on, _ := f.BalancerHost()
	others := slices.DeleteFunc(slices.Clone(hosts), func(h string) bool { return h == on.Name })
	if len(others) == 0 {
		return nil, usageError("give --hosts others too", "%s has the balancer, and nobody stands in for that", on.Name)
	}
	return others, nil
}

// placed are the services of the fleet, and where they are.
func placed(f spec.Fleet) (all []fleet.Placed) {
	for _, s := range f.Services {
		p := fleet.Placed{Service: s.ID, DrainTimeout: time.Duration(s.DrainTimeout)}
		for _, h := range f.HostsOf(s.ID) {
			p.Hosts = append(p.Hosts, h.Name)
		}
		all = append(all, p)
	}
	return all
}

func (a *app) planRecycle(ctx context.Context, p *FleetParts, ask fleet.Recycle) error {
	r, err := p.Fleet.PlanRecycle(ctx, p.Recyclers, ask)
	if err != nil {
		return err
	}
	if a.json() {
		return a.document(r)
	}
	return a.showSteps(r.Steps)
}
