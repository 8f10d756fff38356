package main

import (
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"
)

// linear is how much dearer an instance may become from 2 to 10,000 of them:
// the larger host no longer fits the processor's caches.
const linear = 2.0

// planning runs the planner's own benchmarks.
func planning(ctx context.Context, h *host, r *report) error {
	count, benchtime := "5", "300ms"
	if h.quick {
		count, benchtime = "1", "10ms"
	}
	out, err := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^BenchmarkNext$", "-benchmem",
		"-count", count, "-benchtime", benchtime, "conductor/internal/plan").CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	all := parseBenchmarks(string(out))
	for _, moment := range []struct{ name, words string }{
		{"settled", "nothing to do"},
		{"upgrade-begins", "an upgrade begins"},
		{"upgrade-ready", "all instances of an upgrade are healthy"},
	} {
		small, large := all[moment.name+"/1x2"], all[moment.name+"/1000x10"]
		if len(small.nsPerInstance) == 0 || len(large.nsPerInstance) == 0 {
			return fmt.Errorf("no figures for %s in:\n%s", moment.name, out)
		}
		a, b := median(large.nsPerInstance), median(small.nsPerInstance)
		r.add(row{section: "planning, 1,000 services × 10 replicas against 1 × 2", what: moment.words,
			value:    fmt.Sprintf("%s, %s allocations", ms(time.Duration(median(large.ns))), thousands(median(large.allocs))),
			baseline: fmt.Sprintf("%s, %s allocations", ms(time.Duration(median(small.ns))), thousands(median(small.allocs))),
			ratio:    fmt.Sprintf("%.2f an instance", a/b), target: target("linear", a/b <= linear)})
	}
	return nil
}

// benchmark has the figures of one benchmark, one for each count.
type benchmark struct{ ns, nsPerInstance, allocs []float64 }

var benchLine = regexp.MustCompile(`(?m)^BenchmarkNext/(\S+?)(?:-\d+)?\s+\d+\s+([\d.]+) ns/op\s+([\d.]+) ns/instance\s+\d+ B/op\s+(\d+) allocs/op`)

func parseBenchmarks(out string) map[string]benchmark {
	all := map[string]benchmark{}
	for _, m := range benchLine.FindAllStringSubmatch(out, -1) {
		b := all[m[1]]
		for i, to := range []*[]float64{&b.ns, &b.nsPerInstance, &b.allocs} {
			v, err := strconv.ParseFloat(m[i+2], 64)
			if err != nil {
				continue // the expression lets only numbers through
			}
			*to = append(*to, v)
		}
		all[m[1]] = b
	}
	return all
}
