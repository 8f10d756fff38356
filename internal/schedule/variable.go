package schedule

import (
	"regexp"
	"strings"
)

// What cron takes for a blank in the line of a variable.
const spaces = " \t\n\v\f\r"

// parseVariable reads a line that begins with no blank as cron does, which
// tries this first with every line: NAME = VALUE, each with or without quotes.
func parseVariable(text string) (Variable, bool) {
	text = text[:min(len(text), maxVariable)]
	var v Variable
	if text[0] == '\'' || text[0] == '"' {
		end := strings.IndexByte(text[1:], text[0])
		if end < 0 || strings.Contains(text[1:1+end], "=") {
			return v, false
		}
		v.Name, text = text[1:1+end], text[end+2:]
	} else {
		end := strings.IndexAny(text, spaces+"=")
		if end < 0 {
			return v, false
		}
		v.Name, text = text[:end], text[end:]
	}
	text, ok := strings.CutPrefix(strings.TrimLeft(text, spaces), "=")
	text = strings.TrimLeft(text, spaces)
	if !ok || text == "" {
		return v, false
	}
	if text[0] == '\'' || text[0] == '"' {
		end := strings.IndexByte(text[1:], text[0])
		if end < 0 || strings.Trim(text[end+2:], spaces) != "" {
			return v, false
		}
		v.Value = text[1 : 1+end]
	} else {
		v.Value = text
	}
	// Blanks at the end are lost, those between quotes too, and then a second
	// pair of quotes.
	v.Value = strings.TrimRight(v.Value, spaces)
	if n := len(v.Value); quoted(v.Value) {
		v.Value = v.Value[1 : n-1]
	}
	return v, true
}

// quoted tells whether s begins and ends with the same quote.
func quoted(s string) bool {
	n := len(s)
	return n >= 2 && (s[0] == '\'' || s[0] == '"') && s[n-1] == s[0]
}

// A shell is called by name in each job's line.
var plainPath = regexp.MustCompile(`^/[A-Za-z0-9_./+-]+$`)

// check refuses what cron would take and nobody means. text is the line.
func (v Variable) check(text string) *Problem {
	switch {
	case len(text) > maxVariable:
		return bad("set it in the service's environment",
			"the line of the variable %s has %d bytes, and cron cuts it off after %d", brief(v.Name), len(text), maxVariable)
	case v.Name == "":
		return bad("write NAME=VALUE", "the variable has no name")
	case v.Name == "SHELL" && !plainPath.MatchString(v.Value):
		return bad("write SHELL=/bin/sh, or another absolute path of letters, digits and ._+-",
			"SHELL is %s, not the absolute path of a shell", brief(v.Value))
	}
	return nil
}

// String is the variable as a line of a crontab, which Parse and cron read as
// the same value. Every value that Parse returns can be written; the name must
// have no blank or quote in it.
func (v Variable) String() string {
	if q := v.quote(); q != "" {
		return v.Name + "=" + q
	}
	return v.Name + "=" + v.Value
}

// quote is the value between the quotes that it needs, or "" if it needs none.
func (v Variable) quote() string {
	s := v.Value
	ragged := s != strings.TrimRight(s, spaces)
	if s != "" && !ragged && !strings.ContainsAny(s[:1], spaces+`'"`) {
		return ""
	}
	outer, inner := `"`, `'`
	if strings.Contains(s, outer) {
		outer, inner = inner, outer
	}
	if ragged || quoted(s) {
		s = inner + s + inner
	}
	return outer + s + outer
}

// cronOwn are the variables that cron itself reads, Debian's or another. They
// act on the mail and the times of the jobs, and on nothing that runs.
// LOGNAME has no effect: cron sets it after all others.
var cronOwn = map[string]bool{
	"MAILTO": true, "MAILFROM": true, "CONTENT_TYPE": true, "CONTENT_TRANSFER_ENCODING": true,
	"CRON_TZ": true, "RANDOM_DELAY": true, "LOGNAME": true,
}
