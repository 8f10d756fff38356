package cli

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"conductor/internal/balancer"
	"conductor/internal/display"
	"conductor/internal/fault"
	"conductor/internal/fleet"
	"conductor/internal/remote"
	"conductor/internal/spec"
)

// hostStatus is a service on a host in the JSON of fleet status.
type hostStatus struct {
	Host    string           `json:"host"`
	Service string           `json:"service"`
	Seen    *fleet.Seen      `json:"seen,omitempty"`
	Server  *balancer.Server `json:"balancer,omitempty"`
	Skew    float64          `json:"clock_skew_seconds,omitempty"` // of the host's clock, at least so much
	Error   string           `json:"error,omitempty"`

	err error
}

func (a *app) fleetStatus() *cobra.Command {
	var id string
	var words []string
	cmd := &cobra.Command{
		Use:   "status [--id ID]",
		Short: "Show what runs on all hosts, side by side",
		Long: `Asks all hosts at once what they run, and the balancer whom it sends requests.
Definitions that differ between hosts are marked, and clocks that are off.`,
		Example: "conductor fleet status --id shop",
		Args:    a.needs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, f, err := a.openFleet(a.display().Event, id, "")
			defer p.close()
			if err != nil {
				return err
			}
			if _, err := chosen(f, id, words); err != nil {
				return err
			}
			all, err := lookAtAll(cmd.Context(), p, f, id, words)
			if a.json() {
				if e := a.document(all); e != nil {
					return e
				}
				return err
			}
			t := fleetTable(all)
			t.Width, t.Paint = a.width(), display.Painter(a.color())
			if e := t.Write(a.answerTo); e != nil {
				return e
			}
			return err
		},
	}
	cmd.Flags().StringVar(&id, "id", "", "only the service of this `ID`")
	_ = cmd.RegisterFlagCompletionFunc("id", a.completeFleetIDs)
	a.hostsFlag(cmd, &words)
	return cmd
}

// lookAtAll asks every host for each of its services. The error is the first
// host's that could not be asked; the others' answers are there all the same.
func lookAtAll(ctx context.Context, p *FleetParts, f spec.Fleet, id string, words []string) ([]hostStatus, error) {
	all := []hostStatus{}
	for _, s := range f.Services {
		if id != "" && s.ID != id {
			continue
		}
		hosts, err := chosen(f, s.ID, words)
		if err != nil {
			continue // of none of those
		}
		for _, h := range hosts {
			all = append(all, hostStatus{Host: h, Service: s.ID})
		}
	}
	var at map[string]balancer.Server
	var balancerErr error
	var asking sync.WaitGroup
	if p.Balancer != nil {
		asking.Go(func() { at, balancerErr = p.Balancer.State(ctx) })
	}
	for n := range all {
		asking.Go(func() {
			h := &all[n]
			began := time.Now()
			seen, err := p.Fleet.Hosts.Look(ctx, h.Host, fleet.Question{Service: h.Service, Whole: true})
			if err != nil {
				h.Error, h.err = err.Error(), err
				return
			}
			h.Seen = &seen
			// Its clock was read between the question and the answer.
			if early, late := began.Sub(seen.Time), time.Until(seen.Time); early > 0 {
				h.Skew = -early.Seconds()
			} else if late > 0 {
				h.Skew = late.Seconds()
			}
		})
	}
	asking.Wait()
	var first error
	for n := range all {
		if s, ok := at[all[n].Host]; ok {
			all[n].Server = &s
		}
		if first == nil {
			first = all[n].err
		}
	}
	if first == nil {
		first = balancerErr
	}
	return all, first
}

func fleetTable(all []hostStatus) *display.Table {
	t := &display.Table{Columns: []display.Column{
		{Title: "SERVICE"}, {Title: "HOST"}, {Title: "RUNS"}, {Title: "STATE"}, {Title: "BALANCER", Rank: 2}, {Title: "IN FLIGHT", Right: true, Rank: 5},
		{Title: "CONDUCTOR", Rank: 4},
	}}
	usual := map[string]string{} // the definition that most hosts have
	for service, counts := range definitions(all) {
		most := 0
		for d, n := range counts {
			if n > most || n == most && d < usual[service] {
				usual[service], most = d, n
			}
		}
	}
	for _, h := range all {
		if h.Seen == nil {
			text, _, _ := strings.Cut(h.Error, "\n")
			t.Row(display.Cell{Text: h.Service}, display.Cell{Text: h.Host}, display.Cell{Text: "?"}, display.Cell{Text: "unknown", Style: display.Red},
				display.Cell{Text: serverWord(h.Server)}, display.Cell{}, display.Cell{})
			t.Note(display.Red, text)
			continue
		}
		t.Row(display.Cell{Text: h.Service}, display.Cell{Text: h.Host}, display.Cell{Text: h.Seen.Live}, display.Cell{Text: h.Seen.State, Style: stateStyle(h.Seen.State)},
			display.Cell{Text: serverWord(h.Server)}, display.Cell{Text: count(h.Seen.InFlight)}, display.Cell{Text: h.Seen.Version})
		for _, note := range hostNotes(h, usual[h.Service]) {
			t.Note(display.Yellow, note)
		}
	}
	return t
}

