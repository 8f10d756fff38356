package cli

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"conductor/internal/display"
	"conductor/internal/event"
	"conductor/internal/fleet"
	"conductor/internal/provision"
	"conductor/internal/rollout"
	"conductor/internal/spec"
)

func (a *app) hostCmd(root *cobra.Command) *cobra.Command {
	cmd := a.group(&cobra.Command{
		Use:   "host",
		Short: "Set up a host of the fleet, over ssh",
	})
	cmd.AddCommand(a.hostInstall(root))
	return cmd
}

// hostInstall brings a host to where it runs what it should.
func (a *app) hostInstall(root *cobra.Command) *cobra.Command {
	var file, reason string
	var plan bool
	cmd := &cobra.Command{
		Use:   "install HOST",
		Short: "Bring a bare Debian host to where it runs the current releases",
		Long: `Brings a host that fleet.yml names, and that has nothing but sshd, to where it
runs what the other hosts of its services run: packages from the host's own
sources (an engine, nginx, and conductor itself, as a Debian package that is made
from this program), the definitions of its services, their images, instances that
answer; and then into the balancer, if that knows it. Who logs in is root, or may
become root with sudo.

Running it again is safe, and goes on from what is there. Where the other hosts
of a service differ it is left alone, and the host stays out of the balancer.`,
		Example: "conductor host install web4",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError("for example: "+cmd.Example, "host install needs one host")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			made, err := a.packageFor(root, file)
			if err != nil {
				return err
			}
			var changed atomic.Bool
			p, f, err := a.openFleet(func(e event.Event) {
				if e.Event != event.Note && e.Event != event.Warning && e.Event != event.Verified {
					changed.Store(true)
				}
				a.display().Event(e)
			}, "", reason)
			defer p.close()
			if err != nil {
				return err
			}
			h, ok := f.Host(args[0])
			if !ok {
				return usageError(f.File+" has "+strings.Join(hostNames(f), ", "), "there is no host %s in the fleet", args[0])
			}
			i := installation{app: a, p: p, fleet: f, host: h, made: made}
			if plan {
				return i.plan(cmd.Context())
			}
			defer context.AfterFunc(cmd.Context(), func() { a.interrupted(cmd.Context()) })()
			joined, err := i.run(cmd.Context())
			a.outcomes = joined
			if err != nil {
				return err
			}
			a.display().End(display.Result{Outcomes: joined, Summary: []string{i.summary(joined, changed.Load(), time.Since(a.start))}})
			return nil
		},
		ValidArgsFunction: a.completeHosts,
	}
	cmd.Flags().StringVar(&file, "package", "", "conductor's Debian package for the host: a `FILE` (default: made from this program)")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the history of the host: a `TEXT`")
	planFlag(cmd, &plan)
	a.fleetFlag(cmd.Flags())
	return cmd
}

func hostNames(f spec.Fleet) (names []string) {
	for _, h := range f.Hosts {
		names = append(names, h.Name)
	}
	return names
}

// installation is one that is under way.
type installation struct {
	app   *app
	p     *FleetParts
	fleet spec.Fleet
	host  spec.FleetHost
	made  provision.Made
}

func (i *installation) machine() provision.Host {
	return provision.Host{Bare: i.p.Bare, At: i.p.At[i.host.Name]}
}

// look asks what there is, which has to be something that the package is for.
func (i *installation) look(ctx context.Context) (provision.Found, error) {
	found, err := i.machine().Look(ctx, i.made)
	if err == nil {
		err = found.Fits(i.made)
	}
	if err != nil {
		return found, fmt.Errorf("look at %s: %w", i.host.Name, err)
	}
	return found, nil
}

// run does all that is to be done.
func (i *installation) run(ctx context.Context) ([]fleet.Joined, error) {
	if err := i.packages(ctx); err != nil {
		return nil, err
	}
	if err := i.definitions(ctx); err != nil {
		return nil, fmt.Errorf("definitions: %w", err)
	}
	joined, err := i.p.Fleet.Join(ctx, i.join())
	if err != nil {
		return joined, fmt.Errorf("services: %w", err)
	}
	return joined, nil
}

// packages has the host install what it lacks, and sees that it works.
func (i *installation) packages(ctx context.Context) error {
	found, err := i.look(ctx)
	if err != nil {
		return err
	}
	switch {
	case found.Has(i.made) && found.Newer:
		i.say(event.Note, "its conductor "+found.Version+" is newer than "+i.made.Version+", and stays", "")
	case !found.Has(i.made):
		if err := i.p.Fleet.Withhold(ctx, i.host.Name, found.Version == ""); err != nil {
			return err
		}
		i.say(event.Note, "packages: "+strings.Join(i.wanted(found), ", "), found.System)
		if err := i.machine().Install(ctx, i.made, func(line string) { i.say(event.Note, line, "packages") }); err != nil {
			return fmt.Errorf("packages: %w", err)
		}
		i.say(event.Installed, strings.Join(i.wanted(found), ", "), found.System)
	}
	if err := i.p.Fleet.AwaitWell(ctx, i.host.Name); err != nil {
		return fmt.Errorf("packages are there: %w", err)
	}
	return nil
}

