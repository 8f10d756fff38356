package display

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Painter paints text for a terminal where it is true.
type Painter bool

// Style is a terminal's way to show text: the number of its escape sequence.
type Style string

const (
	None   Style = ""
	bold   Style = "1"
	Dim    Style = "2"
	Red    Style = "31"
	Green  Style = "32"
	Yellow Style = "33"
)

// Paint returns s in the style.
func (p Painter) Paint(st Style, s string) string {
	if !p || st == None || s == "" {
		return s
	}
	return "\x1b[" + string(st) + "m" + s + "\x1b[0m"
}

// Dim returns s so that it stands back.
func (p Painter) Dim(s string) string { return p.Paint(Dim, s) }

// Bold returns s so that it stands out.
func (p Painter) Bold(s string) string { return p.Paint(bold, s) }

// Clean takes out of text that comes from elsewhere (an application's log, an
// answer's body) all that could steer a terminal: escape sequences, control
// characters, marks that turn the writing direction. Line ends and tabs stay;
// bytes that are no UTF-8 become U+FFFD.
func Clean(s string) string {
	if isClean(s) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); {
		if s[i] == 0x1b {
			i += escape(s[i:])
			continue
		}
		r, n := utf8.DecodeRuneInString(s[i:])
		i += n
		if r == utf8.RuneError && n == 1 {
			b.WriteRune(utf8.RuneError)
			continue
		}
		if r == 0x9b || r == 0x9d || r == 0x90 { // the same sequences in one character
			i += body(s[i:], r != 0x9b)
			continue
		}
		if !steers(r) {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// CleanLine is Clean for text that shall stay one line.
func CleanLine(s string) string {
	s = Clean(s)
	if strings.ContainsAny(s, "\n\t") {
		s = strings.Join(strings.Fields(s), " ")
	}
	return s
}

func isClean(s string) bool {
	for _, r := range s {
		if steers(r) || r == utf8.RuneError {
			return false
		}
	}
	return true
}

func steers(r rune) bool {
	switch {
	case r == '\n' || r == '\t':
		return false
	case r < 0x20, r >= 0x7f && r <= 0x9f:
		return true
	case r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069, r == 0x200e, r == 0x200f:
		return true
	}
	return false
}

// escape returns the length of the escape sequence at the start of s.
func escape(s string) int {
	if len(s) < 2 {
		return len(s)
	}
	switch c := s[1]; {
	case c == '[':
		return 2 + body(s[2:], false)
	case strings.IndexByte("]PX^_", c) >= 0:
		return 2 + body(s[2:], true)
	case c >= 0x20 && c <= 0x2f: // intermediate bytes, then one final byte
		i := 2
		for i < len(s) && s[i] >= 0x20 && s[i] <= 0x2f {
			i++
		}
		return min(i+1, len(s))
	case c < 0x20 || c >= 0x7f:
		return 1
	}
	return 2
}

// body returns the length of the rest of a sequence whose beginning was read:
// of a string (to BEL or ST) or of a control sequence (to its final byte). A
// line end ends both, so that nothing swallows the lines after it.
func body(s string, isString bool) int {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '\n':
			return i
		case isString && c == 0x07:
			return i + 1
		case isString && c == 0x1b:
			if i+1 < len(s) && s[i+1] == '\\' {
				return i + 2
			}
			return i
		case !isString && c >= 0x40 && c <= 0x7e:
			return i + 1
		case !isString && (c < 0x20 || c > 0x7e):
			return i
		}
	}
	return len(s)
}

// Took writes how long something took: "310 ms", "1.2 s", "2 min 5 s".
func Took(d time.Duration) string {
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", max(d, 0).Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Hour:
		d = d.Round(time.Second)
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	}
	d = d.Round(time.Minute)
	return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
}

// Age writes a length of time with two units at most: 45s, 3m12s, 2h5m, 3d4h.
func Age(d time.Duration) string {
	d = max(d, 0)
	two := func(a int, ua string, b int, ub string) string {
		if b == 0 {
			return fmt.Sprintf("%d%s", a, ua)
		}
		return fmt.Sprintf("%d%s%d%s", a, ua, b, ub)
	}
	const day = 24 * time.Hour
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return two(int(d/time.Minute), "m", int(d%time.Minute/time.Second), "s")
	case d < day:
		return two(int(d/time.Hour), "h", int(d%time.Hour/time.Minute), "m")
	}
	return two(int(d/day), "d", int(d%day/time.Hour), "h")
}

// Bytes writes a size as limits are written, in powers of 1024: 512M, 1.5G.
func Bytes(n int64) string {
	if n < 1024 {
		return fmt.Sprintf("%dB", n)
	}
	v, units := float64(n), "BKMGTP"
	i := 0
	for v >= 1023.5 && i < len(units)-1 {
		v /= 1024
		i++
	}
	if v < 9.95 {
		return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0") + units[i:i+1]
	}
	return fmt.Sprintf("%.0f%c", v, units[i])
}

// Series are styles that tell a few things of one kind apart.
var Series = []Style{"36", "35", "34", "33", "32", "96", "95", "94"}
