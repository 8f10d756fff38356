package schedule

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Schedule is the meaning of the time fields of a job. Schedules that are equal
// (==) name the same times.
type Schedule struct {
	minute, hour, dom, month, dow uint64 // bit n: the number n is in the field

	// Whether the minute or the hour begins with a *, be it */5: such a job
	// goes by what the clock shows, however it got there.
	wildcard bool
	// Whether a day field begins with a *: then both day fields must match,
	// else either.
	bothDays bool
	reboot   bool
}

// field is what may be in one of the five fields.
type field struct {
	name      string
	low, high int
	names     []string // the first stands for low
}

var fields = [5]field{
	{name: "minute", low: 0, high: 59},
	{name: "hour", low: 0, high: 23},
	{name: "day of month", low: 1, high: 31},
	{name: "month", low: 1, high: 12, names: []string{
		"jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"}},
	{name: "day of week", low: 0, high: 7, names: []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat", "sun"}},
}

// What the nicknames stand for. @daily is not a wildcard, @hourly is.
var nicknames = map[string]string{
	"@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *", "@weekly": "0 0 * * 0",
	"@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}

const blanks = " \t"

// parseSchedule reads the time fields or the nickname that a line begins with,
// and returns them also as written, and what comes after them.
func parseSchedule(text string) (s Schedule, written, rest string, problem *Problem) {
	if strings.HasPrefix(text, "@") {
		written, rest = word(text)
		if written == "@reboot" {
			return Schedule{reboot: true}, written, rest, nil
		}
		meaning, ok := nicknames[written]
		if !ok {
			return s, written, rest, bad("cron knows @reboot, @yearly, @annually, @monthly, @weekly, @daily, @midnight and @hourly",
				"unknown time %s", brief(written))
		}
		s, _, _, problem = parseSchedule(meaning)
		return s, written, rest, problem
	}
	sets := [5]*uint64{&s.minute, &s.hour, &s.dom, &s.month, &s.dow}
	var stars [5]bool
	rest = text
	for i, f := range fields {
		var w string
		written = strings.TrimRight(text[:len(text)-len(rest)], blanks)
		w, rest = word(rest)
		if *sets[i], problem = f.parse(w); problem != nil {
			return s, written, rest, problem
		}
		stars[i] = strings.HasPrefix(w, "*")
	}
	written = strings.TrimRight(text[:len(text)-len(rest)], blanks)
	if s.dow&(1<<0|1<<7) != 0 {
		s.dow |= 1<<0 | 1<<7
	}
	s.wildcard = stars[0] || stars[1]
	s.bothDays = stars[2] || stars[4]
	return s, written, rest, nil
}

// word cuts text after its first word and the blanks that follow.
func word(text string) (first, rest string) {
	if i := strings.IndexAny(text, blanks); i >= 0 {
		return text[:i], strings.TrimLeft(text[i:], blanks)
	}
	return text, ""
}

// parse reads a list of numbers, names, ranges and steps. As cron does, it
// stops without complaint at the first character that cannot go on the list.
func (f field) parse(text string) (uint64, *Problem) {
	if text == "" {
		return 0, bad("five fields come before a command: minute, hour, day of month, month, day of week",
			"there is no %s", f.name)
	}
	refuse := func(hint, format string, args ...any) (uint64, *Problem) {
		return 0, bad(hint, "%s %s: %s", f.name, brief(text), fmt.Sprintf(format, args...))
	}
	var set uint64
	var backwards string // how to write a range that matches nothing
	rest := text
	for {
		first, last, step := f.low, f.high, 1
		var reason string
		isRange := true
		if strings.HasPrefix(rest, "*") {
			rest = rest[1:]
		} else {
			if first, rest, reason = f.number(rest); reason != "" {
				return refuse("", "%s", reason)
			}
			if isRange = strings.HasPrefix(rest, "-"); isRange {
				last, rest, reason = f.number(rest[1:])
			} else {
				last = first
			}
			if reason != "" {
				return refuse("", "%s", reason)
			}
		}
		if strings.HasPrefix(rest, "/") {
			if !isRange {
				return refuse(fmt.Sprintf("write %d-%d%s", first, f.high, rest), "a step needs a range before it")
			}
			if step, rest, reason = (field{}).number(rest[1:]); reason != "" || step == 0 {
				return refuse("", "the step must be a number from 1")
			}
		}
		if first < f.low || first > f.high || last < f.low || last > f.high {
			return refuse("", "it goes from %d to %d", f.low, f.high)
		}
		if first > last {
			backwards = fmt.Sprintf("%d-%d,%d-%d", first, f.high, f.low, last)
		}
		for n := first; n <= last; n += step {
			set |= 1 << n
		}
		if !strings.HasPrefix(rest, ",") {
			break
		}
		rest = rest[1:]
	}
	if set == 0 {
		return refuse("write "+backwards, "cron takes a range that goes down for an empty one, so nothing matches")
	}
	return set, nil
}

// number reads the number or name that text begins with; reason says why there
// is none.
func (f field) number(text string) (n int, rest, reason string) {
	end := 0
	for end < len(text) && isAlphanumeric(text[end]) {
		end++
	}
	w, rest := text[:end], text[end:]
	for i, name := range f.names {
		if strings.EqualFold(name, w) {
			return f.low + i, rest, ""
		}
	}
	switch n, err := strconv.Atoi(w); {
	case w == "" && text == "":
		return 0, rest, "a number is missing at the end"
	case w == "":
		return 0, rest, fmt.Sprintf("a number is missing before %s", brief(text))
	case strings.Trim(w, "0123456789") != "" && f.names != nil:
		return 0, rest, fmt.Sprintf("%s is neither a number nor a name", brief(w))
	case strings.Trim(w, "0123456789") != "":
		return 0, rest, fmt.Sprintf("%s is not a number", brief(w))
	case err != nil || n > math.MaxInt32-64 || len(w) > maxNumber: // cron adds to it without looking
		return 0, rest, fmt.Sprintf("%s is too large", brief(w))
	default:
		return n, rest, ""
	}
}

func isAlphanumeric(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z'
}
