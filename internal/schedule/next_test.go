package schedule

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	loc, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return loc
}

// daemon is cron's clock, minute by minute: what it compares and remembers each
// time that it wakes. It is told apart from Next in every way: it knows no zone
// but the offset of the moment, and looks at each minute for itself.
type daemon struct {
	loc              *time.Location
	running, virtual int // minutes that the clock showed, since 1970
}

func (d *daemon) clock(t time.Time) int {
	_, offset := t.In(d.loc).Zone()
	return int(t.Unix()+int64(offset)) / 60
}

// wake returns the minutes whose jobs are run now, of jobs with a star in
// minute or hour and of others.
func (d *daemon) wake(now time.Time) (wild, fixed []int) {
	clock := d.clock(now)
	if clock == d.running {
		return nil, nil
	}
	d.running = clock
	diff := d.running - d.virtual
	switch {
	case diff > 180 || diff <= -180:
		d.virtual = d.running
		return []int{d.virtual}, []int{d.virtual}
	case diff > 5:
		for d.virtual < d.running {
			d.virtual++
			fixed = append(fixed, d.virtual)
		}
		return []int{d.running}, fixed
	case diff > 0:
		for d.virtual < d.running {
			d.virtual++
			wild, fixed = append(wild, d.virtual), append(fixed, d.virtual)
		}
		return wild, fixed
	default:
		return []int{d.running}, nil
	}
}

// due tells whether the fields name the minute. The schedule's own sets are
// used: that they are right is tested elsewhere.
func due(s Schedule, minute int) bool {
	tm := time.Unix(int64(minute)*60, 0).UTC()
	has := func(set uint64, n int) bool { return set&(1<<n) != 0 }
	dom, dow := has(s.dom, tm.Day()), has(s.dow, int(tm.Weekday()))
	day := dom || dow
	if s.bothDays {
		day = dom && dow
	}
	return day && has(s.minute, tm.Minute()) && has(s.hour, tm.Hour()) && has(s.month, int(tm.Month()))
}

// simulate returns the minutes from the one time to the other, excluded, in
// which cron runs a job.
func simulate(s Schedule, from, to time.Time, loc *time.Location) []time.Time {
	d := &daemon{loc: loc}
	d.running = d.clock(from.Add(-time.Minute))
	d.virtual = d.running
	var at []time.Time
	for now := from; now.Before(to); now = now.Add(time.Minute) {
		wild, fixed := d.wake(now)
		minutes := fixed
		if s.wildcard {
			minutes = wild
		}
		if slices.ContainsFunc(minutes, func(m int) bool { return due(s, m) }) {
			at = append(at, now)
		}
	}
	return at
}

// named returns the times that Next names in the same time.
func named(s Schedule, from, to time.Time, loc *time.Location) []time.Time {
	var at []time.Time
	for now := from.Add(-time.Nanosecond); ; {
		next, ok := s.Next(now, loc)
		if !ok || !next.Before(to) {
			return at
		}
		at = append(at, next)
		now = next
	}
}

func same(a, b []time.Time) bool {
	return slices.EqualFunc(a, b, time.Time.Equal)
}

func clocks(at []time.Time, loc *time.Location) string {
	var s []string
	for _, t := range at {
		s = append(s, t.In(loc).Format("2 15:04 MST"))
	}
	return strings.Join(s, ", ")
}

// The hours in which clocks change, in UTC.
var changes = []struct {
	zone string
	at   string
}{
	{"Europe/Berlin", "2026-03-29T01:00:00Z"},
	{"Europe/Berlin", "2026-10-25T01:00:00Z"},
	{"America/New_York", "2026-03-08T07:00:00Z"},
	{"America/New_York", "2026-11-01T06:00:00Z"},
	{"Australia/Lord_Howe", "2026-04-04T15:00:00Z"},
	{"Australia/Lord_Howe", "2026-10-03T15:30:00Z"},
	// Two hours; a whole day left out; a zone moved by half an hour.
	{"Antarctica/Troll", "2026-03-29T01:00:00Z"},
	{"Antarctica/Troll", "2026-10-25T01:00:00Z"},
	{"Pacific/Apia", "2011-12-30T10:00:00Z"},
	{"Asia/Pyongyang", "2018-05-04T15:00:00Z"},
	{"America/Caracas", "2016-05-01T07:00:00Z"},
	// Three hours, there and back.
	{"Antarctica/Casey", "2018-03-10T17:00:00Z"},
	{"Antarctica/Casey", "2020-10-03T16:01:00Z"},
	{"UTC", "2026-03-29T01:00:00Z"},
}

