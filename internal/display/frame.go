package display

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"
)

// Picture is what a Board shows below its lines: how something that is done on
// several hosts stands.
type Picture struct {
	Head []string // parts of the headline
	Rows []Row
}

// Row is how one host stands.
type Row struct {
	Name     string
	Runs     string // revision
	Will     string // that it is to run, "" where it runs that
	Balancer string // "in", "out"
	Doing    string // what is done there at the moment
	Cause    string // its, or of the mark
	Since    time.Time
	Mark     Mark
}

// Mark is what there is to say of a row at a glance.
type Mark string

const (
	Waits Mark = " " // nothing was done there
	Works Mark = "›" // something is under way
	Good  Mark = "✓" // it is where it should be
	Bad   Mark = "✗" // it failed
)

// Style is how the mark is shown.
func (m Mark) Style() Style {
	switch m {
	case Good:
		return Green
	case Bad:
		return Red
	}
	return None
}

const (
	// revisionWidth is how much of a revision a row shows: enough of a commit.
	revisionWidth = 14
	// doingWidth has room for the longest step and what has happened in it, so
	// that the columns stay where they are.
	doingWidth = 20
)

// frame draws the picture in a terminal of that size: some of its lines stay
// free for what is told above.
func (p Picture) frame(width, height int, elapsed time.Duration, now time.Time, paint Painter) []string {
	room := height - max(1, height/4)
	rows, others := p.chosen(room - 2)
	t := Table{Indent: " ", Width: width - 1, Paint: paint, Columns: []Column{
		{Least: 1}, {Title: "HOST"}, {Title: "RUNS"}, {Title: "BALANCER", Rank: 2}, {Title: "STEP", Least: doingWidth},
		{Title: "TIME", Right: true, Least: 5, Rank: 1}, {Cut: true, Rank: 3},
	}}
	for _, r := range p.Rows { // also of those that there is no room for
		t.Columns[1].Least = max(t.Columns[1].Least, utf8.RuneCountInString(CleanLine(r.Name)))
		t.Columns[2].Least = max(t.Columns[2].Least, utf8.RuneCountInString(r.runs()))
	}
	for _, r := range rows {
		since, dim := "", Dim
		if r.Doing != "" && !r.Since.IsZero() {
			since = Age(now.Sub(r.Since))
		}
		if r.Mark == Bad {
			dim = Red
		}
		t.Row(Cell{string(r.Mark), r.Mark.Style()}, Cell{Text: r.Name}, Cell{Text: r.runs()}, Cell{Text: r.Balancer},
			Cell{Text: r.Doing}, Cell{Text: since}, Cell{r.cause(), dim})
	}
	var b strings.Builder
	b.WriteString(p.head(width-1, elapsed, paint) + "\n")
	_ = t.Write(&b) // which takes all
	lines := strings.Split(strings.TrimSuffix(b.String(), "\n"), "\n")
	if others != "" {
		lines = append(lines, paint.Dim(cut("   "+others, width-1)))
	}
	return lines[:max(min(len(lines), room), 1)]
}

// head is the headline: its parts, how many rows are done, and the time.
func (p Picture) head(width int, elapsed time.Duration, paint Painter) string {
	good := 0
	for _, r := range p.Rows {
		if r.Mark == Good {
			good++
		}
	}
	parts := append(slices.Clone(p.Head), fmt.Sprintf("%d of %d done", good, len(p.Rows)), Age(elapsed))
	return paint.Bold(cut(CleanLine(strings.Join(parts, " · ")), width))
}

// runs is the column of revisions.
func (r Row) runs() string {
	now := cut(CleanLine(r.Runs), revisionWidth)
	if r.Will == "" {
		return now
	}
	if now == "" {
		now = "?"
	}
	return now + " → " + cut(CleanLine(r.Will), revisionWidth)
}

// cause is without the name, which stands before it.
func (r Row) cause() string {
	for _, after := range []string{": ", " is "} {
		if rest, ok := strings.CutPrefix(r.Cause, r.Name+after); ok {
			return rest
		}
	}
	return r.Cause
}

// chosen are the rows that there is room for, and the others in words. Those
// that are done can be missed first.
func (p Picture) chosen(room int) (rows []Row, others string) {
	if len(p.Rows) <= room {
		return p.Rows, ""
	}
	left := max(room-1, 0)
	shown := make([]bool, len(p.Rows))
	counts := map[Mark]int{}
	for _, m := range []Mark{Bad, Works, Waits, Good} {
		for n := range p.Rows {
			if m == Good {
				n = len(p.Rows) - 1 - n // the latest, as a rule
			}
			if p.Rows[n].Mark != m {
				continue
			}
			if shown[n] = left > 0; shown[n] {
				left--
			} else {
				counts[m]++
			}
		}
	}
	for n, r := range p.Rows {
		if shown[n] {
			rows = append(rows, r)
		}
	}
	var words []string
	for _, w := range []struct {
		mark Mark
		word string
	}{{Bad, "failed"}, {Works, "under way"}, {Waits, "waiting"}, {Good, "done"}} {
		if n := counts[w.mark]; n > 0 {
			words = append(words, fmt.Sprintf("%d %s", n, w.word))
		}
	}
	return rows, "and " + strings.Join(words, ", ")
}

// cut shortens text to n columns.
func cut(s string, n int) string {
	if n < 1 || utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}
