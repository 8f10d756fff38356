package cli

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"conductor/internal/converge"
	"conductor/internal/display"
)

func (a *app) status() *cobra.Command {
	var ids []string
	cmd := &cobra.Command{
		Use:   "status [--id ID]",
		Short: "Show services with all their instances",
		Long: `Shows each service: its state, revision, routes, what a person should know, and
every instance with its health, age, use of memory and CPU, and requests in
flight. With --output json it is a list with an object for each service.`,
		Example: "conductor service status --id shop",
		Args:    a.needs(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			p, s, err := a.ask(cmd.Context())
			defer p.close()
			if err != nil {
				return err
			}
			all, err := p.Core.Status(cmd.Context(), ids...)
			if err != nil {
				return err
			}
			if a.json() {
				if all == nil {
					all = []converge.Status{}
				}
				return a.document(all)
			}
			if len(all) == 0 {
				a.say("no services: there are no definitions in " + s.Config.ServicesDir)
			}
			return writeStatus(a.answerTo, all, a.start, a.width(), display.Painter(a.color()))
		},
	}
	a.idsFlag(cmd, &ids)
	return cmd
}

// writeStatus writes each service: a head, what is known of it as a whole, and
// a table of its instances.
func writeStatus(w io.Writer, all []converge.Status, now time.Time, width int, paint display.Painter) error {
	for i, s := range all {
		if i > 0 {
			if _, err := io.WriteString(w, "\n"); err != nil {
				return err
			}
		}
		if _, err := io.WriteString(w, statusHead(s, paint)); err != nil {
			return err
		}
		if len(s.Instances) == 0 {
			continue
		}
		t := instanceTable(s.Instances, now)
		t.Width, t.Paint = width, paint
		if err := t.Write(w); err != nil {
			return err
		}
	}
	return nil
}

func statusHead(s converge.Status, paint display.Painter) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s", paint.Bold(s.Service), paint.Paint(stateStyle(s.State), s.State))
	if s.Revision != "" {
		fmt.Fprintf(&b, "  %s", display.CleanLine(s.Revision))
	}
	if s.Candidate != "" && s.Candidate != s.Revision {
		fmt.Fprintf(&b, " → %s", display.CleanLine(s.Candidate))
	}
	if counted(s) {
		fmt.Fprintf(&b, "  %d/%d healthy", s.Healthy, s.Replicas)
	}
	if s.Override {
		b.WriteString(" (scaled by hand)")
	}
	if s.Kind != "" {
		fmt.Fprintf(&b, "  %s", paint.Dim(string(s.Kind)))
	}
	b.WriteByte('\n')
	line := func(label, text string) {
		fmt.Fprintf(&b, "  %s %s\n", paint.Dim(fmt.Sprintf("%-8s", label)), display.CleanLine(text))
	}
	if len(s.Routes) > 0 {
		line("routes", strings.Join(s.Routes, "  "))
	}
	if s.Crontab != "" {
		line("crontab", s.Crontab)
	}
	if s.Image != "" {
		line("image", shortImage(s.Image))
	}
	if len(s.Kept) > 0 {
		line("kept", strings.Join(s.Kept, ", "))
	}
	if len(s.Undone) > 0 {
		line("undone", strings.Join(s.Undone, ", ")+" (rollback --revision)")
	}
	for _, n := range s.Notes {
		fmt.Fprintf(&b, "  %s %s\n", paint.Paint(display.Yellow, "!"), strings.ReplaceAll(strings.TrimSpace(display.Clean(n)), "\n", "\n    "))
	}
	return b.String()
}

// counted says whether the service should have instances, so that the number
// of healthy ones means something.
func counted(s converge.Status) bool {
	if s.State == "stopped" || s.State == "not deployed" {
		return false
	}
	return s.Replicas > 0 || len(s.Instances) > 0
}

// shortImage shortens an image ID to the 12 digits that `docker images` shows.
func shortImage(image string) string {
	if hex, ok := strings.CutPrefix(image, "sha256:"); ok && len(hex) > 12 {
		return hex[:12]
	}
	return image
}

func instanceTable(is []converge.InstanceStatus, now time.Time) *display.Table {
	t := &display.Table{Indent: "  ", Columns: []display.Column{
		{Title: "SLOT"},
		{Title: "REVISION"},
		{Title: "HEALTH"},
		{Title: "AGE", Right: true, Rank: 2},
		{Title: "MEMORY", Right: true, Rank: 3},
		{Title: "CPU", Right: true, Rank: 5},
		{Title: "ADDRESS", Rank: 6},
		{Title: "ROUTE", Rank: 4},
		{Title: "IN FLIGHT", Right: true, Rank: 7},
		{Title: "RESTARTS", Right: true, Rank: 8},
		{Title: "INSTANCE", Rank: 1},
	}}
	served := false // by a proxy
	for _, i := range is {
		served = served || i.Route != ""
	}
	for _, i := range is {
		live := i.State == "running"
		var age, memory, cpu, flight, restarts string
		if live && !i.Started.IsZero() {
			age = display.Age(now.Sub(i.Started))
		}
		if live && i.Memory > 0 {
			memory = display.Bytes(i.Memory)
			if i.Limit > 0 {
				memory += "/" + display.Bytes(i.Limit)
			}
		}
		if live {
			cpu = fmt.Sprintf("%.2f", i.CPU)
		}
		if served && (i.Route == "in" || i.Route == "draining" || i.InFlight > 0) {
			flight = strconv.Itoa(i.InFlight)
		}
		if i.Restarts > 0 {
			restarts = strconv.Itoa(i.Restarts)
		}
		health := i.Health
		if health == "" || health == "dead" {
			health = i.State
		}
		t.Row(
			display.Cell{Text: strconv.Itoa(i.Slot)}, display.Cell{Text: i.Revision},
			display.Cell{Text: health, Style: healthStyle(i.Health)},
			display.Cell{Text: age}, display.Cell{Text: memory}, display.Cell{Text: cpu},
			display.Cell{Text: i.Address}, display.Cell{Text: i.Route}, display.Cell{Text: flight},
			display.Cell{Text: restarts}, display.Cell{Text: i.Name},
		)
		cause := i.Cause
		if !i.NextTry.IsZero() {
			when := "its slot is filled at the next look"
			if i.NextTry.After(now) {
				when = "its slot is filled again at " + i.NextTry.Local().Format(time.TimeOnly)
			}
			cause += "; " + when
		}
		if cause != "" && i.Health != "healthy" {
			t.Note(display.Dim, strings.TrimPrefix(cause, "; "))
		}
	}
	return t
}

func stateStyle(state string) display.Style {
	switch state {
	case "running":
		return display.Green
	case "down":
		return display.Red
	case "degraded", "upgrading":
		return display.Yellow
	}
	return display.Dim
}

func healthStyle(health string) display.Style {
	switch health {
	case "healthy":
		return display.Green
	case "unhealthy":
		return display.Red
	case "starting":
		return display.Yellow
	}
	return display.Dim
}
