package display

import (
	"io"
	"strings"
	"unicode/utf8"
)

// Table is a table that a person reads. Columns without content are left out,
// and where it is wider than the terminal the least important ones go first.
type Table struct {
	Columns []Column
	Indent  string
	Width   int // of the terminal; 0: as wide as it gets
	Paint   Painter
	rows    []row
}

// Column is one column of a Table.
type Column struct {
	Title string
	Right bool // align right
	// Rank says how much it matters: 0 is always shown, and the highest goes
	// first where room is short.
	Rank int
	// Least is how wide it is at least, also without content.
	Least int
	// Cut has its text shortened where room is short, before any column goes.
	Cut bool
}

// Cell is text with its style.
type Cell struct {
	Text  string
	Style Style
}

type row struct {
	cells []Cell
	note  string
	style Style
}

// Row adds a row, with a cell for each column.
func (t *Table) Row(cells ...Cell) { t.rows = append(t.rows, row{cells: cells}) }

// Note adds a line of text under the row before.
func (t *Table) Note(st Style, text string) {
	t.rows = append(t.rows, row{note: CleanLine(text), style: st})
}

// Write writes the table.
func (t *Table) Write(w io.Writer) error {
	widths, shown := t.layout()
	var b strings.Builder
	head := make([]Cell, len(t.Columns))
	for i, c := range t.Columns {
		head[i] = Cell{c.Title, Dim}
	}
	t.line(&b, head, widths, shown)
	for _, r := range t.rows {
		if r.cells == nil {
			b.WriteString(t.Indent + "   " + t.Paint.Paint(r.style, r.note) + "\n")
			continue
		}
		t.line(&b, r.cells, widths, shown)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

const gap = "  "

// cutLeast is what text is not cut below: less says nothing.
const cutLeast = 12

// layout finds the width of each column, and which columns are shown.
func (t *Table) layout() (widths []int, shown []bool) {
	widths, shown = make([]int, len(t.Columns)), make([]bool, len(t.Columns))
	for _, r := range t.rows {
		for i, c := range r.cells {
			if n := utf8.RuneCountInString(CleanLine(c.Text)); n > 0 {
				widths[i], shown[i] = max(widths[i], n), true
			}
		}
	}
	total := utf8.RuneCountInString(t.Indent) - len(gap)
	for i, c := range t.Columns {
		if widths[i] = max(widths[i], c.Least); c.Least > 0 {
			shown[i] = true
		}
		if shown[i] {
			widths[i] = max(widths[i], utf8.RuneCountInString(c.Title))
			total += widths[i] + len(gap)
		}
	}
	for i, c := range t.Columns {
		if over := total - t.Width; t.Width > 0 && over > 0 && shown[i] && c.Cut {
			less := min(over, max(widths[i]-cutLeast, 0))
			widths[i] -= less
			total -= less
		}
	}
	for t.Width > 0 && total > t.Width {
		worst := -1
		for i, c := range t.Columns {
			if shown[i] && c.Rank > 0 && (worst < 0 || c.Rank > t.Columns[worst].Rank) {
				worst = i
			}
		}
		if worst < 0 {
			break
		}
		shown[worst] = false
		total -= widths[worst] + len(gap)
	}
	return widths, shown
}

func (t *Table) line(b *strings.Builder, cells []Cell, widths []int, shown []bool) {
	b.WriteString(t.Indent)
	pending := "" // spaces are written when text follows: no line ends in them
	for i, c := range cells {
		if !shown[i] {
			continue
		}
		text := CleanLine(c.Text)
		if t.Columns[i].Cut {
			text = cut(text, widths[i])
		}
		pad := strings.Repeat(" ", max(widths[i]-utf8.RuneCountInString(text), 0))
		if t.Columns[i].Right {
			pending += pad
			pad = ""
		}
		if text != "" {
			b.WriteString(pending)
			b.WriteString(t.Paint.Paint(c.Style, text))
			pending = ""
		}
		pending += pad + gap
	}
	b.WriteByte('\n')
}
