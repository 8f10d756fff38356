package cli

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"conductor/internal/display"
	"conductor/internal/fleet"
	"conductor/internal/spec"
)

// What is known of a deploy comes to be seen: a row for each host and target,
// each with its mark.
func TestWatch_ShowsADeploy(t *testing.T) { synctest.Test(t, showsADeploy) }

func showsADeploy(t *testing.T) {
	var out strings.Builder
	w := &watch{service: "shop", how: "halves"}
	w.board = display.NewBoard(display.Options{Mode: display.TTY, Out: &out, Start: time.Now()}, func() (int, int) { return 120, 40 })
	seen := func(want ...string) {
		t.Helper()
		out.Reset()
		w.board.Pause()() // which draws
		text := strings.ReplaceAll(display.Clean(out.String()), "\r", "")
		var lines []string
		for l := range strings.Lines(text) {
			lines = append(lines, strings.Join(strings.Fields(l), " "))
		}
		if got := strings.Join(lines, "\n"); got != strings.Join(want, "\n") {
			t.Errorf("it shows\n%s\nwant\n%s", got, strings.Join(want, "\n"))
		}
	}
	w.plan([]spec.FleetTarget{{Name: "legacy"}, {Name: "cdn"}})
	w.progress(fleet.Progress{Revision: "v2", Stage: "new half", Hosts: []fleet.HostProgress{
		{Host: "web1", Revision: "v2", Balanced: true, In: true, Done: true},
		{Host: "web2", Revision: "v1", Balanced: true, Doing: "upgrade", Cause: "web2 is out of the balancer and idle", Since: time.Now()},
		{Host: "web3", Revision: "v1", Balanced: true, In: true},
		{Host: "web4", Failure: "web4: no route to host\nand more"},
	}})
	seen("shop → v2 · halves · new half · 1 of 6 done · 0s", "HOST RUNS BALANCER STEP TIME",
		"✓ web1 v2 in", "› web2 v1 → v2 out upgrade 0s out of the balancer and idle", "web3 v1 → v2 in",
		"✗ web4 ? → v2 failed no route to host", "legacy", "cdn")
	w.progress(fleet.Progress{Revision: "v1", Back: true, Stage: "old half", Hosts: []fleet.HostProgress{{Host: "web1", Revision: "v1", Done: true}}})
	seen("shop back to v1 · halves · old half · 1 of 3 done · 0s", "HOST RUNS STEP TIME", "✓ web1 v1", "legacy", "cdn")
	w.target(0, "v1", true, nil)
	w.target(1, "v1", false, errors.New("exit status 3\nand more"))
	seen("shop → v1 · targets · 1 of 3 done · 0s", "HOST RUNS STEP TIME",
		"✓ web1 v1", "› legacy ? → v1 deploy 0s", "✗ cdn ? → v1 failed exit status 3")
	w.target(0, "v1", false, nil)
	seen("shop → v1 · targets · 2 of 3 done · 0s", "HOST RUNS STEP TIME",
		"✓ web1 v1", "✓ legacy v1", "✗ cdn ? → v1 failed exit status 3")
	var none *watch // without a terminal
	none.plan(nil)
	none.target(0, "v1", true, nil)
	none.pause()()
	none.close()
}

func TestStrategyWords(t *testing.T) {
	for want, s := range map[string]spec.Strategy{
		"halves": {Kind: spec.StrategyHalves}, "one at a time": {Kind: spec.StrategyOneAtATime}, "all": {Kind: spec.StrategyAll},
		"25% at a time": {Kind: spec.StrategyPercent, Percent: 25}, "web1 first": {Kind: spec.StrategyFirst, First: "web1", Percent: 50},
	} {
		if got := strategyWords(s); got != want {
			t.Errorf("%v: %q, want %q", s, got, want)
		}
	}
}
