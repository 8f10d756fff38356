package remote

import (
	"errors"
	"fmt"
	"strings"
	"unicode"

	"conductor/internal/fault"
)

// ExitError: the host's conductor ended with an exit code other than 0.
type ExitError struct {
	Host   string // its name
	Code   int
	Text   string // why, in the far end's words; may be empty
	Stderr string // its last lines, fit for a terminal; may be empty
}

func (e *ExitError) Error() string {
	s := e.Text
	if s == "" {
		s = e.Stderr
	}
	if s == "" {
		s = fmt.Sprintf("exit code %d", e.Code)
	}
	return e.Host + ": " + s
}

// classes are the exit codes of conductor that say what kind of failure it was.
// internal/cli has the table that they are taken from.
var classes = []struct {
	code  int
	class error
}{
	{2, fault.ErrUsage}, {3, fault.ErrDefinition}, {4, fault.ErrImage}, {5, fault.ErrUnhealthy}, {6, fault.ErrProxyRefused},
	{7, fault.ErrLocked}, {8, fault.ErrUnreachable}, {9, fault.ErrHost}, {124, fault.ErrTimeout}, {130, fault.ErrInterrupted},
}

// Err is the ending as an error of Do; nil where all went well.
func (e Ending) Err(host Host, do Do, stderr string) error {
	if e.Code == 0 {
		return nil
	}
	exit := &ExitError{Host: host.Name, Code: e.Code, Text: e.Error, Stderr: LastLines(stderr)}
	if do != Exec || e.Error != "" {
		for _, c := range classes {
			if c.code == e.Code {
				return &fault.Error{Class: c.class, Hint: e.Hint, Err: exit}
			}
		}
	}
	return exit
}

// EndingOf is how a far end says that it ended with the error; code is the exit
// code of an error that is no *ExitError.
func EndingOf(err error, code func(error) int) Ending {
	if err == nil {
		return Ending{}
	}
	if exit, ok := errors.AsType[*ExitError](err); ok {
		return Ending{Code: exit.Code, Error: exit.Text, Hint: fault.Hint(err)}
	}
	return Ending{Code: code(err), Error: err.Error(), Hint: fault.Hint(err)}
}

// ClassCode is the exit code of the class of an error, 1 where it has none.
func ClassCode(err error) int {
	for _, c := range classes {
		if errors.Is(err, c.class) {
			return c.code
		}
	}
	return 1
}

// LastLines are the last lines of what a program said, fit for a terminal.
func LastLines(s string) string {
	const lines, width = 10, 500
	var kept []string
	for line := range strings.Lines(strings.ToValidUTF8(s, "\uFFFD")) {
		line = strings.TrimRightFunc(strings.Map(func(r rune) rune {
			if r == '\t' {
				return ' '
			}
			if !unicode.IsPrint(r) {
				return -1
			}
			return r
		}, line), unicode.IsSpace)
		if line != "" {
			kept = append(kept, cut(line, width))
		}
	}
	return strings.Join(kept[max(0, len(kept)-lines):], "\n")
}
