package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"conductor/test/load"
)

const (
	throughputLimit = 0.95
	connections     = 32
	openRate        = 2000 // requests due each second
)

// byHand is what an administrator writes for two containers: keep-alive to
// the upstream, WebSockets, the usual forwarded headers.
const byHand = `    upstream shop {
%s        keepalive 64;
    }
    map $http_upgrade $connection_upgrade { default upgrade; "" ""; }
    server {
        listen %s;
        location / {
            proxy_pass http://shop;
            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header Host $host;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
        }
    }
`

// sample is what one load found: good answers a second, the 99th percentile,
// and the processor time of nginx for each.
type sample struct {
	rate float64
	p99  time.Duration
	cpu  time.Duration
}

type samples []sample

func (s samples) cpus() (t times) {
	for _, x := range s {
		t = append(t, x.cpu)
	}
	return t
}

func (s samples) rates() (r []float64) {
	for _, x := range s {
		r = append(r, x.rate)
	}
	return r
}

func (s samples) p99s() (t times) {
	for _, x := range s {
		t = append(t, x.p99)
	}
	return t
}

// throughput puts the same load on the same two containers, through
// Conductor's nginx and through one that was set up by hand, in turns.
func throughput(ctx context.Context, h *host, r *report) error {
	at, err := h.service("web", 2)
	if err != nil {
		return err
	}
	up := h.command(ctx, "--output", "plain", "service", "upgrade", "--id", "web", "--revision", "v1")
	if out, err := up.CombinedOutput(); err != nil {
		return fmt.Errorf("deploy: %w: %s", err, out)
	}
	cs, err := h.engine.Containers(ctx, "conductor.namespace="+namespace, "conductor.service=web")
	if err != nil {
		return err
	}
	var servers strings.Builder
	for _, c := range cs {
		fmt.Fprintf(&servers, "        server %s:8080;\n", c.NetworkSettings.Networks[namespace].IPAddress)
	}
	hand := netip.AddrPortFrom(at.Addr(), uint16(h.freePort()))
	plain, err := startNginx(ctx, filepath.Join(h.dir, "by-hand"), h.freePort(), "", fmt.Sprintf(byHand, servers.String(), hand))
	if err != nil {
		return err
	}
	defer plain.stop()

	// Many and short: how the connections of one run happen to spread over the
	// workers stays as it is for that run.
	runs, d := 30, time.Second
	if h.quick {
		runs, d = 2, time.Second
	}
	for _, l := range []struct {
		name string
		run  func(context.Context, netip.AddrPort, time.Duration) (sample, error)
		open bool
	}{
		{"test/load, saturated", saturate, false},
		{"wrk, saturated", wrk, false},
		{fmt.Sprintf("test/load, %s requests/s due", thousands(openRate)), due, true},
	} {
		var own, other samples
		for n := range runs {
			for turn := range 2 {
				to, addr, by := &own, at, h.main
				if (n+turn)%2 == 1 {
					to, addr, by = &other, hand, plain
				}
				before, began := by.cpu(), time.Now()
				s, err := l.run(ctx, addr, d)
				if errors.Is(err, exec.ErrNotFound) {
					break // wrk is not everywhere
				}
				if err != nil {
					return fmt.Errorf("%s: %w", l.name, err)
				}
				s.cpu = time.Duration(float64(by.cpu()-before) / s.rate / time.Since(began).Seconds())
				*to = append(*to, s)
			}
		}
		if len(own) == 0 || len(other) == 0 {
			continue
		}
		section := fmt.Sprintf("through the proxy, %d connections, against nginx by hand", connections)
		if !l.open {
			q := ratio(own.rates(), other.rates())
			r.add(row{section: section, what: l.name + ": requests/s", value: thousands(median(own.rates())),
				baseline: thousands(median(other.rates())), ratio: fmt.Sprintf("%.2f", q),
				target: target(fmt.Sprintf("≥ %.2f", throughputLimit), q >= throughputLimit)},
				row{section: section, what: l.name + ": nginx's processor time a request", value: ms(own.cpus().median()),
					baseline: ms(other.cpus().median()), ratio: fmt.Sprintf("%.2f", ratio(own.cpus(), other.cpus()))})
		}
		// As for throughput: at least 0.95 as good.
		q := ratio(own.p99s(), other.p99s())
		r.add(row{section: section, what: l.name + ": p99", value: ms(own.p99s().median()), baseline: ms(other.p99s().median()),
			ratio: fmt.Sprintf("%.2f", q), target: target(fmt.Sprintf("≤ %.2f", 1/throughputLimit), q <= 1/throughputLimit)})
	}
	return h.forget(ctx, "web")
}

func saturate(ctx context.Context, at netip.AddrPort, d time.Duration) (sample, error) {
	return loaded(load.Run(ctx, load.Config{Addr: at.String(), Path: "/", Connections: connections, Duration: d}))
}

func due(ctx context.Context, at netip.AddrPort, d time.Duration) (sample, error) {
	return loaded(load.Run(ctx, load.Config{Addr: at.String(), Path: "/", Connections: connections, Duration: d, Rate: openRate}))
}

func loaded(r load.Result) (sample, error) {
	if r.Failed > 0 || r.OK == 0 {
		return sample{}, fmt.Errorf("%d of %d requests failed: %s", r.Failed, r.Sent, r)
	}
	return sample{rate: r.Rate(), p99: r.P99}, nil
}

var (
	wrkRate = regexp.MustCompile(`Requests/sec:\s+([\d.]+)`)
	wrkP99  = regexp.MustCompile(`(?m)^\s+99%\s+([\d.]+[a-z]+)`)
	wrkBad  = regexp.MustCompile(`Socket errors:.*|Non-2xx.*`)
)

func wrk(ctx context.Context, at netip.AddrPort, d time.Duration) (sample, error) {
	out, err := exec.CommandContext(ctx, "wrk", "-t", "1", "-c", fmt.Sprint(connections), "-d", fmt.Sprintf("%.0fs", d.Seconds()),
		"--latency", "http://"+at.String()+"/").CombinedOutput()
	if err != nil {
		return sample{}, fmt.Errorf("%w: %s", err, out)
	}
	return parseWrk(string(out))
}

func parseWrk(out string) (s sample, err error) {
	if bad := wrkBad.FindString(out); bad != "" {
		return s, errors.New(bad)
	}
	rate, p99 := wrkRate.FindStringSubmatch(out), wrkP99.FindStringSubmatch(out)
	if rate == nil || p99 == nil {
		return s, fmt.Errorf("not understood: %s", out)
	}
	if s.rate, err = strconv.ParseFloat(rate[1], 64); err != nil {
		return s, err
	}
	s.p99, err = time.ParseDuration(p99[1])
	return s, err
}
