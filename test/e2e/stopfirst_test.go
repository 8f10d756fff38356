//go:build e2e

package e2e

import (
	"encoding/json"
	"math"
	"regexp"
	"strconv"
	"testing"
	"time"

	"conductor/test/load"
)

// The old one has stopped before the new one starts.
func TestStopFirst_Works(t *testing.T) {
	t.Parallel()
	e, addr := serving(t, Def{"replicas": "1", "upgrade": "{order: stop-first, drain_timeout: 2s}"})
	r := e.Upgrade("shop", "v2").Want(0)
	if stopped, created := r.Find("stopped"), r.Find("started"); stopped == nil || created == nil || created.Time.Before(stopped.Time) {
		t.Errorf("the new one was started before the old one was stopped: %s", r)
	}
	wantServes(t, addr, "v2")
	e.WantInstances("shop", map[string]int{"v2": 1})
}

// The seconds without service that a stop-first upgrade tells of are those
// that a client sees, whether it goes well or not.
func TestStopFirst_TellsTheSecondsThatAClientSees(t *testing.T) {
	for _, tt := range []struct {
		name string
		env  []string
		code int
	}{
		{"succeeds", []string{"START_DELAY=1s"}, 0},
		{"is never healthy", []string{"STATUS=500"}, 5},
		{"exits after a while", []string{"START_DELAY=1s", "LISTEN=no.such.address"}, 5},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := New(t)
			e.Images("v1")
			e.Image("v2", tt.env...)
			addr := e.Web("shop", Def{
				"replicas": "1", "upgrade": "{order: stop-first, drain_timeout: 2s}",
				"health": "{path: /health, interval: 500ms, start_timeout: 2s}",
			})
			e.Upgrade("shop", "v1").Want(0)
			old := e.Containers("shop")
			before := e.Snapshot()
			l := e.Load(load.Config{Addr: addr, Rate: 500})
			r := e.Upgrade("shop", "v2").Want(tt.code)
			n := l.Good()
			eventually(t, 5*time.Second, "answers after the upgrade", func() bool { return l.Good() > n+50 })
			saw := l.Stop()

			told := toldOutage(t, r)
			if math.Abs(told.Seconds()-saw.Gap.Seconds()) > 0.3 {
				t.Errorf("it tells of %s without service, a client saw %s: %s\n%s", told, saw.Gap, r, saw)
			}
			t.Logf("told %s, seen %s, %d of %d requests failed", told, saw.Gap.Round(time.Millisecond), saw.Failed, saw.Sent)
			if tt.code == 0 {
				wantServes(t, addr, "v2")
				e.WantInstances("shop", map[string]int{"v2": 1})
				return
			}
			// The very container that was stopped runs again, and nothing else is left.
			wantServes(t, addr, "v1")
			if now := e.Containers("shop"); len(now) != 1 || now[0].ID != old[0].ID || now[0].State != "running" {
				t.Errorf("containers are %+v, want the old one, running again", e.Snapshot().Containers)
			}
			if after := e.Snapshot(); len(after.Files) != len(before.Files) {
				t.Errorf("files were %d and are %d", len(before.Files), len(after.Files))
			}
			if f, re := r.Find("failed"), r.Find("restored"); f == nil || re == nil || re.Container != old[0].ID {
				t.Errorf("failed and restored are not told: %v", r.Names())
			}
			e.Do("converge")
			if now := e.Containers("shop"); len(now) != 1 || now[0].ID != old[0].ID {
				t.Errorf("converge replaced what runs again")
			}
		})
	}
}

var outage = regexp.MustCompile(`nobody served for (\d+\.\d+) s`)

// toldOutage is the time without service that the run tells of, to people and
// to programs alike.
func toldOutage(t *testing.T, r Run) time.Duration {
	t.Helper()
	text := r.Stderr
	if r.Code == 0 {
		var last struct{ Outcomes []struct{ Note string } }
		lines := regexp.MustCompile(`(?m)^\{"event":"result".*$`).FindString(r.Stdout)
		must(t, json.Unmarshal([]byte(lines), &last))
		if len(last.Outcomes) == 1 {
			text = last.Outcomes[0].Note
		}
	} else if !outage.MatchString(r.Result.Error) {
		t.Errorf("the result does not tell of the outage: %s", r)
	}
	m := outage.FindStringSubmatch(text)
	if m == nil {
		t.Fatalf("the outage is not told: %s", r)
	}
	s, err := strconv.ParseFloat(m[1], 64)
	must(t, err)
	return time.Duration(s * float64(time.Second))
}
