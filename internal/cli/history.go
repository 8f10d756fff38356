package cli

import (
	"strings"
	"time"

	"github.com/spf13/cobra"

	"conductor/internal/display"
	"conductor/internal/state"
)

func (a *app) history() *cobra.Command {
	var id string
	var limit int
	cmd := &cobra.Command{
		Use:   "history --id ID",
		Short: "Show who did what with a service, and how it went",
		Long: `Shows the operations of a service, newest first. With --output json it is a list
with an object for each.`,
		Example: "conductor service history --id shop",
		Args:    a.needs("id"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if limit < 0 {
				return usageError("0 shows all", "--limit %d is less than nothing", limit)
			}
			p, s, err := a.ask(cmd.Context())
			defer p.close()
			if err != nil {
				return err
			}
			ops, err := p.History.List(cmd.Context(), id, limit)
			if err != nil {
				return err
			}
			if len(ops) == 0 {
				// A service that is gone may have a history; one that never was
				// is a slip of the pen.
				if _, err := s.Definitions.Get(id); err != nil {
					return err
				}
			}
			if a.json() {
				if ops == nil {
					ops = []state.Operation{}
				}
				return a.document(ops)
			}
			if len(ops) == 0 {
				a.say(id + ": nothing has been done with it yet")
				return nil
			}
			t := historyTable(ops, a.start)
			t.Width, t.Paint = a.width(), display.Painter(a.color())
			return t.Write(a.answerTo)
		},
	}
	a.idFlag(cmd, &id)
	cmd.Flags().IntVar(&limit, "limit", 20, "show at most `N` operations; 0: all")
	return cmd
}

// historyTable has a line for each operation; hosts, if there are any, name the
// host of each.
func historyTable(ops []state.Operation, now time.Time, hosts ...string) *display.Table {
	t := &display.Table{Columns: []display.Column{
		{Title: "HOST"},
		{Title: "WHEN"},
		{Title: "WHO", Rank: 2},
		{Title: "VERB"},
		{Title: "FROM", Rank: 3},
		{Title: "TO"},
		{Title: "OUTCOME"},
		{Title: "TOOK", Right: true, Rank: 1},
	}}
	for n, op := range ops {
		host := ""
		if len(hosts) > 0 {
			host = hosts[n]
		}
		outcome, took := op.Outcome, ""
		switch {
		case op.Outcome == "":
			outcome, took = "running", display.Took(now.Sub(op.Started))
		case !op.Ended.IsZero():
			took = display.Took(op.Ended.Sub(op.Started))
		}
		t.Row(
			display.Cell{Text: host}, display.Cell{Text: op.Started.Local().Format(time.DateTime)}, display.Cell{Text: op.User},
			display.Cell{Text: op.Verb}, display.Cell{Text: op.From}, display.Cell{Text: op.To},
			display.Cell{Text: outcome, Style: outcomeStyle(op)}, display.Cell{Text: took},
		)
		if op.Reason != "" {
			t.Note(display.None, op.Reason)
		}
		if first, _, _ := strings.Cut(op.Error, "\n"); first != "" {
			t.Note(display.Dim, first)
		}
	}
	return t
}

func outcomeStyle(op state.Operation) display.Style {
	switch {
	case op.Outcome == "" || op.Outcome == state.Interrupted:
		return display.Yellow
	case op.Code != 0 || op.Error != "":
		return display.Red
	}
	return display.Green
}
