package schedule

import (
	"fmt"
	"strings"
)

// Problem is what is wrong with one line of a crontab.
type Problem struct {
	Line    int    // from 1
	Message string // what was seen
	Hint    string // what to write instead; may be empty
}

// String is the line's number, the message, and the hint on a line of its own.
func (p Problem) String() string {
	s := fmt.Sprintf("line %d: %s", p.Line, p.Message)
	if p.Hint != "" {
		s += "\n    hint: " + p.Hint
	}
	return s
}

// Problems are all bad lines of a crontab, in order.
type Problems []Problem

func (ps Problems) Error() string {
	lines := make([]string, len(ps))
	for i, p := range ps {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// err is the problems as an error, nil where there are none.
func (ps Problems) err() error {
	if len(ps) == 0 {
		return nil
	}
	return ps
}

// bad returns a problem whose line is not known yet.
func bad(hint, format string, args ...any) *Problem {
	return &Problem{Message: fmt.Sprintf(format, args...), Hint: hint}
}

// brief is s quoted, and cut where it is long.
func brief(s string) string {
	const long = 60
	if len(s) > long {
		return fmt.Sprintf("%q…", strings.ToValidUTF8(s[:long], ""))
	}
	return fmt.Sprintf("%q", s)
}
