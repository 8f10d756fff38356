package schedule

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParse_KeepsEveryLine(t *testing.T) {
	const text = "# Nightly\n\n \t\nMAILTO = \"ops@example.com\" \n  15\t3 * * sun  bin/report --all 100\\%%first%second\n" +
		"# conductor: on-lock=skip\n#conductor: jitter=1m30s\n\n@daily\tbin/a\n@reboot bin/b\n  # end"
	c, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.String(); got != text+"\n" {
		t.Errorf("as written:\n%q", got)
	}
	var kinds []string
	for _, l := range c.Lines {
		switch {
		case l.Variable != nil:
			kinds = append(kinds, fmt.Sprintf("%d %s=%q", l.Number, l.Variable.Name, l.Variable.Value))
		case l.Job != nil:
			jitter := time.Duration(-1)
			if l.Job.Jitter != nil {
				jitter = *l.Job.Jitter
			}
			kinds = append(kinds, fmt.Sprintf("%d %q %q %q %q %q %s", l.Job.Line, l.Job.Fields, l.Job.Written,
				l.Job.Command, l.Job.Input, l.Job.OnLock, jitter))
		}
	}
	want := []string{
		`4 MAILTO="ops@example.com"`,
		`5 "15\t3 * * sun" "bin/report --all 100\\%%first%second" "bin/report --all 100%" "first\nsecond\n" "" -1ns`,
		`9 "@daily" "bin/a" "bin/a" "" "skip" 1m30s`,
		`10 "@reboot" "bin/b" "bin/b" "" "" -1ns`,
	}
	if d := cmp.Diff(want, kinds); d != "" {
		t.Error(d)
	}
	if c, err := Parse(""); err != nil || len(c.Lines) != 0 {
		t.Errorf("an empty crontab: %v, %v", c, err)
	}
}

func TestParse_TellsAllBadLines(t *testing.T) {
	_, err := Parse(strings.Join([]string{
		"* * * * * ok",
		"60 * * * * a",
		"FOO=bar",
		"# conductor: on-lock=never",
		"1/20 * * * * b",
		"* * * * *",
		"\x1b[2J",
		"# conductor: jitter=5s",
	}, "\n"))
	var ps Problems
	if !errors.As(err, &ps) {
		t.Fatalf("%T %v", err, err)
	}
	want := `line 2: minute "60": it goes from 0 to 59
line 4: on-lock cannot be "never"
    hint: on-lock is allow, wait, skip or replace
line 5: minute "1/20": a step needs a range before it
    hint: write 1-59/20
line 6: there is no command
    hint: write one after the time
line 7: there is a control character (U+001B) at byte 1
    hint: take it out
line 8: no job comes after this directive
    hint: put it before the job that it is for`
	if d := cmp.Diff(want, ps.Error()); d != "" {
		t.Error(d)
	}
}

