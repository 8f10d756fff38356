package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

func (d *demo) paint(code, s string) string {
	if !d.color {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (d *demo) bold(s string) string  { return d.paint("1", s) }
func (d *demo) dim(s string) string   { return d.paint("2", s) }
func (d *demo) red(s string) string   { return d.paint("31", s) }
func (d *demo) green(s string) string { return d.paint("32", s) }

// title begins a phase, in the form of the scripts' sections.
func (d *demo) title(format string, args ...any) {
	fmt.Println("\n" + d.bold("== "+fmt.Sprintf(format, args...)))
}

// verdict ends a phase that came out as it should.
func (d *demo) verdict(format string, args ...any) {
	fmt.Println(d.green("✓ " + fmt.Sprintf(format, args...)))
}

// table says what happened.
func (d *demo) table() {
	d.title("What happened.")
	fmt.Println(d.dim(fmt.Sprintf("  %-28s %8s %10s %8s %12s %8s", "phase", "time", "requests", "failed", "longest gap", "p99")))
	var sent, failed int64
	for _, p := range d.phases {
		line := fmt.Sprintf("  %-28s %8s", p.name, seconds(p.took))
		if p.sent > 0 {
			line += fmt.Sprintf(" %10s %8d %12s %8s", thousands(p.sent), p.failed, milliseconds(p.gap), milliseconds(p.p99))
		}
		fmt.Println(line)
		sent += p.sent
		failed += p.failed
	}
	fmt.Println(d.bold(d.green(fmt.Sprintf("  %s requests sent, %d failed", thousands(sent), failed))))
}

func seconds(t time.Duration) string { return fmt.Sprintf("%.2f s", t.Seconds()) }

func milliseconds(t time.Duration) string {
	return fmt.Sprintf("%.0f ms", float64(t)/float64(time.Millisecond))
}

// thousands writes a number as people read it: 12,345.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func indent(s string) string {
	return "    " + strings.ReplaceAll(strings.TrimRight(s, "\n"), "\n", "\n    ")
}
