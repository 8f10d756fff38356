package schedule

import (
	"fmt"
	"strings"
	"testing"
)

// parsed is the schedule of five fields or a nickname.
func parsed(t testing.TB, fields string) Schedule {
	t.Helper()
	c, err := Parse(fields + " x\n")
	if err != nil {
		t.Fatal(err)
	}
	return c.Jobs()[0].Schedule
}

// members writes the numbers of a set: "0 5 7".
func members(set uint64) string {
	var s []string
	for n := range 64 {
		if set>>n&1 == 1 {
			s = append(s, fmt.Sprint(n))
		}
	}
	return strings.Join(s, " ")
}

func TestParse_Fields(t *testing.T) {
	const minute, hour, dom, month, dow = 0, 1, 2, 3, 4
	for _, tt := range []struct {
		field      int
		text, want string
	}{
		{minute, "5", "5"},
		{minute, "005", "5"},
		{minute, "*/20", "0 20 40"},
		{minute, "*/100", "0"},
		{minute, "5-10/2,59", "5 7 9 59"},
		{minute, "1-2-3", "1 2"},
		{minute, "9-1,7", "7"},
		// cron reads no further than it understands.
		{minute, "5.3", "5"},
		{minute, "5;6", "5"},
		{minute, "1-5/2x", ""},
		{minute, "5x", ""},
		{minute, "0-59/2147483000", "0"},
		{minute, "0-59/99999999999999999999", ""},
		{minute, "4294967296", ""},
		{minute, strings.Repeat("0", 1000), ""},
		{minute, "1,", ""},
		{minute, ",1", ""},
		{minute, "1-", ""},
		{minute, "-1", ""},
		{minute, "*/0", ""},
		{minute, "*/", ""},
		{minute, "1/20", ""},
		{minute, "5-64/30", ""},
		{minute, "60-61", ""},
		{minute, "jan", ""},
		{hour, "22-6", ""},
		{hour, "24", ""},
		{dom, "0", ""},
		{dom, "0-5", ""},
		{dom, "31", "31"},
		{month, "0", ""},
		{month, "jan,DEC", "1 12"},
		{month, "feb-Apr", "2 3 4"},
		{month, "oct-feb", ""},
		{month, "january", ""},
		{month, "1-12/5", "1 6 11"},
		{dow, "0", "0 7"},
		{dow, "7", "0 7"},
		{dow, "sun", "0 7"},
		{dow, "mon-fri", "1 2 3 4 5"},
		{dow, "6-7", "0 6 7"},
		{dow, "sat-sun", ""},
		{dow, "sun-sat", "0 1 2 3 4 5 6 7"},
		{dow, "8", ""},
	} {
		words := []string{"1", "1", "1", "1", "1"}
		words[tt.field] = tt.text
		c, err := Parse(strings.Join(words, " ") + " x")
		if err != nil {
			if tt.want != "" {
				t.Errorf("%s: %v", tt.text, err)
			}
			if !strings.Contains(err.Error(), fields[tt.field].name) {
				t.Errorf("%s: the error does not name the field: %v", tt.text, err)
			}
			continue
		}
		s := c.Jobs()[0].Schedule
		if got := members([]uint64{s.minute, s.hour, s.dom, s.month, s.dow}[tt.field]); got != tt.want {
			t.Errorf("%s: %s, want %q", tt.text, got, tt.want)
		}
	}
}

func TestParse_RangeThatGoesDownHasAHint(t *testing.T) {
	_, err := Parse("0 22-6 * * * x")
	if err == nil || !strings.Contains(err.Error(), "hint: write 22-23,0-6") {
		t.Error(err)
	}
}

func TestParse_Stars(t *testing.T) {
	for _, tt := range []struct {
		fields         string
		wildcard, both bool
	}{
		{"* 1 1 1 1", true, false},
		{"*/5 1 1 1 1", true, false},
		{"1 */2 1 1 1", true, false},
		{"0-59 1 1 1 1", false, false},
		{"1,* 1 1 1 1", false, false},
		{"*,1 1 1 1 1", true, false},
		{"1 1 */2 1 1", false, true},
		{"1 1 1 * 1", false, false},
		{"1 1 1 1 */2", false, true},
		{"@hourly", true, true},
		{"@daily", false, true},
	} {
		s := parsed(t, tt.fields)
		if s.wildcard != tt.wildcard || s.bothDays != tt.both {
			t.Errorf("%s: wildcard %v, both days %v", tt.fields, s.wildcard, s.bothDays)
		}
	}
}

func TestParse_EqualSchedules(t *testing.T) {
	for _, tt := range []struct{ a, b string }{
		{"@annually", "0 0 1 jan *"},
		{"@weekly", "0\t0  *  * 7"},
		{"@midnight", "@daily"},
		{"1-3 0 * * *", "1,2,3 0 * * *"},
	} {
		if parsed(t, tt.a) != parsed(t, tt.b) {
			t.Errorf("%s is not %s", tt.a, tt.b)
		}
	}
	if parsed(t, "0-59 0 * * *") == parsed(t, "* 0 * * *") {
		t.Error("0-59 and * are the same, but not when the clock changes")
	}
}
