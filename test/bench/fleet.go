package main

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	fleetFactor = 1.3
	fleetMore   = time.Second
	shipShare   = 0.8
)

// deploys measures deploys to a fleet: by the benchmarks of test/fleet, which
// make one with script/fleet.
func deploys(ctx context.Context, h *host, r *report) error {
	pairs := 9
	if h.quick {
		pairs = 1
	}
	var parts []string
	for _, p := range []string{"all", "handshake", "ship"} {
		if h.wants("fleet." + p) {
			parts = append(parts, p)
		}
	}
	// One more is the first, which makes what later ones find.
	out, err := exec.CommandContext(ctx, "go", "test", "-tags", "e2e", "-run", "^$", "-bench", "^BenchmarkFleet$/^("+strings.Join(parts, "|")+")$",
		"-benchtime", "1x", "-count", strconv.Itoa(pairs+1), "-timeout", "1h", "conductor/test/fleet").CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	m := parseMetrics(string(out))
	for unit := range m {
		m[unit] = m[unit][1:]
	}
	for _, p := range []struct {
		unit string
		add  func(r *report, m metrics)
	}{{"deploy-s", addDeploys}, {"most-handshakes", addHandshakes}, {"scp-s", addShipping}} {
		if len(m[p.unit]) > 0 {
			p.add(r, m)
		}
	}
	return err
}

// metrics are what a benchmark has reported, by unit, one for each count.
type metrics map[string][]float64

// parseMetrics reads the lines of go test's benchmarks: name, iterations, and
// pairs of figure and unit.
func parseMetrics(out string) metrics {
	m := metrics{}
	for line := range strings.Lines(out) {
		w := strings.Fields(line)
		if len(w) < 4 || len(w)%2 != 0 || !strings.HasPrefix(w[0], "Benchmark") {
			continue
		}
		for n := 2; n < len(w); n += 2 {
			if v, err := strconv.ParseFloat(w[n], 64); err == nil {
				m[w[n+1]] = append(m[w[n+1]], v)
			}
		}
	}
	return m
}

// times are a metric in seconds.
func (m metrics) times(unit string) (t times) {
	for _, s := range m[unit] {
		t = append(t, time.Duration(s*float64(time.Second)))
	}
	return t
}

const fleetSection = "a deploy to 4 hosts, over links with 20 ms of delay each way"

func addDeploys(r *report, m metrics) {
	all, one, alone, together := m.times("deploy-s"), m.times("one-s"), m.times("alone-s"), m.times("together-s")
	limit := func(t times) time.Duration { return time.Duration(fleetFactor*float64(t.median())) + fleetMore }
	words := fmt.Sprintf("≤ %.1f × + %s", fleetFactor, ms(fleetMore))
	r.add(row{section: fleetSection, what: fmt.Sprintf("`conductor deploy`, all at once, median of %d", len(all)), value: all.String(),
		baseline: "the slowest host's own upgrade, one at a time: " + alone.String(),
		ratio:    fmt.Sprintf("%.2f", ratio(all, alone)), target: target(words, all.median() <= limit(alone))},
		row{section: fleetSection, what: "the same", value: all.String(),
			baseline: "their own upgrades, all at once: " + together.String(),
			ratio:    fmt.Sprintf("%.2f", ratio(all, together)), target: target(words, all.median() <= limit(together))},
		row{section: fleetSection, what: "`conductor deploy --hosts web1`", value: one.String(),
			baseline: "the slowest host's own upgrade, one at a time: " + alone.String(),
			ratio:    fmt.Sprintf("%.2f", ratio(one, alone)), target: target(words, one.median() <= limit(alone))})
}

func addHandshakes(r *report, m metrics) {
	most := slices.Max(m["most-handshakes"])
	r.add(row{section: fleetSection, what: "ssh handshakes a host; halves, image shipped, migration", value: fmt.Sprintf("%.1f", median(m["mean-handshakes"])),
		baseline: fmt.Sprintf("most at one host: %.0f", most), target: target("1", most == 1)})
}

func addShipping(r *report, m metrics) {
	sent, whole, scp := m.times("sent-s"), m.times("whole-s"), m.times("scp-s")
	size := median(m["bytes"])
	rate := func(t times) string {
		return fmt.Sprintf("%s, %.0f MB/s", t, size/1e6/t.median().Seconds())
	}
	share := ratio(scp, sent)
	r.add(row{section: fleetSection, what: fmt.Sprintf("a layer of %.0f MiB of noise is shipped, median of %d", size/(1<<20), len(sent)), value: rate(sent),
		baseline: "`scp`: " + rate(scp), ratio: fmt.Sprintf("%.2f", share), target: target(fmt.Sprintf("≥ %.1f", shipShare), share >= shipShare)},
		row{section: fleetSection, what: "the same, from the engine here to the engine there", value: rate(whole), ratio: fmt.Sprintf("%.2f", ratio(scp, whole))})
}
