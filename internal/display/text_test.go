package display

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestClean_LeavesNothingThatSteersATerminal(t *testing.T) {
	for in, want := range map[string]string{
		"plain text, äöü → ✓":             "plain text, äöü → ✓",
		"two\nlines\tand a tab":           "two\nlines\tand a tab",
		"\x1b[31mred\x1b[0m":              "red",
		"\x1b]0;own title\x07after":       "after",
		"\x1b]0;own title\x1b\\after":     "after",
		"\x1b]unfinished\nnext line":      "\nnext line",
		"\x1b[31unfinished":               "nfinished",
		"\x1b[2J\x1b[Hhome":               "home",
		"\x1b(Bcharset":                   "charset",
		"\x1bPdevice\x1b\\x":              "x",
		"\x1bcreset":                      "reset",
		"end\x1b":                         "end",
		"\u009b31mred\u009b0m":            "red",
		"\u009dtitle\x07x":                "x",
		"back\b\b\bspace":                 "backspace",
		"over\rwritten":                   "overwritten",
		"bell\a nul\x00 del\x7f":          "bell nul del",
		"\u202eright to left\u202c":       "right to left",
		"\u2066isolated\u2069 \u200emark": "isolated mark",
		"no utf-8: \xff\xfe":              "no utf-8: \ufffd\ufffd",
	} {
		if got := Clean(in); got != want {
			t.Errorf("Clean(%q) = %q, want %q", in, got, want)
		}
	}
	if got := CleanLine("a\n\tb  c\x1b[1m"); got != "a b c" {
		t.Errorf("CleanLine = %q", got)
	}
}

func FuzzClean(f *testing.F) {
	f.Add("\x1b[31mred\x1b[0m \x1b]0;t\x07 \u009b1m \xff")
	f.Add("\x1b\x1b[[31m")
	f.Fuzz(func(t *testing.T, s string) {
		got := Clean(s)
		if !utf8.ValidString(got) {
			t.Errorf("%q: not UTF-8: %q", s, got)
		}
		for _, r := range got {
			if r != '\n' && r != '\t' && (r < 0x20 || r >= 0x7f && r <= 0x9f) {
				t.Errorf("%q: left %U in %q", s, r, got)
			}
		}
		if strings.Count(got, "\n") != strings.Count(s, "\n") {
			t.Errorf("%q: lines went missing in %q", s, got)
		}
		if again := Clean(got); again != got {
			t.Errorf("%q: not settled: %q, then %q", s, got, again)
		}
	})
}

func TestTook_And_Age(t *testing.T) {
	for _, tt := range []struct {
		d         time.Duration
		took, age string
	}{
		{-time.Second, "0 ms", "0s"},
		{310 * time.Millisecond, "310 ms", "0s"},
		{1234 * time.Millisecond, "1.2 s", "1s"},
		{59*time.Second + 990*time.Millisecond, "60.0 s", "59s"},
		{time.Minute, "1 min 0 s", "1m"},
		{125 * time.Second, "2 min 5 s", "2m5s"},
		{2*time.Hour + 5*time.Minute, "2 h 5 min", "2h5m"},
		{76 * time.Hour, "76 h 0 min", "3d4h"},
	} {
		if got := Took(tt.d); got != tt.took {
			t.Errorf("Took(%s) = %q, want %q", tt.d, got, tt.took)
		}
		if got := Age(tt.d); got != tt.age {
			t.Errorf("Age(%s) = %q, want %q", tt.d, got, tt.age)
		}
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0B", 1023: "1023B", 1024: "1K", 1536: "1.5K", 118 << 20: "118M", 512 << 20: "512M",
		1<<30 - 1: "1G", 3 << 29: "1.5G", 9<<30 + 1<<29: "9.5G", 20<<30 + 1<<29: "20G", 1 << 50: "1P", 5000 << 50: "5000P",
	} {
		if got := Bytes(n); got != want {
			t.Errorf("Bytes(%d) = %q, want %q", n, got, want)
		}
	}
}
