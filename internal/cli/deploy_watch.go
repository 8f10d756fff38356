package cli

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"

	"conductor/internal/display"
	"conductor/internal/event"
	"conductor/internal/fleet"
	"conductor/internal/rollout"
	"conductor/internal/spec"
)

// watch shows a deploy at a terminal while it is under way; nil shows nothing,
// for there is no terminal, or somebody wants lines.
type watch struct {
	board   *display.Board
	service string
	how     string // the strategy
	ended   sync.WaitGroup

	mu      sync.Mutex
	hosts   display.Picture
	targets []display.Row
}

// watch begins to show the deploy of a service. All that the command writes from
// now on comes to stand above.
func (a *app) watch(service string) *watch {
	fd, ok := terminal(a.stdout)
	if !ok || a.output.mode != display.TTY || a.env.Getenv("TERM") == "dumb" {
		return nil
	}
	w := &watch{service: service}
	w.board = display.NewBoard(a.displayOptions(), func() (width, height int) {
		width, height, _ = term.GetSize(fd) // 0 where it cannot be had
		return width, height
	})
	a.disp, a.stderr = w.board, w.board.Above(a.stderr)
	w.ended.Go(w.board.Run)
	return w
}

// close takes the picture away.
func (w *watch) close() {
	if w != nil {
		w.board.Close()
		w.ended.Wait()
	}
}

// pause leaves room for a question.
func (w *watch) pause() (resume func()) {
	if w == nil {
		return func() {}
	}
	return w.board.Pause()
}

// progress shows how far the hosts are.
func (w *watch) progress(p fleet.Progress) {
	to := w.service + " → " + p.Revision
	if p.Back {
		to = w.service + " back to " + p.Revision
	}
	pic := display.Picture{Head: []string{to, w.how, p.Stage}}
	for _, h := range p.Hosts {
		r := display.Row{Name: h.Host, Runs: h.Revision, Doing: h.Doing, Cause: h.Cause, Since: h.Since, Balancer: balancerWord(h.Balanced, h.In), Mark: display.Waits}
		if h.Revision != p.Revision {
			r.Will = p.Revision
		}
		switch {
		case h.Failure != "":
			r.Mark, r.Doing, r.Cause = display.Bad, "failed", firstLine(h.Failure)
		case h.Doing != "":
			r.Mark = display.Works
		case h.Done:
			r.Mark = display.Good
		}
		pic.Rows = append(pic.Rows, r)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hosts = pic
	w.show()
}

// plan shows targets that are brought to the revision after the hosts.
func (w *watch) plan(targets []spec.FleetTarget) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range targets {
		w.targets = append(w.targets, display.Row{Name: t.Name, Mark: display.Waits})
	}
}

// target shows what becomes of one of them.
func (w *watch) target(n int, revision string, running bool, err error) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	r := display.Row{Name: w.targets[n].Name, Mark: display.Good, Runs: revision}
	switch {
	case running:
		w.hosts.Head = []string{w.service + " → " + revision, "targets"}
		r.Mark, r.Doing, r.Since, r.Runs, r.Will = display.Works, "deploy", time.Now(), "", revision
	case err != nil:
		r.Mark, r.Doing, r.Cause, r.Runs, r.Will = display.Bad, "failed", firstLine(err.Error()), "", revision
	}
	w.targets[n] = r
	w.show()
}

func (w *watch) show() {
	w.board.Show(display.Picture{Head: w.hosts.Head, Rows: slices.Concat(w.hosts.Rows, w.targets)})
}

// stages tells in lines how far a deploy is, where no board shows it: what
// comes before the first host changes takes minutes where images travel.
func stages(d display.Display) func(fleet.Progress) {
	var mu sync.Mutex
	told := ""
	return func(p fleet.Progress) {
		text := p.Stage
		var bringing []string
		for _, h := range p.Hosts {
			if h.Doing == string(rollout.Image) {
				bringing = append(bringing, h.Host)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if p.Stage == told {
			return
		}
		told = p.Stage
		if len(bringing) > 0 {
			text += " to " + strings.Join(bringing, ", ")
		}
		d.Event(event.Event{Time: time.Now(), Event: event.Note, Detail: text})
	}
}

// strategyWords are a strategy as people say it.
func strategyWords(s spec.Strategy) string {
	switch {
	case s.Kind == spec.StrategyPercent:
		return fmt.Sprintf("%d%% at a time", s.Percent)
	case s.Kind == spec.StrategyFirst:
		return s.First + " first"
	}
	return strings.ReplaceAll(string(s.Kind), "-", " ")
}

// balancerWord is whether a host is sent requests; "" where there is no balancer.
func balancerWord(balanced, in bool) string {
	switch {
	case in:
		return "in"
	case balanced:
		return "out"
	}
	return ""
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}
