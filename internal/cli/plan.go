package cli

import (
	"context"

	"conductor/internal/converge"
	"conductor/internal/display"
)

// plan prints the steps that a verb would take, one a line with its cause.
func (a *app) plan(ctx context.Context, id, revision string, of func(Core, context.Context, string, string) ([]converge.Step, error)) error {
	p, _, err := a.ask(ctx)
	defer p.close()
	if err != nil {
		return err
	}
	steps, err := of(p.Core, ctx, id, revision)
	if err != nil {
		return err
	}
	if a.json() {
		if steps == nil {
			steps = []converge.Step{}
		}
		return a.document(struct {
			Service  string          `json:"service"`
			Revision string          `json:"revision,omitempty"`
			Steps    []converge.Step `json:"steps"`
		}{id, revision, steps})
	}
	if len(steps) == 0 {
		a.say(id + ": nothing to do")
		return nil
	}
	t := display.Table{Paint: display.Painter(a.color()), Columns: []display.Column{{Title: "STEP"}, {Title: "CAUSE"}}}
	for _, s := range steps {
		t.Row(display.Cell{Text: s.Do}, display.Cell{Text: s.Cause, Style: display.Dim})
	}
	return t.Write(a.answerTo)
}
