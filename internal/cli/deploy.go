package cli

import (
	"bufio"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"conductor/internal/display"
	"conductor/internal/fleet"
	"conductor/internal/notify"
	"conductor/internal/rollout"
	"conductor/internal/spec"
)

// deployFlags are those of a deploy.
type deployFlags struct {
	id, revision, reason, onFailure string
	hosts                           []string
	plan, wait, yes                 bool
}

func (a *app) deploy() *cobra.Command {
	var f deployFlags
	cmd := &cobra.Command{
		Use:   "deploy --id ID --revision REV",
		Short: "Bring a service to a revision on all hosts of the fleet",
		Long: `Brings a service to a revision on the hosts that fleet.yml names, over ssh, by
the service's strategy there: hosts leave the balancer, their own conductor
upgrades them, and they come back. What serves goes on serving; a host that
fails is left out, and the deploy stops.

Running it again is safe: it goes on from what the hosts say.`,
		Example: "conductor deploy --id shop --revision v2",
		Args:    a.needs("id", "revision"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.onFailure != "stop" && f.onFailure != "rollback" {
				return usageError("stop, or rollback", "--on-failure cannot be %q", f.onFailure)
			}
			return a.deployTo(cmd.Context(), f, false)
		},
	}
	f.add(a, cmd, "the `REV` to run: a tag of the image, a commit")
	cmd.Flags().StringVar(&f.onFailure, "on-failure", "stop", "what becomes of the hosts that were upgraded, `stop|rollback`: they stay, or go back")
	return cmd
}

// add adds the flags that a deploy and a rollback have.
func (f *deployFlags) add(a *app, cmd *cobra.Command, revision string) {
	cmd.Flags().StringVar(&f.id, "id", "", "the service's `ID` in fleet.yml")
	_ = cmd.RegisterFlagCompletionFunc("id", a.completeFleetIDs)
	revisionFlag(cmd, &f.revision, revision)
	a.hostsFlag(cmd, &f.hosts)
	planFlag(cmd, &f.plan)
	cmd.Flags().StringVar(&f.reason, "reason", "", "why, for the history of the hosts: a `TEXT`")
	cmd.Flags().BoolVar(&f.wait, "wait", false, "wait for a deploy of the service that is under way")
	cmd.Flags().BoolVar(&f.yes, "yes", false, "do not ask after the first host")
}

func (a *app) completeFleetIDs(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	f, err := a.readFleet()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var ids []string
	for _, s := range f.Services {
		ids = append(ids, s.ID)
	}
	return ids, cobra.ShellCompDirectiveNoFileComp
}

