package display

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"conductor/internal/event"
)

// The width of the column of instances grows with what it has seen, between
// these. A longer name pushes its own line only.
const (
	subjectMin = 18
	subjectMax = 48
)

// plain writes one line an event: time since the start, event, instance, and
// what was seen or why.
type plain struct {
	o     Options
	paint Painter

	mu    sync.Mutex
	width int
}

func (p *plain) Event(e event.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, _ = io.WriteString(p.o.Out, p.line(e)) // what is shown may be lost, what is done may not
}

func (p *plain) line(e event.Event) string {
	subject := e.Instance
	if subject == "" {
		subject = e.Service
	}
	if e.Host != "" {
		subject = strings.TrimSpace(e.Host + " " + e.Instance)
	}
	subject = CleanLine(subject)
	p.width = max(p.width, min(utf8.RuneCountInString(subject), subjectMax))

	text, more, _ := strings.Cut(Clean(say(e)), "\n")
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s  %s",
		p.paint.Dim(since(e.Time, p.o.Start)),
		p.paint.Paint(styleOf(e.Event), fmt.Sprintf("%-10s", CleanLine(string(e.Event)))),
		subject)
	if text != "" {
		pad := max(p.width-utf8.RuneCountInString(subject), 0)
		fmt.Fprintf(&b, "%s  %s", strings.Repeat(" ", pad), text)
	}
	b.WriteByte('\n')
	if more = strings.TrimRight(more, "\n"); more != "" {
		b.WriteString(indent(more, eventIndent))
	}
	return b.String()
}

// eventIndent puts further lines of an event under its name.
const eventIndent = "           "

// say is the last column of an event's line. What was seen says enough where
// all goes well; where something is taken away or fails, the cause stands by.
func say(e event.Event) string {
	switch {
	case e.Detail == "":
		return e.Cause
	case e.Cause == "" || strings.Contains(e.Detail, e.Cause) && !strings.Contains(e.Detail, "\n"):
		return e.Detail
	}
	switch e.Event {
	case event.Failed:
		first, _, more := strings.Cut(e.Detail, "\n")
		switch { // a diagnosis in full comes with the error at the end
		case more && e.Instance != "":
			return e.Cause
		case more:
			return first
		}
		return e.Detail + " (" + e.Cause + ")"
	case event.Stopped, event.Removed, event.Unrouted, event.Restored, event.Warning, event.Note:
		return e.Detail + " (" + e.Cause + ")"
	}
	return e.Detail
}

// since writes the time since the start in a column of 7.
func since(t, start time.Time) string {
	if t.IsZero() || start.IsZero() {
		return strings.Repeat(" ", 7)
	}
	d := max(t.Sub(start), 0)
	if d < 10*time.Minute {
		return fmt.Sprintf("%6.2fs", d.Seconds())
	}
	d = d.Round(time.Second)
	if d < time.Hour {
		return fmt.Sprintf("%3dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%3dh%02dm", int(d.Hours()), int(d.Minutes())%60)
}

func styleOf(n event.Name) Style {
	switch n {
	case event.Healthy, event.Routed, event.Committed, event.Restored:
		return Green
	case event.Failed:
		return Red
	case event.Warning:
		return Yellow
	case event.Unrouted, event.Drained, event.Stopped, event.Removed:
		return Dim
	}
	return None
}

func (p *plain) End(r Result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, s := range r.Summary {
		_, _ = io.WriteString(p.o.Out, p.paint.Bold(Clean(s))+"\n") // as above
	}
	WriteFailures(p.o.Err, p.paint, r.Failures)
}

// WriteFailures writes what went wrong for someone who is tired: the first line
// names it, further lines are set in, and an arrow shows the next thing to do.
func WriteFailures(w io.Writer, paint Painter, fs []Failure) {
	var b strings.Builder
	for _, f := range fs {
		first, more, _ := strings.Cut(strings.TrimSpace(Clean(f.Text)), "\n")
		fmt.Fprintf(&b, "%s %s\n", paint.Paint(Red, "conductor:"), first)
		if more = strings.TrimRight(more, "\n"); more != "" {
			b.WriteString(indent(more, "    "))
		}
		if f.Hint == "" {
			continue
		}
		first, more, _ = strings.Cut(strings.TrimSpace(Clean(f.Hint)), "\n")
		fmt.Fprintf(&b, "  %s %s\n", paint.Paint(Green, "→"), first)
		if more != "" {
			b.WriteString(indent(more, "    "))
		}
	}
	_, _ = io.WriteString(w, b.String()) // there is nobody left to tell
}

// WriteWarning writes one line that a person should look at.
func WriteWarning(w io.Writer, paint Painter, text string) {
	first, more, _ := strings.Cut(strings.TrimSpace(Clean(text)), "\n")
	s := paint.Paint(Yellow, "conductor: warning:") + " " + first + "\n"
	if more != "" {
		s += indent(more, "    ")
	}
	_, _ = io.WriteString(w, s) // there is nobody left to tell
}

func indent(s, by string) string {
	return by + strings.ReplaceAll(s, "\n", "\n"+by) + "\n"
}
