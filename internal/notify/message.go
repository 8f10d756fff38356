package notify

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Message is all that changed within a moment.
type Message struct {
	ID    string // random; the same whenever the message is sent again
	At    time.Time
	Lines []Line // at least one
	// Lost is how many changes before these the target was not told, since too
	// many waited or a message could not be sent.
	Lost int
}

// Line is what there is to say of one service, or one of its jobs. The Change
// is the last one; its Text is that of what was bad where that says more.
type Line struct {
	Change
	Was   Kind      // of one that recovered: what it was
	Since time.Time // and since when
	Times int       // how many changes are in the line, from 1
}

const (
	textBound = 300 // of a change's Text, in characters
	wordBound = 100 // of its other parts
	bodyBound = 100 // of a message, in lines
)

// clean makes everything one line of a bounded length.
func (c Change) clean() Change {
	c.Text = oneLine(c.Text, textBound)
	for _, s := range []*string{&c.Host, &c.Service, &c.Revision, &c.Job} {
		*s = oneLine(*s, wordBound)
	}
	return c
}

func oneLine(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, ""))
	s = strings.Join(strings.Fields(s), " ")
	if rs := []rune(s); len(rs) > most {
		s = string(rs[:most-1]) + "…"
	}
	return s
}

// summary is how the kinds are counted in a subject, in its order.
var summary = []struct {
	kind      Kind
	one, many string // %s: the service, %d: how many
}{
	{EngineGone, "the engine is gone", "%d engines are gone"},
	{Crashing, "%s is crashing", "%d services are crashing"},
	{Sick, "%s is sick", "%d services are sick"},
	{FailedUpgrade, "an upgrade of %s failed", "%d upgrades failed"},
	{FailedRun, "a run of %s failed", "%d runs failed"},
	{EngineBack, "the engine is back", "%d engines are back"},
	{Recovered, "%s has recovered", "%d have recovered"},
	{Deployed, "%s was deployed", "%d services were deployed"},
}

func (k Kind) rank() int {
	for i, s := range summary {
		if s.kind == k {
			return i
		}
	}
	return len(summary)
}

// Subject says in one line what happened and where.
func (m Message) Subject() string {
	var parts []string
	for _, s := range summary {
		var found []Line
		for _, l := range m.Lines {
			if l.Kind == s.kind {
				found = append(found, l)
			}
		}
		switch {
		case len(found) > 1:
			parts = append(parts, fmt.Sprintf(s.many, len(found)))
		case len(found) == 1 && strings.Contains(s.one, "%s"):
			parts = append(parts, fmt.Sprintf(s.one, found[0].name()))
		case len(found) == 1:
			parts = append(parts, s.one)
		}
	}
	return m.where() + ": " + strings.Join(parts, ", ")
}

// Body has a line for each service, the bad first, and not too many.
func (m Message) Body() string {
	several := len(m.hosts()) > 1
	var b strings.Builder
	for i, l := range m.Lines {
		if i == bodyBound {
			fmt.Fprintf(&b, "and %d more\n", len(m.Lines)-i)
			break
		}
		host := ""
		if several {
			host = l.Host + " "
		}
		fmt.Fprintf(&b, "%s %s%s\n", l.At.Format(time.TimeOnly), host, l)
	}
	if m.Lost > 0 {
		fmt.Fprintf(&b, "%d changes before these could not be told\n", m.Lost)
	}
	return b.String()
}

// String is the line in words, without its host and time.
func (l Line) String() string {
	name := l.name()
	if l.Revision != "" && l.Kind != FailedUpgrade {
		name += " (" + l.Revision + ")"
	}
	var s string
	switch l.Kind {
	case Recovered:
		s = fmt.Sprintf("%s has recovered, %s for %s", name, l.Was.past(), span(l.At.Sub(l.Since)))
	case EngineBack:
		s = fmt.Sprintf("the engine is back, was gone for %s", span(l.At.Sub(l.Since)))
	case EngineGone:
		s = "the engine is gone"
	case FailedUpgrade:
		s = fmt.Sprintf("the upgrade of %s to %s failed", name, cmp.Or(l.Revision, "another revision"))
	case Deployed:
		s = name + " was deployed"
	case FailedRun:
		s = fmt.Sprintf("a run of %s failed", name)
	default:
		s = fmt.Sprintf("%s is %s", name, l.Kind)
	}
	switch {
	case l.Times > 1 && (Change{Kind: l.Kind, Job: l.Job}).happens():
		s += fmt.Sprintf(" %d times", l.Times)
	case l.Times > 1 && l.Was == "":
		s += fmt.Sprintf(", after %d changes", l.Times)
	}
	if l.Text != "" {
		s += ": " + l.Text
	}
	return s
}

// past is what is said of one that was that.
func (k Kind) past() string {
	if k == FailedRun {
		return "had failed"
	}
	return "was " + string(k)
}

// name is the service, and its job.
func (l Line) name() string {
	switch {
	case l.Service == "":
		return "the host"
	case l.Job != "":
		return l.Service + " " + l.Job
	}
	return l.Service
}

// where names one host or two, or counts them.
func (m Message) where() string {
	hosts := m.hosts()
	if len(hosts) > 2 {
		return fmt.Sprintf("%d hosts", len(hosts))
	}
	return strings.Join(hosts, ", ")
}

func (m Message) hosts() []string {
	var hosts []string
	for _, l := range m.Lines {
		hosts = append(hosts, l.Host)
	}
	slices.Sort(hosts)
	return slices.Compact(hosts)
}

// span is a time as a person says it.
func span(d time.Duration) string {
	if d < time.Second {
		return "less than a second"
	}
	s := d.Round(time.Second).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