func (a *app) deployTo(ctx context.Context, f deployFlags, rollback bool) error {
	var w *watch
	if !f.plan {
		w = a.watch(f.id)
		defer w.close()
	}
	d := a.display()
	p, file, err := a.openFleet(d.Event, f.id, f.reason)
	defer p.close()
	if err != nil {
		return err
	}
	hosts, err := chosen(file, f.id, f.hosts)
	if err != nil {
		return err
	}
	s, err := file.Service(f.id)
	if err != nil {
		return err
	}
	all, err := chosen(file, f.id, nil)
	if err != nil {
		return err
	}
	deploy := fleet.Deploy{
		Service: s.ID, Revision: f.revision, Hosts: hosts, Strategy: strategy(s.Strategy, hosts), MaxFailed: s.MaxFailed,
		DrainTimeout: time.Duration(s.DrainTimeout), Wait: f.wait, Rollback: rollback, Hooks: p.Hooks,
		Others: slices.DeleteFunc(all, func(h string) bool { return slices.Contains(hosts, h) }),
	}
	if !rollback {
		if deploy.Definition, err = definitionHere(file, s.ID); err != nil {
			return err
		}
		for _, name := range hosts {
			if h, _ := file.Host(name); h.Sync {
				deploy.Synced = append(deploy.Synced, name)
			}
		}
		deploy.Test, deploy.TestTimeout = s.Test, time.Duration(s.TestTimeout)
		deploy.Migrate, deploy.MigrateTimeout = s.Migrate, time.Duration(s.MigrateTimeout)
		deploy.Back = f.onFailure == "rollback"
	}
	if f.plan {
		return a.planDeploy(ctx, p, deploy)
	}
	if deploy.Confirm, err = a.confirm(s.Strategy, f, w); err != nil {
		return err
	}
	var targets []spec.FleetTarget
	if !rollback {
		targets = file.TargetsOf(s.ID)
		deploy.Targets = func(ctx context.Context) ([]fleet.HostOutcome, error) {
			return runTargets(ctx, p, targets, deploy, w)
		}
	}
	switch {
	case w != nil:
		w.how, p.Fleet.Watch = strategyWords(s.Strategy), w.progress
		w.plan(targets)
	case !a.json():
		p.Fleet.Watch = stages(d)
	}
	defer context.AfterFunc(ctx, func() { a.interrupted(ctx) })()
	outcome, err := p.Fleet.Deploy(ctx, deploy)
	a.outcomes = outcome
	w.close()
	a.sayHosts(outcome)
	if err != nil {
		a.sayLeftOut(outcome)
	}
	changed := 0
	for _, h := range outcome.Hosts {
		if h.Changed {
			changed++
		}
	}
	switch by := a.whoAsksWhere(); {
	case err != nil:
		p.Tell(notify.Change{Host: by, Service: s.ID, Revision: f.revision, Kind: notify.FailedUpgrade, Text: err.Error()})
		return err
	case changed > 0:
		p.Tell(notify.Change{Host: by, Service: s.ID, Revision: f.revision, Kind: notify.Deployed, Text: strings.TrimSpace(plural(len(outcome.Hosts), "host") + " " + f.reason)})
	}
	summary := fmt.Sprintf("%s: %s on %s, %s", s.ID, f.revision, plural(len(outcome.Hosts), "host"), display.Took(outcome.Took))
	if changed == 0 {
		summary = fmt.Sprintf("%s: %s already runs on %s, nothing to do", s.ID, f.revision, plural(len(outcome.Hosts), "host"))
	}
	d.End(display.Result{Outcomes: outcome, Summary: []string{summary}})
	return nil
}

// runTargets brings what conductor does not deploy itself to the revision, all
// at once.
func runTargets(ctx context.Context, p *FleetParts, targets []spec.FleetTarget, d fleet.Deploy, w *watch) ([]fleet.HostOutcome, error) {
	outcomes := make([]fleet.HostOutcome, len(targets))
	var running sync.WaitGroup
	for n, t := range targets {
		running.Go(func() {
			o := fleet.HostOutcome{Host: t.Name, Revision: d.Revision, Changed: true}
			w.target(n, d.Revision, true, nil)
			if o.Err = p.Hooks.Target(ctx, t, d.Service, d.Revision); o.Err != nil {
				o.Revision, o.Changed, o.Failure = "?", false, o.Err.Error()
			}
			w.target(n, d.Revision, false, o.Err)
			outcomes[n] = o
		})
	}
	running.Wait()
	for _, o := range outcomes {
		if o.Err != nil {
			return outcomes, o.Err
		}
	}
	return outcomes, nil
}

// confirm is what comes after the first host, where the strategy has one.
func (a *app) confirm(s spec.Strategy, f deployFlags, w *watch) (func(context.Context, string) (bool, error), error) {
	switch {
	case s.Kind != spec.StrategyFirst || f.yes:
		return nil, nil
	case !s.Confirm:
		return func(ctx context.Context, _ string) (bool, error) {
			t := time.NewTimer(time.Duration(s.Pause))
			defer t.Stop()
			select {
			case <-t.C:
				return true, nil
			case <-ctx.Done():
				return false, context.Cause(ctx)
			}
		}, nil
	}
	if _, ok := terminal(a.env.Stdin); !ok {
		return nil, usageError("give --yes, or pause: 10m in fleet.yml", "after the first host somebody is to be asked, and there is no terminal to ask at")
	}
	return func(ctx context.Context, host string) (bool, error) {
		defer w.pause()()
		_, _ = fmt.Fprintf(a.stderr, "%s runs %s. Go on with the others? [y/N] ", host, f.revision)
		said := make(chan string, 1)
		go func() { // it ends with the process, where nobody answers
			line, _ := bufio.NewReader(a.env.Stdin).ReadString('\n')
			said <- line
		}()
		select {
		case line := <-said:
			line = strings.ToLower(strings.TrimSpace(line))
			return line == "y" || line == "yes", nil
		case <-ctx.Done():
			_, _ = fmt.Fprintln(a.stderr)
			return false, context.Cause(ctx)
		}
	}, nil
}