func count(n int) string {
	if n == 0 {
		return ""
	}
	return plural(n, "request")
}

func definitions(all []hostStatus) map[string]map[string]int {
	of := map[string]map[string]int{}
	for _, h := range all {
		if h.Seen == nil {
			continue
		}
		if of[h.Service] == nil {
			of[h.Service] = map[string]int{}
		}
		of[h.Service][h.Seen.Definition]++
	}
	return of
}

// hostNotes are what a person should know of a host.
func hostNotes(h hostStatus, definition string) (notes []string) {
	switch {
	case h.Seen.Definition == "":
		notes = append(notes, "no definition there")
	case h.Seen.Definition != definition:
		notes = append(notes, "its definition differs")
	}
	if h.Seen.Holder != "" {
		notes = append(notes, "a deploy by "+h.Seen.Holder+" is under way")
	}
	if h.Skew > 5 || h.Skew < -5 {
		notes = append(notes, "its clock is off by "+(time.Duration(h.Skew)*time.Second).String())
	}
	return append(notes, h.Seen.Troubles...)
}

func serverWord(s *balancer.Server) string {
	switch {
	case s == nil:
		return ""
	case s.Away:
		return "taken out"
	case !s.In:
		return "out"
	case !s.Up:
		return "in, not well"
	}
	return "in"
}

// fleetBalance is drain, or admit: a person takes a host out of the balancer,
// where deploys leave it, or puts it in again.
func (a *app) fleetBalance(verb string) *cobra.Command {
	short, long := "Take a host out of the balancer", `Takes a host out of the balancer: it is sent nothing new, and what is in flight
goes on. Deploys upgrade it there and leave it out, until fleet admit.`
	if verb == "admit" {
		short, long = "Put a host into the balancer again", `Puts a host into the balancer again that fleet drain has taken out, or that a
deploy has left out.`
	}
	cmd := &cobra.Command{
		Use: verb + " HOST…", Short: short, Long: long, Example: "conductor fleet " + verb + " web2",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return usageError("for example: "+cmd.Example, "fleet %s needs a host", verb)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			p, f, err := a.openFleet(a.display().Event, "", "")
			defer p.close()
			if err != nil {
				return err
			}
			hosts, err := chosen(f, "", args)
			if err != nil {
				return err
			}
			if p.Balancer == nil {
				return fault.New(fault.ErrDefinition, "see balancer in the reference", "%s has no balancer", f.File)
			}
			change := balancer.Change{Away: hosts}
			if verb == "admit" {
				change = balancer.Change{Admit: hosts}
			}
			if err := p.Balancer.Set(cmd.Context(), change); err != nil {
				return err
			}
			word := map[string]string{"drain": "is out of the balancer", "admit": "is in the balancer"}[verb]
			r := display.Result{Outcomes: hosts}
			for _, h := range hosts {
				r.Summary = append(r.Summary, h+": "+word)
			}
			a.display().End(r)
			return nil
		},
		ValidArgsFunction: a.completeHosts,
	}
	a.fleetFlag(cmd.Flags())
	return cmd
}

func (a *app) fleetRollback() *cobra.Command {
	var f deployFlags
	cmd := &cobra.Command{
		Use:   "rollback --id ID --revision REV",
		Short: "Take a service back to a kept revision on all hosts",
		Long: `Takes a service back to a revision that all hosts have kept, in the same way as a
deploy brings one. service status on a host shows what it has kept.`,
		Example: "conductor fleet rollback --id shop --revision v1",
		Args:    a.needs("id", "revision"),
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.deployTo(cmd.Context(), f, true) },
	}
	f.add(a, cmd, "the `REV` to go back to")
	return cmd
}

// fleetRequest is a command of the hosts' own, asked for by a person.
func (a *app) fleetRequest(do remote.Do, args ...string) remote.Request {
	return remote.Request{Version: thisVersion().Version, Do: do, By: a.whoAsksWhere(), Args: args}
}
