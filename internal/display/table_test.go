package display

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func table(width int, paint Painter) string {
	t := &Table{Indent: "  ", Width: width, Paint: paint, Columns: []Column{
		{Title: "SLOT"}, {Title: "HEALTH"}, {Title: "MEMORY", Right: true, Rank: 2}, {Title: "EMPTY"}, {Title: "ADDRESS", Rank: 3}, {Title: "INSTANCE", Rank: 1},
	}}
	t.Row(Cell{Text: "1"}, Cell{"healthy", Green}, Cell{Text: "118M/512M"}, Cell{}, Cell{Text: "172.18.0.4"}, Cell{Text: "shop.v2.1a2b-1-1"})
	t.Row(Cell{Text: "2"}, Cell{"unhealthy", Red}, Cell{Text: "9M"}, Cell{}, Cell{}, Cell{Text: "shop.v2.1a2b-\x1b[2J2-1"})
	t.Note(Dim, "GET :3000/health:\n500")
	t.Row(Cell{Text: "3"}, Cell{Text: "exited"}, Cell{}, Cell{}, Cell{}, Cell{})
	var b strings.Builder
	if err := t.Write(&b); err != nil {
		panic(err)
	}
	return b.String()
}

func TestTable_Golden(t *testing.T) {
	golden(t, "table-wide", table(0, false))
	golden(t, "table-narrow", table(50, false))
	golden(t, "table-color", table(0, true))
}

// Columns go until it fits; those that matter most stay at any width.
func TestTable_FitsTheTerminal(t *testing.T) {
	for width := 20; width < 100; width++ {
		out := table(width, false)
		for i, line := range strings.Split(out, "\n") {
			if n := utf8.RuneCountInString(line); n > width && i != 3 {
				t.Errorf("width %d: a line of %d: %q", width, n, line)
			}
			if strings.TrimRight(line, " ") != line {
				t.Errorf("width %d: spaces at the end of %q", width, line)
			}
		}
		if !strings.Contains(out, "SLOT") || !strings.Contains(out, "unhealthy") {
			t.Errorf("width %d: lost what matters:\n%s", width, out)
		}
	}
}
