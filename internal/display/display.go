// Package display shows what a command does and how it ended: to a person
// (plain lines, with colour on a terminal), to a program (JSON lines), or, when
// it shall be quiet, only what went wrong.
//
// It takes events and plain text, and writes; it decides nothing. It imports
// event alone; cli uses it, and it has the few forms (tables, ages, sizes) that
// cli's answers are written in.
package display

import (
	"fmt"
	"io"
	"time"

	"conductor/internal/event"
)

// Mode is the form of the output.
type Mode string

const (
	TTY   Mode = "tty"   // lines for a person at a terminal, with colour
	Plain Mode = "plain" // the same lines without colour
	JSON  Mode = "json"  // one object a line
	Quiet Mode = "quiet" // only what went wrong
)

// Modes are all that --output takes, in the order of its help.
var Modes = []Mode{TTY, Plain, JSON, Quiet}

// Display is where one command's progress and end are shown. Its methods are
// safe for concurrent use; End is called once, last.
type Display interface {
	// Event shows one thing that happened. It is an event.Sink.
	Event(e event.Event)
	// End shows how the command ended.
	End(r Result)
}

// Result is how a command ended.
type Result struct {
	Code     int       // exit code
	Failures []Failure // none: it went well
	Summary  []string  // lines for people, one for each service
	Outcomes any       // the same for programs; nil: none
}

// Failure is one thing that went wrong.
type Failure struct {
	Text string // may have more lines, a diagnosis for instance
	Hint string // the next thing to do; may be empty
}

// Options say where and how to show.
type Options struct {
	Mode     Mode
	Out, Err io.Writer
	Color    bool      // paint: a terminal that wants colour
	Start    time.Time // when the command began; plain lines show the time since
}

// New returns the display of the mode.
func New(o Options) Display {
	switch o.Mode {
	case JSON:
		return &jsonLines{out: o.Out, err: o.Err}
	case Quiet:
		return &quiet{err: o.Err, paint: Painter(o.Color)}
	default:
		return &plain{o: o, paint: Painter(o.Color), width: subjectMin}
	}
}

// ParseMode reads what was given to --output.
func ParseMode(s string) (Mode, error) {
	for _, m := range Modes {
		if s == string(m) {
			return m, nil
		}
	}
	return "", fmt.Errorf("%q is none of tty, plain, json, quiet", s)
}