func TestParse_RefusesOneLine(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"few fields", "* * * *", "there is no day of week"},
		{"a word", "hello", `minute "hello": "hello" is not a number`},
		{"six fields", "0 * * * * * cmd", "begins with *"},
		{"nickname in capitals", "@Daily x", "unknown time"},
		{"nickname of others", "@every_minute x", "unknown time"},
		{"nickname alone", "@daily", "there is no command"},
		{"nickname and star", "@daily *x", "begins with *"},
		{"input without command", "* * * * * %in", "there is no command"},
		{"empty value", "FOO=", `minute "FOO=": "FOO" is not a number`},
		{"open quote", "FOO=\"a b", "is not a number"},
		{"quote alone", `"`, "a number is missing"},
		{"text after quotes", `FOO="a" b`, "is not a number"},
		{"no name", "=x", "the variable has no name"},
		{"NUL", "* * * * * a\x00b", "control character (U+0000) at byte 12"},
		{"carriage return", "* * * * * a\r", "carriage return at byte 12"},
		{"control in a comment", "# \x07", "control character"},
		{"C1 in a comment", "# \u009b31m", "control character"},
		{"Latin-1", "* * * * * caf\xe9", "is not UTF-8"},
		{"long command", "* * * * * " + strings.Repeat("x", 999), "has 999 bytes, cron takes 998"},
		{"long variable", "A=" + strings.Repeat("x", 997), "has 999 bytes, and cron cuts it off after 998"},
		{"relative shell", "SHELL=bash", "not the absolute path"},
		{"shell with arguments", "SHELL=/bin/bash -x", "not the absolute path"},
		{"empty directive", "# conductor:", "says nothing"},
		{"unknown directive", "# conductor: timeout=5m", "unknown word"},
		{"negative jitter", "# conductor: jitter=-5s", "jitter cannot be"},
		{"long jitter", "# conductor: jitter=25h", "jitter cannot be"},
		{"jitter without unit", "# conductor: jitter=30", "jitter cannot be"},
		{"the same twice", "# conductor: jitter=1s jitter=2s", "twice"},
		{"the same twice, in two lines", "# conductor: on-lock=skip\n# conductor: on-lock=wait\n* * * * * x", "twice"},
		{"too many lines", strings.Repeat("\n", 10000), "has 10001 lines, cron takes 10000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Parse(tt.text + "\n")
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if len(c.Lines) > 0 {
				t.Error("half of it was parsed")
			}
		})
	}
}

func TestParse_TakesWhatIsAtTheLimit(t *testing.T) {
	for _, text := range []string{
		"* * * * * " + strings.Repeat("x", 998),
		"A=" + strings.Repeat("x", 996),
		strings.Repeat("\n", 9999) + "* * * * * x",
		"# conductor: jitter=24h\n* * * * * x",
		"* * * * * é ☃",
	} {
		if _, err := Parse(text); err != nil {
			t.Error(err)
		}
	}
}

func TestParse_ADirectiveIsForOneJob(t *testing.T) {
	c, err := Parse("# conductor: on-lock=wait\n# a comment\nA=b\n* * * * * x\n* * * * * y\n# conductor: jitter=0s\n* * * * * z\n")
	if err != nil {
		t.Fatal(err)
	}
	jobs := c.Jobs()
	if jobs[0].OnLock != Wait || jobs[0].Jitter != nil || jobs[1].OnLock != "" || *jobs[2].Jitter != 0 {
		t.Errorf("%+v", jobs)
	}
}

func TestParse_DecodesPercentAndBackslash(t *testing.T) {
	for _, tt := range []struct{ written, command, input string }{
		{`date +\%F`, `date +%F`, ""},
		{`mail%`, "mail", ""},
		{`mail%a%%b\%c`, "mail", "a\n\nb%c\n"},
		{`mail%a%`, "mail", "a\n"},
		{`a\\%b`, `a\`, "b\n"},
		{`a\\\%b`, `a\%b`, ""},
		{`a\nb\`, `a\nb\`, ""},
		{`a\\\\b`, `a\\b`, ""},
		{`c%\x\\y`, "c", `\x\\y` + "\n"},
		{`c%\\%d`, "c", `\%d` + "\n"},
		{`c%\`, "c", `\`},
		{`c%a\`, "c", "a\\\n"},
		{`c%%\`, "c", "\n\\"},
		{`c%%`, "c", "\n"},
	} {
		c, err := Parse("* * * * * " + tt.written)
		if err != nil {
			t.Fatal(err)
		}
		if j := c.Jobs()[0]; j.Command != tt.command || j.Input != tt.input {
			t.Errorf("%s: command %q, input %q; want %q, %q", tt.written, j.Command, j.Input, tt.command, tt.input)
		}
		if got, _ := decode(encode(tt.command)); got != tt.command {
			t.Errorf("%q is written %q, which is %q", tt.command, encode(tt.command), got)
		}
	}
}
