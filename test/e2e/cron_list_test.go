//go:build e2e

package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"conductor/internal/schedule"
)

// cron list goes by the clock of the daemon that runs on the host, also around
// its changes to and from summer time. That the times are those at which the
// real cron fires, internal/schedule's tests show with a clock of their own.
func TestCron_ListGoesByTheDaemonsClock(t *testing.T) {
	t.Parallel()
	fields := []string{"*/10 * * * *", "@hourly", "15 2 * * *", "30 2 * * *", "0 3 * * *", "*/15 2 * * *", "59 1 * * *", "5 */2 * * *", "@daily", "0 12 * * sun"}
	var text strings.Builder
	for _, f := range fields {
		text.WriteString(f + " job\n")
	}
	for zone, changes := range map[string][]string{
		"Europe/Berlin":       {"2027-03-28 02:00", "2027-10-31 03:00"},
		"America/New_York":    {"2027-03-14 02:00", "2027-11-07 02:00"},
		"Australia/Lord_Howe": {"2027-04-04 02:00", "2027-10-03 02:00"},
	} {
		t.Run(zone, func(t *testing.T) {
			e := New(t)
			e.Shell("v1", map[string]string{"generate-cron": generator(text.String())})
			e.Service("jobs", "kind: job\nimage: "+e.Repo()+"\n")
			e.Upgrade("jobs", "v1").Want(0)
			e.Conductor("cron", "list").Want(0, "no cron daemon runs")
			cron := e.Cron(t, "TZ="+zone)
			loc, err := time.LoadLocation(zone)
			must(t, err)
			odd := 0 // jobs that do not run when they would on any other day
			for _, at := range changes {
				change, err := time.ParseInLocation("2006-01-02 15:04", at, loc)
				must(t, err)
				for after := change.Add(-2 * time.Hour); after.Before(change.Add(2 * time.Hour)); after = after.Add(20 * time.Minute) {
					r := cron.Conductor(e, "cron", "list", "--output", "json", "--after", after.Format(time.RFC3339)).Want(0)
					if strings.Contains(r.Stderr, "no cron daemon") {
						t.Fatalf("the daemon was not found: %s", r)
					}
					var jobs []struct {
						Schedule string
						Next     []time.Time
					}
					must(t, json.Unmarshal([]byte(r.Stdout), &jobs))
					if len(jobs) != len(fields) {
						t.Fatalf("%d jobs: %s", len(jobs), r)
					}
					for _, j := range jobs {
						want := nextTimes(t, j.Schedule, after, loc)
						if !slices.EqualFunc(j.Next, want, time.Time.Equal) {
							t.Errorf("%s after %s: %v, want %v", j.Schedule, after, j.Next, want)
						}
						if at := j.Next[0].In(loc); j.Schedule == "15 2 * * *" && (at.Hour() != 2 || at.Minute() != 15) {
							odd++
						}
					}
				}
			}
			if odd == 0 {
				t.Error("no change of the clock was seen")
			}
		})
	}
}

// nextTimes are the next three times of a schedule.
func nextTimes(t testing.TB, fields string, after time.Time, loc *time.Location) (times []time.Time) {
	t.Helper()
	tab, err := schedule.Parse(fields + " job\n")
	must(t, err)
	for at, ok := tab.Jobs()[0].Schedule.Next(after, loc); ok && len(times) < 3; at, ok = tab.Jobs()[0].Schedule.Next(at, loc) {
		times = append(times, at)
	}
	return times
}
