package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"conductor/internal/converge"
	"conductor/internal/display"
	"conductor/internal/spec"
)

// listed is a service in the JSON of list: its status without instances.
type listed struct {
	Service   string    `json:"service"`
	Kind      spec.Kind `json:"kind,omitempty"`
	State     string    `json:"state"`
	Revision  string    `json:"revision,omitempty"`
	Candidate string    `json:"candidate,omitempty"`
	Replicas  int       `json:"replicas"`
	Healthy   int       `json:"healthy"`
	Routes    []string  `json:"routes,omitempty"`
	Notes     []string  `json:"notes,omitempty"`
}

func (a *app) list() *cobra.Command {
	return &cobra.Command{
		Use:     "list",
		Short:   "Show all services, a line each",
		Example: "conductor service list",
		Args:    a.needs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, s, err := a.ask(cmd.Context())
			defer p.close()
			if err != nil {
				return err
			}
			all, err := p.Core.Brief(cmd.Context())
			if err != nil {
				return err
			}
			if a.json() {
				ls := make([]listed, 0, len(all))
				for _, s := range all {
					ls = append(ls, listed{s.Service, s.Kind, s.State, s.Revision, s.Candidate, s.Replicas, s.Healthy, s.Routes, s.Notes})
				}
				return a.document(ls)
			}
			if len(all) == 0 {
				a.say("no services: there are no definitions in " + s.Config.ServicesDir)
				return nil
			}
			t := listTable(all)
			t.Width, t.Paint = a.width(), display.Painter(a.color())
			return t.Write(a.answerTo)
		},
	}
}

func listTable(all []converge.Status) *display.Table {
	t := &display.Table{Columns: []display.Column{
		{Title: "SERVICE"},
		{Title: "STATE"},
		{Title: "REVISION", Rank: 1},
		{Title: "HEALTHY", Right: true, Rank: 2},
		{Title: "KIND", Rank: 5},
		{Title: "ROUTES", Rank: 4},
		{Title: "NOTES", Rank: 3},
	}}
	for _, s := range all {
		healthy := ""
		if counted(s) {
			healthy = fmt.Sprintf("%d/%d", s.Healthy, s.Replicas)
		}
		revision := s.Revision
		if s.Candidate != "" && s.Candidate != s.Revision {
			revision = strings.TrimSpace(revision + " → " + s.Candidate)
		}
		routes := ""
		if len(s.Routes) > 0 {
			routes = s.Routes[0]
			if more := len(s.Routes) - 1; more > 0 {
				routes += fmt.Sprintf(" +%d", more)
			}
		}
		note := ""
		if len(s.Notes) > 0 {
			note, _, _ = strings.Cut(s.Notes[0], "\n")
			if more := len(s.Notes) - 1; more > 0 {
				note += fmt.Sprintf(" (+%d)", more)
			}
		}
		t.Row(
			display.Cell{Text: s.Service}, display.Cell{Text: s.State, Style: stateStyle(s.State)},
			display.Cell{Text: revision}, display.Cell{Text: healthy}, display.Cell{Text: string(s.Kind), Style: display.Dim},
			display.Cell{Text: routes}, display.Cell{Text: note, Style: display.Yellow},
		)
	}
	return t
}