// wanted are the packages that the host gets.
func (i *installation) wanted(found provision.Found) []string {
	if found.Newer {
		return found.Missing
	}
	return append([]string{"conductor " + i.made.Version}, found.Missing...)
}

// definitions sends those that differ.
func (i *installation) definitions(ctx context.Context) error {
	if !i.takesDefinitions() {
		return nil
	}
	all, err := i.app.compare(ctx, i.p, i.fleet, []string{i.host.Name})
	if err != nil {
		return err
	}
	for _, s := range all {
		if len(s.texts) > 0 && s.err == nil {
			i.app.send(ctx, i.p, s)
		}
		if s.err != nil {
			return s.err
		}
		if len(s.Services) > 0 {
			i.say(event.Synced, strings.Join(s.Services, ", "), "")
		}
	}
	return nil
}

func (i *installation) takesDefinitions() bool { return i.host.Sync && i.fleet.Definitions != "" }

// join is what the host is to run.
func (i *installation) join() fleet.Join {
	j := fleet.Join{Host: i.host.Name}
	for _, s := range i.fleet.Services {
		d := fleet.Deploy{Service: s.ID, Migrate: s.Migrate, MigrateTimeout: time.Duration(s.MigrateTimeout), DrainTimeout: time.Duration(s.DrainTimeout)}
		here := false
		for _, h := range i.fleet.HostsOf(s.ID) {
			d.Hosts = append(d.Hosts, h.Name)
			here = here || h.Name == i.host.Name
		}
		if here {
			j.Services = append(j.Services, d)
		}
	}
	return j
}

func (i *installation) say(name event.Name, detail, cause string) {
	i.p.Fleet.Emit(event.Event{Time: time.Now(), Event: name, Host: i.host.Name, Detail: detail, Cause: cause})
}

func (i *installation) summary(joined []fleet.Joined, changed bool, took time.Duration) string {
	if !changed {
		return i.host.Name + ": all is there, nothing to do"
	}
	var runs []string
	for _, j := range joined {
		if j.Left == "" {
			runs = append(runs, j.Service+" "+j.Revision)
		}
	}
	if len(runs) == 0 {
		return i.host.Name + ": ready, and there is nothing that it should run yet, " + display.Took(took)
	}
	return i.host.Name + ": runs " + strings.Join(runs, ", ") + ", " + display.Took(took)
}

// plan tells what would be done.
func (i *installation) plan(ctx context.Context) error {
	found, err := i.look(ctx)
	if err != nil {
		return err
	}
	var steps []rollout.Step
	add := func(do rollout.Do, cause string) {
		steps = append(steps, rollout.Step{Do: do, Hosts: []string{i.host.Name}, Cause: cause})
	}
	if !found.Has(i.made) {
		add("packages", strings.Join(i.wanted(found), ", ")+" on "+found.System)
	}
	if i.takesDefinitions() && found.Version == "" {
		add("definitions", "it has none")
	} else if i.takesDefinitions() {
		all, err := i.app.compare(ctx, i.p, i.fleet, []string{i.host.Name})
		if err != nil {
			return err
		}
		for _, s := range all {
			if s.err == nil && len(s.Services) > 0 {
				add("definitions", strings.Join(s.Services, ", "))
			}
		}
	}
	joined := i.p.Fleet.PlanJoin(ctx, i.join())
	for _, j := range joined {
		switch {
		case j.Left != "":
			add("leave", j.Service+": "+j.Left)
		case j.Changed:
			add(rollout.Upgrade, j.Service+" to "+j.Revision+", which its other hosts run")
		}
	}
	if i.p.Balancer != nil {
		at, err := i.p.Balancer.State(ctx)
		if err != nil {
			return err
		}
		if s, known := at[i.host.Name]; known && !s.Away && (!s.In || !s.Up) {
			add(rollout.Admit, "when it answers")
		}
	}
	if i.app.json() {
		return i.app.document(struct {
			Host     string          `json:"host"`
			Found    provision.Found `json:"found"`
			Services []fleet.Joined  `json:"services"`
			Steps    []rollout.Step  `json:"steps"`
		}{i.host.Name, found, joined, append([]rollout.Step{}, steps...)})
	}
	if len(steps) == 0 {
		i.app.say(i.host.Name + ": nothing to do")
		return nil
	}
	return i.app.showSteps(steps)
}

// showSteps prints the steps of a plan.
func (a *app) showSteps(steps []rollout.Step) error {
	t := display.Table{Paint: display.Painter(a.color()), Columns: []display.Column{{Title: "STEP"}, {Title: "HOSTS"}, {Title: "CAUSE"}}}
	for _, s := range steps {
		t.Row(display.Cell{Text: string(s.Do)}, display.Cell{Text: strings.Join(s.Hosts, ", ")}, display.Cell{Text: s.Cause, Style: display.Dim})
	}
	return t.Write(a.answerTo)
}
