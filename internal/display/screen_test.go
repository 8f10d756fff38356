package display

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
)

// screen is as much of a terminal as a Board needs. What scrolls out of it is in
// gone. Lines that do not fit in a smaller width are wrapped, as terminals do.
type screen struct {
	mu            sync.Mutex
	t             *testing.T
	width, height int
	rows          [][]rune
	wrapped       []bool // the row goes on in the next one
	x, y          int
	gone          []string
	noWrap        bool
	hidden        bool // the cursor
	style         bool
}

func newScreen(t *testing.T, width, height int) *screen {
	s := &screen{t: t, width: width, height: height}
	s.need()
	return s
}

// need makes rows down to the cursor, and scrolls it into the screen.
func (s *screen) need() {
	for len(s.rows) <= s.y {
		s.rows, s.wrapped = append(s.rows, nil), append(s.wrapped, false)
	}
	for len(s.rows) > s.height {
		s.gone = append(s.gone, string(s.rows[0]))
		s.rows, s.wrapped = s.rows[1:], s.wrapped[1:]
		s.y--
	}
}

func (s *screen) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := string(b)
	for len(text) > 0 {
		if rest, ok := strings.CutPrefix(text, "\x1b["); ok {
			end := strings.IndexFunc(rest, func(r rune) bool { return r >= '@' && r <= '~' })
			s.control(rest[:end], rest[end])
			text = rest[end+1:]
			continue
		}
		r := []rune(text)[0]
		text = text[len(string(r)):]
		s.put(r)
	}
	if s.hidden || s.noWrap || s.style {
		s.t.Errorf("after a write the terminal is not as it was: %q", b)
	}
	return len(b), nil
}

func (s *screen) control(args string, final byte) {
	n := 1
	fmt.Sscanf(args, "%d", &n)
	switch final {
	case 'A':
		s.y = max(s.y-n, 0)
	case 'J':
		s.rows[s.y] = s.rows[s.y][:min(s.x, len(s.rows[s.y]))]
		s.rows, s.wrapped = s.rows[:s.y+1], s.wrapped[:s.y+1]
	case 'K':
		s.rows[s.y] = s.rows[s.y][:min(s.x, len(s.rows[s.y]))]
		s.wrapped[s.y] = false
	case 'm':
		s.style = args != "0"
	case 'h', 'l':
		switch on := final == 'h'; args {
		case "?25":
			s.hidden = !on
		case "?7":
			s.noWrap = !on
		case "?2026":
		default:
			s.t.Errorf("unknown mode %s", args)
		}
	default:
		s.t.Errorf("unknown sequence %s%c", args, final)
	}
}

func (s *screen) put(r rune) {
	switch r {
	case '\n':
		s.x, s.y = 0, s.y+1
	case '\r':
		s.x = 0
	default:
		if s.x == s.width {
			if s.noWrap {
				s.x--
			} else {
				s.wrapped[s.y] = true
				s.x, s.y = 0, s.y+1
				s.need()
			}
		}
		row := s.rows[s.y]
		for len(row) <= s.x {
			row = append(row, ' ')
		}
		row[s.x] = r
		s.rows[s.y] = row
		s.x++
	}
	s.need()
}

// resize wraps what is there anew.
func (s *screen) resize(width, height int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rows, wrapped, y := s.rows, s.wrapped, s.y
	s.width, s.height, s.rows, s.wrapped, s.x, s.y = width, height, nil, nil, 0, 0
	s.need()
	for n, row := range rows {
		if n == y {
			break // the cursor is at the start of a row of its own
		}
		for _, r := range row {
			s.put(r)
		}
		if !wrapped[n] {
			s.put('\n')
		}
	}
}

func (s *screen) size() (width, height int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.width, s.height
}

// String is what there is to be seen, and what has scrolled out of it.
func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := slices.Clone(s.gone)
	for _, r := range s.rows {
		all = append(all, strings.TrimRight(string(r), " "))
	}
	return strings.Join(all, "\n")
}