func TestNext_IsWhatCronDoesWhenTheClockChanges(t *testing.T) {
	schedules := []string{
		"@hourly", "@daily", "* * * * *", "*/5 * * * *", "30 2 * * *", "0 3 * * *", "0,30 2 * * *", "15 1-3 * * *",
		"0-59 2 * * *", "0-59 0-23 * * *", "59 1 * * *", "45 1 * * *", "*/20 2 * * *", "7 */2 * * *", "0 0 * * sun", "1 * 29 3 *",
	}
	for _, c := range changes {
		loc := zone(t, c.zone)
		at, err := time.Parse(time.RFC3339, c.at)
		if err != nil {
			t.Fatal(err)
		}
		_, before := at.Add(-time.Minute).In(loc).Zone()
		if _, after := at.In(loc).Zone(); before == after && c.zone != "UTC" {
			t.Errorf("%s: no change at %s", c.zone, c.at)
		}
		for _, fields := range schedules {
			s := parsed(t, fields)
			from, to := at.Add(-27*time.Hour), at.Add(27*time.Hour)
			got, want := named(s, from, to, loc), simulate(s, from, to, loc)
			if !same(got, want) {
				t.Errorf("%s %s at %s:\n got %s\nwant %s", c.zone, fields, c.at, clocks(got, loc), clocks(want, loc))
			}
		}
	}
}

// schedules draws the fields of a schedule.
var schedules = rapid.Custom(func(t *rapid.T) string {
	draw := func(name string, low, high int) string {
		number := rapid.IntRange(low, high)
		one := rapid.Custom(func(t *rapid.T) string {
			a, b := number.Draw(t, "a"), number.Draw(t, "b")
			switch rapid.IntRange(0, 4).Draw(t, "form") {
			case 0:
				return "*"
			case 1:
				return fmt.Sprintf("*/%d", max(1, a))
			case 2:
				return fmt.Sprintf("%d-%d/%d", min(a, b), max(a, b), rapid.IntRange(1, 9).Draw(t, "step"))
			default:
				return fmt.Sprint(a)
			}
		})
		return strings.Join(rapid.SliceOfN(one, 1, 3).Draw(t, name), ",")
	}
	star := rapid.SampledFrom([]string{"*", ""})
	day := func(name string, low, high int) string {
		if s := star.Draw(t, name+" star"); s != "" {
			return s
		}
		return draw(name, low, high)
	}
	return draw("minute", 0, 59) + " " + draw("hour", 0, 23) + " " + day("dom", 1, 31) + " " + day("month", 1, 12) + " " + day("dow", 0, 7)
})

func TestNext_IsWhatCronDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := rapid.SampledFrom(changes).Draw(t, "change")
		loc, _ := time.LoadLocation(c.zone)
		at, _ := time.Parse(time.RFC3339, c.at)
		parse, err := Parse(schedules.Draw(t, "fields") + " x")
		if err != nil {
			t.Fatal(err)
		}
		s := parse.Jobs()[0].Schedule
		from := at.Add(-time.Duration(rapid.IntRange(0, 500).Draw(t, "before")) * time.Minute)
		to := at.Add(time.Duration(rapid.IntRange(1, 500).Draw(t, "after")) * time.Minute)
		// The simulation begins a day earlier, with no change of the clock to come
		// before the one that is looked at.
		want := slices.DeleteFunc(simulate(s, at.Add(-24*time.Hour), to, loc), func(t time.Time) bool { return t.Before(from) })
		if got := named(s, from, to, loc); !same(got, want) {
			t.Fatalf("%s %s from %s to %s:\n got %s\nwant %s", c.zone, c.at, from, to, clocks(got, loc), clocks(want, loc))
		}
	})
}

