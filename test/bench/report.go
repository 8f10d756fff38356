package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// row is one line of the table.
type row struct {
	section, what   string
	value, baseline string
	ratio           string
	target          string
}

type report struct {
	rows    []row
	details []detail
}

// detail is a table of its own below the one that counts.
type detail struct {
	title string
	head  []string
	lines [][]string
}

func (r *report) add(rows ...row) { r.rows = append(r.rows, rows...) }

// target says what was asked for and whether it is so.
func target(text string, ok bool) string {
	if ok {
		return text + " ✓"
	}
	return text + " ✗"
}

func (r *report) tables() []detail {
	main := detail{head: []string{"what", "measured", "against", "ratio", "target"}}
	section := ""
	for _, w := range r.rows {
		what := w.what
		if w.section != section {
			section = w.section
			main.lines = append(main.lines, []string{"**" + section + "**", "", "", "", ""})
		}
		main.lines = append(main.lines, []string{what, w.value, w.baseline, w.ratio, w.target})
	}
	return append([]detail{main}, r.details...)
}

func (r *report) markdown() string {
	var b strings.Builder
	for i, t := range r.tables() {
		if i > 0 {
			fmt.Fprintf(&b, "\n%s\n\n", t.title)
		}
		b.WriteString("| " + strings.Join(t.head, " | ") + " |\n|" + strings.Repeat(" --- |", len(t.head)) + "\n")
		for _, l := range t.lines {
			b.WriteString("| " + strings.Join(l, " | ") + " |\n")
		}
	}
	return b.String()
}

// text is the same for a terminal.
func (r *report) text() string {
	var b strings.Builder
	for i, t := range r.tables() {
		if i > 0 {
			fmt.Fprintf(&b, "\n%s\n", t.title)
		}
		lines := append([][]string{t.head}, t.lines...)
		width := make([]int, len(t.head))
		for _, l := range lines {
			for n, cell := range l {
				width[n] = max(width[n], len([]rune(strings.Trim(cell, "*"))))
			}
		}
		for _, l := range lines {
			var line strings.Builder
			for n, cell := range l {
				fmt.Fprintf(&line, "%-*s  ", width[n], strings.Trim(cell, "*"))
			}
			b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
		}
	}
	return b.String()
}

const (
	beginMark = "<!-- bench: begin -->\n"
	endMark   = "<!-- bench: end -->\n"
)

// replace puts the table between the marks of a text.
func replace(text, table string) (string, error) {
	head, rest, ok := strings.Cut(text, beginMark)
	_, tail, ok2 := strings.Cut(rest, endMark)
	if !ok || !ok2 {
		return "", fmt.Errorf("there is no %q followed by %q in it", strings.TrimSpace(beginMark), strings.TrimSpace(endMark))
	}
	return head + beginMark + "\n" + strings.TrimSpace(table) + "\n\n" + endMark + tail, nil
}

// rewrite replaces the table in a file, whole or not at all.
func rewrite(file, table string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	text, err := replace(string(old), table)
	if err != nil {
		return fmt.Errorf("rewrite %s: %w", file, err)
	}
	f, err := os.CreateTemp(filepath.Dir(file), ".bench-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err := f.WriteString(text); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}