// sayHosts shows which host runs what.
func (a *app) sayHosts(o fleet.Outcome) {
	if a.json() || a.output.mode == display.Quiet || len(o.Hosts) == 0 {
		return
	}
	t := &display.Table{Paint: display.Painter(a.color()), Width: a.width(), Columns: []display.Column{
		{}, {Title: "HOST"}, {Title: "RUNS"}, {Title: "BALANCER"}, {Rank: 1, Cut: true},
	}}
	told := map[string]string{} // which host has a failure that is told already
	for _, h := range o.Hosts {
		failure := strings.TrimPrefix(firstLine(h.Failure), h.Host+": ")
		if other := told[failure]; failure != "" && other != "" {
			failure = "as " + other
		} else {
			told[failure] = h.Host
		}
		revision, mark, style := h.Revision, display.Waits, display.None
		if revision == "" {
			revision = "nothing"
		}
		switch {
		case h.Failure != "":
			mark, style = display.Bad, display.Red
		case h.Revision == o.Revision:
			mark = display.Good
		}
		if a.output.mode != display.TTY { // scripts cut it into columns
			mark = ""
		}
		t.Row(display.Cell{Text: string(mark), Style: mark.Style()}, display.Cell{Text: h.Host}, display.Cell{Text: revision, Style: style},
			display.Cell{Text: balancerWord(h.Balanced, h.In)}, display.Cell{Text: failure, Style: style})
	}
	_ = t.Write(a.answerTo) // what was done stands
}

// sayLeftOut says how hosts that the deploy has left out come in again.
func (a *app) sayLeftOut(o fleet.Outcome) {
	var out []string
	for _, h := range o.Hosts {
		if h.Balanced && !h.In && !h.Away {
			out = append(out, h.Host)
		}
	}
	if len(out) > 0 {
		a.say(fmt.Sprintf("%s: out of the balancer until a deploy ends well there; by hand: conductor fleet admit %s", strings.Join(out, ", "), strings.Join(out, " ")))
	}
}

// planDeploy prints the steps of a deploy in which all goes well.
func (a *app) planDeploy(ctx context.Context, p *FleetParts, d fleet.Deploy) error {
	steps, o, err := p.Fleet.Plan(ctx, d)
	if err != nil {
		a.sayHosts(o)
		return err
	}
	if a.json() {
		if steps == nil {
			steps = []rollout.Step{}
		}
		return a.document(struct {
			Service  string              `json:"service"`
			Revision string              `json:"revision"`
			Hosts    []fleet.HostOutcome `json:"hosts"`
			Steps    []rollout.Step      `json:"steps"`
		}{d.Service, d.Revision, o.Hosts, steps})
	}
	a.sayHosts(o)
	if len(steps) == 0 {
		a.say(d.Service + ": nothing to do")
		return nil
	}
	a.say("")
	t := display.Table{Paint: display.Painter(a.color()), Columns: []display.Column{{Title: "STEP"}, {Title: "HOSTS"}, {Title: "CAUSE"}}}
	for _, s := range steps {
		hosts := strings.Join(s.Hosts, ", ")
		if len(s.Out) > 0 {
			hosts += " in, " + strings.Join(s.Out, ", ") + " out"
		}
		t.Row(display.Cell{Text: string(s.Do)}, display.Cell{Text: hosts}, display.Cell{Text: s.Cause, Style: display.Dim})
	}
	return t.Write(a.answerTo)
}
