package spec

import (
	"errors"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// The forms of single values: text, words, numbers, times and sizes.

// text is one line of text, written as a string.
func text() form[string] {
	return form[string]{schema: schema{"type": "string", "minLength": 1}, read: func(v value) (string, bool) {
		s, ok := v.scalar()
		if ok && v.plain() && (v.node.Tag == "!!int" || v.node.Tag == "!!float" || v.node.Tag == "!!bool") {
			v.mustBe("text", "put quotes around it")
			return "", false
		}
		if !ok {
			v.mustBe("text", "")
			return "", false
		}
		return s, v.clean(s)
	}}
}

// scalar is one line of text, however YAML would read it: 010 and yes stay as
// they are written.
func scalar() form[string] {
	return form[string]{schema: scalarSchema(), read: func(v value) (string, bool) {
		s, ok := v.scalar()
		if !ok {
			v.mustBe("text", "")
			return "", false
		}
		return s, v.clean(s)
	}}
}

func scalarSchema() schema { return schema{"type": []string{"string", "number", "boolean"}} }

// argument is a word of a command line: anything, lines too, but no NUL.
func argument() form[string] {
	return form[string]{schema: scalarSchema(), read: func(v value) (string, bool) {
		s, ok := v.scalar()
		if !ok {
			v.mustBe("text", "")
			return "", false
		}
		if strings.ContainsRune(s, 0) {
			v.fail("", "must not have a NUL character in it")
			return "", false
		}
		return s, true
	}}
}

// clean refuses what must never reach a label, a path or a line of another
// program's configuration.
func (v value) clean(s string) bool {
	if s == "" {
		v.mustBe("text", "remove the key, or give it a value")
		return false
	}
	if r, ok := dirty(s); ok {
		v.fail("", "must not have the control character %U in it", r)
		return false
	}
	return true
}

// dirty finds a control character or line separator.
func dirty(s string) (rune, bool) {
	for _, r := range s {
		if unicode.IsControl(r) || r == '\u2028' || r == '\u2029' {
			return r, true
		}
	}
	return 0, false
}

// matching narrows a form of text to a pattern, said in words.
func matching(f form[string], re *regexp.Regexp, want, hint string) form[string] {
	s := f.schema
	if s["type"] == "string" {
		s = schema{"type": "string", "pattern": re.String()}
	}
	return form[string]{schema: s, read: func(v value) (string, bool) {
		s, ok := f.read(v)
		if ok && !re.MatchString(s) {
			v.mustBe(want, hint)
			return "", false
		}
		return s, ok
	}}
}

// oneOf is one of a few words.
func oneOf[T ~string](words ...T) form[T] {
	known := make([]string, len(words))
	for i, w := range words {
		known[i] = string(w)
	}
	return form[T]{schema: schema{"enum": known}, read: func(v value) (T, bool) {
		s, ok := v.scalar()
		if !ok || !slices.Contains(known, s) {
			v.mustBe(alternatives(known), didYouMean(s, known))
			return "", false
		}
		return T(s), true
	}}
}

// alternatives lists words: a, b or c.
func alternatives(words []string) string {
	last := len(words) - 1
	if last < 1 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:last], ", ") + " or " + words[last]
}

// boolean is true or false, and not one of YAML 1.1's many other words.
func boolean() form[bool] {
	return form[bool]{schema: schema{"type": "boolean"}, read: func(v value) (bool, bool) {
		s, ok := v.scalar()
		if !ok || !v.plain() || s != "true" && s != "false" {
			v.mustBe("true or false", "")
			return false, false
		}
		return s == "true", true
	}}
}

var digits = regexp.MustCompile(`^(0|-?[1-9][0-9]*)$`)

// integer is a number in decimal digits, within bounds.
func integer[T ~int | ~int64 | ~uint16](low, high int64) form[T] {
	return form[T]{schema: schema{"type": "integer", "minimum": low, "maximum": high}, read: func(v value) (T, bool) {
		s, ok := v.scalar()
		if ok && !v.plain() && digits.MatchString(s) {
			v.mustBe("a number", "remove the quotes")
			return 0, false
		}
		n, ok := parseInteger(s, low, high)
		if !ok {
			hint := ""
			if v.node.Tag == "!!int" && !digits.MatchString(s) {
				hint = "write decimal digits alone"
			}
			v.mustBe("a number "+between(low, high), hint)
			return 0, false
		}
		return T(n), true
	}}
}

