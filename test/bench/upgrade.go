package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"conductor/test/bench/container"
)

const upgradeLimit = 1.15

// phases are the instants of an upgrade that both programs tell: the last
// event of the kind. Between them lies what is measured.
var phases = []string{"created", "started", "healthy", "routed", "stopped", "removed", "exit"}

func upgrades(ctx context.Context, h *host, r *report) error {
	for _, c := range []struct{ replicas, runs int }{{1, 21}, {10, 9}} {
		if h.quick {
			c.runs = 3
		}
		if err := upgrade(ctx, h, r, c.replicas, c.runs); err != nil {
			return fmt.Errorf("%d replicas: %w", c.replicas, err)
		}
	}
	return nil
}

// upgrade measures upgrades back and forth, by Conductor and by the floor in turns.
func upgrade(ctx context.Context, h *host, r *report, replicas, runs int) error {
	id := fmt.Sprintf("shop-%d", replicas)
	if _, err := h.service(id, replicas); err != nil {
		return err
	}
	listen := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(h.freePort()))
	conductor := func(rev string) (trace, error) {
		return traced(h.command(ctx, "--output", "json", "service", "upgrade", "--id", id, "--revision", rev))
	}
	dir := filepath.Join(h.dir, fmt.Sprintf("floor-%d", replicas))
	floor := func(rev string) (trace, error) {
		first := h.addr(10)
		if rev == "v2" {
			first = h.addr(30)
		}
		return traced(exec.CommandContext(ctx, h.floor, "-state", dir, "-config-dir", h.floors.confD(), "-namespace", namespace+"-floor",
			"-socket", h.engine.Socket, "-network", h.network.name, "-image", repo, "-revision", rev,
			"-first", first.String(), "-listen", listen.String(), "-replicas", fmt.Sprint(replicas),
			"-test", strings.Join(h.floors.command("-t"), ","), "-reload", strings.Join(h.floors.command("-s", "reload"), ",")))
	}
	// The first deployment and the first upgrade make what later ones find.
	for _, rev := range []string{"v1", "v2"} {
		for _, f := range []func(string) (trace, error){conductor, floor} {
			if _, err := f(rev); err != nil {
				return err
			}
		}
	}
	var own, least []trace
	for n := range runs {
		rev := []string{"v1", "v2"}[n%2]
		turns := []func() error{
			func() error { return collect(&own, conductor, rev) },
			func() error { return collect(&least, floor, rev) },
		}
		if n%2 == 1 {
			turns[0], turns[1] = turns[1], turns[0]
		}
		for _, turn := range turns {
			if err := turn(); err != nil {
				return err
			}
		}
	}
	if h.keepTrace {
		fmt.Fprintf(os.Stderr, "conductor:\n%sfloor:\n%s", own[len(own)-1].lines, least[len(least)-1].lines)
	}
	if err := h.forget(ctx, id); err != nil {
		return err
	}
	if err := h.removeContainers(ctx, container.Label+"="+namespace+"-floor"); err != nil {
		return err
	}
	a, b := exits(own), exits(least)
	q := ratio(a, b)
	r.add(row{section: "an upgrade, whole command", what: fmt.Sprintf("%s, median of %d", replicaWord(replicas), runs),
		value: a.String(), baseline: "floor: " + b.String(), ratio: fmt.Sprintf("%.2f", q),
		target: target(fmt.Sprintf("≤ %.2f", upgradeLimit), q <= upgradeLimit)})
	r.details = append(r.details, breakdown(replicas, own, least))
	return nil
}

func replicaWord(n int) string {
	if n == 1 {
		return "1 replica"
	}
	return fmt.Sprintf("%d replicas", n)
}

// trace is one run: when each phase was over, from the start of the process.
type trace struct {
	at    map[string]time.Duration
	lines string
}

func collect(to *[]trace, f func(string) (trace, error), rev string) error {
	t, err := f(rev)
	*to = append(*to, t)
	return err
}

// traced runs a command that prints an event a line.
func traced(c *exec.Cmd) (trace, error) {
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	began := time.Now()
	if err := c.Run(); err != nil {
		return trace{}, fmt.Errorf("%s: %w\n%s%s", filepath.Base(c.Path), err, out.Bytes(), errs.Bytes())
	}
	t := trace{at: map[string]time.Duration{"exit": time.Since(began)}}
	var lines strings.Builder
	for line := range bytes.Lines(out.Bytes()) {
		var e struct {
			Time            time.Time
			Event, Instance string
		}
		if err := json.Unmarshal(line, &e); err != nil {
			return t, fmt.Errorf("event %q: %w", line, err)
		}
		if e.Time.IsZero() {
			continue
		}
		at := e.Time.Sub(began)
		t.at[e.Event] = max(t.at[e.Event], at)
		fmt.Fprintf(&lines, "%8.1f ms  %s %s\n", float64(at)/1e6, e.Event, e.Instance)
	}
	fmt.Fprintf(&lines, "%8.1f ms  exit\n", float64(t.at["exit"])/1e6)
	t.lines = lines.String()
	return t, nil
}

func exits(ts []trace) (all times) {
	for _, t := range ts {
		all = append(all, t.at["exit"])
	}
	return all
}

// breakdown tells where the time of both goes.
func breakdown(replicas int, own, least []trace) detail {
	d := detail{title: fmt.Sprintf("Where the time of an upgrade goes, %s, medians:", replicaWord(replicas)),
		head: []string{"until the last is …", "conductor", "floor", "conductor's part", "floor's part"}}
	before := ""
	for _, p := range phases {
		var a, b, da, db times
		for _, t := range own {
			a, da = append(a, t.at[p]), append(da, t.at[p]-t.at[before])
		}
		for _, t := range least {
			b, db = append(b, t.at[p]), append(db, t.at[p]-t.at[before])
		}
		d.lines = append(d.lines, []string{p, ms(a.median()), ms(b.median()), ms(da.median()), ms(db.median())})
		before = p
	}
	return d
}