func TestNext_ByHand(t *testing.T) {
	for _, tt := range []struct{ fields, zone, after, want string }{
		{"*/30 * * * *", "UTC", "2026-01-01T10:00:00Z", "2026-01-01T10:30:00Z"},
		{"0 10 * * *", "UTC", "2026-01-01T10:00:00Z", "2026-01-02T10:00:00Z"},
		{"0 10 * * *", "UTC", "2026-01-01T09:59:59Z", "2026-01-01T10:00:00Z"},
		{"0 0 13 * fri", "UTC", "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"},   // either
		{"0 0 */13 * fri", "UTC", "2026-01-01T00:00:01Z", "2026-02-27T00:00:00Z"}, // both: 1, 14 or 27
		{"0 0 29 2 */7", "UTC", "2026-01-01T00:00:00Z", "2032-02-29T00:00:00Z"},   // both: on a Sunday
		{"0 0 29 2 */7", "UTC", "2089-01-01T00:00:00Z", "2128-02-29T00:00:00Z"},
		{"0 0 30 2 *", "UTC", "2026-01-01T00:00:00Z", ""},
		{"0 0 31 2,4,6,9,11 *", "America/New_York", "2026-01-01T00:00:00Z", ""},
		{"@reboot", "UTC", "2026-01-01T00:00:00Z", ""},
		// Berlin: 02:30 is not there; the 30 2 job runs at 03:00, the */30 2 job not at all.
		{"30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z"},
		{"*/30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", "2026-03-30T00:00:00Z"},
		// Berlin: 02:30 comes twice; the 30 2 job runs once, the */30 2 job each time.
		{"30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"},
		{"30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"},
		{"*/30 2 * * *", "Europe/Berlin", "2026-10-25T00:30:00Z", "2026-10-25T01:00:00Z"},
		// Lord Howe Island: from 02:00 to 02:30, and back from 02:00 to 01:30.
		{"15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", "2026-10-03T15:30:00Z"},
		{"45 1 * * *", "Australia/Lord_Howe", "2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"},
		{"0 12 31 12 *", "Europe/Berlin", "2040-12-30T23:30:00Z", "2040-12-31T11:00:00Z"},
		{"0 12 1 1 *", "Europe/Berlin", "2040-12-31T11:00:00Z", "2041-01-01T11:00:00Z"},
		// Samoa had no 30 December 2011, and cron does not catch up with a day.
		{"0 12 30 12 *", "Pacific/Apia", "2011-12-01T00:00:00Z", "2012-12-29T22:00:00Z"},
	} {
		after, _ := time.Parse(time.RFC3339, tt.after)
		got, ok := parsed(t, tt.fields).Next(after, zone(t, tt.zone))
		if !ok && tt.want == "" {
			continue
		}
		if g := got.UTC().Format(time.RFC3339); g != tt.want || !ok {
			t.Errorf("%s in %s after %s: %s (%v), want %s", tt.fields, tt.zone, tt.after, g, ok, tt.want)
		}
		if got.Location().String() != tt.zone {
			t.Errorf("%s: in %s", tt.fields, got.Location())
		}
	}
}

// The slowest schedules there are must not be noticed in a list.
func BenchmarkNext(b *testing.B) {
	loc := zone(b, "Europe/Berlin")
	after := time.Date(2089, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, fields := range []string{"*/5 * * * *", "0 0 29 2 */7", "0 0 31 2,4,6,9,11 *"} {
		s := parsed(b, fields)
		b.Run(fields, func(b *testing.B) {
			for b.Loop() {
				s.Next(after, loc)
			}
		})
	}
}