func parseInteger(s string, low, high int64) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && digits.MatchString(s) && n >= low && n <= high
}

func between(low, high int64) string {
	if high > 1<<40 {
		return "of at least " + strconv.FormatInt(low, 10)
	}
	return "from " + strconv.FormatInt(low, 10) + " to " + strconv.FormatInt(high, 10)
}

// span is a time within bounds, written as Compose does: 1m30s, 500ms.
func span(low, high time.Duration) form[Duration] {
	pattern := `^([0-9]+(\.[0-9]+)?(us|µs|ms|s|m|h))+$`
	re := regexp.MustCompile(pattern)
	return form[Duration]{schema: schema{"type": "string", "pattern": pattern}, read: func(v value) (Duration, bool) {
		s, ok := v.scalar()
		t, err := time.ParseDuration(s)
		switch {
		case ok && digits.MatchString(s):
			v.mustBe("a time with its unit", "write "+s+"s for seconds")
			return 0, false
		case !ok || err != nil || !re.MatchString(s):
			v.mustBe("a time such as 500ms, 10s or 1m30s", "")
			return 0, false
		case t < low || t > high:
			v.mustBe("a time from "+short(low)+" to "+short(high), "")
			return 0, false
		}
		return Duration(t), true
	}}
}

// short writes a time without the zeros that Go adds: 24h, not 24h0m0s.
func short(t time.Duration) string {
	s := t.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

var sizeGrammar = regexp.MustCompile(`^([0-9]+(?:\.[0-9]+)?) ?([bkmgtBKMGT]?)[bB]?$`)

// size is a number of bytes with a unit of 1024s, as Compose has it: 512m, 1gb.
func size(low int64) form[int64] {
	s := schema{"anyOf": []schema{
		{"type": "integer", "minimum": low},
		{"type": "string", "pattern": sizeGrammar.String()},
	}}
	return form[int64]{schema: s, read: func(v value) (int64, bool) {
		s, ok := v.scalar()
		n, valid := parseSize(s)
		switch {
		case !ok || !valid:
			v.mustBe("a size such as 512m or 1g", "units are b, k, m, g and kb, mb, gb")
			return 0, false
		case n < low:
			v.mustBe("at least "+sizeText(low), "units are b, k, m, g and kb, mb, gb")
			return 0, false
		}
		return n, true
	}}
}

// leastMemory is what the engine gives a container at least, in bytes.
const leastMemory = 6 << 20

// ParseMemory reads a limit of memory in bytes, as limits.memory has it.
func ParseMemory(s string) (int64, error) {
	n, ok := parseSize(s)
	if !ok {
		return 0, errors.New("it is a size such as 512m or 1g")
	}
	if n < leastMemory {
		return 0, errors.New("it is at least " + sizeText(leastMemory))
	}
	return n, nil
}

// sizeText writes a size with the largest unit that leaves no rest.
func sizeText(n int64) string {
	unit := ""
	for _, u := range []string{"k", "m", "g"} {
		if n < 1024 || n%1024 != 0 {
			break
		}
		n, unit = n/1024, u
	}
	return strconv.FormatInt(n, 10) + unit
}

func parseSize(s string) (int64, bool) {
	m := sizeGrammar.FindStringSubmatch(s)
	if m == nil || len(m[1]) > 1 && m[1][0] == '0' && m[1][1] != '.' {
		return 0, false
	}
	f, err := strconv.ParseFloat(m[1], 64)
	if err != nil {
		return 0, false
	}
	for _, unit := range "kmgt" {
		if m[2] == "" || strings.EqualFold(m[2], "b") {
			break
		}
		f *= 1024
		if strings.EqualFold(m[2], string(unit)) {
			break
		}
	}
	if f > 1<<62 {
		return 0, false
	}
	return int64(f), true
}
