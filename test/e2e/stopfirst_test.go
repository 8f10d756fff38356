//go:build e2e

package e2e

import (
	"regexp"
	"testing"
)

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

// A stop-first upgrade that fails brings the old container itself back, and
// says how long the service was down.
func TestStopFirst_FailureBringsTheOldOneBack(t *testing.T) {
	for _, bad := range []struct{ name, env string }{
		{"exits", "EXIT_AT_START=1"},
		{"never healthy", "STATUS=500"},
	} {
		t.Run(bad.name, func(t *testing.T) {
			t.Parallel()
			e, addr := serving(t, Def{
				"replicas": "1", "upgrade": "{order: stop-first, drain_timeout: 2s}",
				"health": "{path: /health, start_timeout: 3s}",
			})
			e.Image("bad", bad.env)
			old := e.IDs("shop")
			r := e.Upgrade("shop", "bad").Want(5)
			if !regexp.MustCompile(`down (for )?\d+(\.\d+)? ?(s|ms)|\d+(\.\d+)? ?(s|ms|seconds) (down|without)`).MatchString(r.Text()) {
				t.Errorf("the seconds down are not told: %s", r)
			}
			if r.Find("restored") == nil {
				t.Errorf("no restored: %s", r)
			}
			wantServes(t, addr, "v1")
			if now := e.IDs("shop"); len(now) != 1 || now[0] != old[0] {
				t.Errorf("running: %v, want the old container %v", now, old)
			}
		})
	}
}
