package metrics

import (
	"context"
	"errors"
	"fmt"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"conductor/internal/converge"
	"conductor/internal/event"
	"conductor/internal/health"
	"conductor/internal/plan"
	"conductor/internal/proxy"
	"conductor/internal/spec"
	"conductor/internal/state"
)

// host is one that is watched.
type host struct {
	mu       sync.Mutex
	looks    int
	all      []converge.Status
	err      error
	upgrades []state.Operation
	proxied  proxy.Observed
	proxyErr error
}

func (h *host) proxy(context.Context) (proxy.Observed, error) { return h.proxied.Clone(), h.proxyErr }

func (h *host) status(ctx context.Context) ([]converge.Status, error) {
	time.Sleep(100 * time.Millisecond) // the clock is the test's own
	h.mu.Lock()
	defer h.mu.Unlock()
	h.looks++
	return h.all, errors.Join(h.err, ctx.Err())
}

func (h *host) ended(_ context.Context, after time.Time) (ops []state.Operation, _ error) {
	for _, op := range h.upgrades {
		if op.Ended.After(after) {
			ops = append(ops, op)
		}
	}
	return ops, nil
}

func (h *host) metrics() *Metrics {
	return New(Sources{Namespace: "ct", Status: h.status, Upgrades: h.ended, Proxy: h.proxy, Version: "1.2.3", Commit: "abc"})
}

// scrape returns the samples, "name{labels} value", by name{labels}.
func scrape(t *testing.T, m *Metrics) map[string]string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/metrics", nil))
	if w.Code != 200 {
		t.Fatalf("%d: %s", w.Code, w.Body)
	}
	samples := map[string]string{}
	for line := range strings.Lines(w.Body.String()) {
		if k := strings.LastIndexByte(line, ' '); !strings.HasPrefix(line, "#") {
			samples[line[:k]] = strings.TrimSpace(line[k:])
		}
	}
	return samples
}

func want(t *testing.T, samples map[string]string, pairs ...string) {
	t.Helper()
	for n := 0; n < len(pairs); n += 2 {
		if got := samples[pairs[n]]; got != pairs[n+1] {
			t.Errorf("%s is %q, want %q", pairs[n], got, pairs[n+1])
		}
	}
}

func shop() converge.Status {
	instance := func(slot int, revision, health string) converge.InstanceStatus {
		return converge.InstanceStatus{Name: fmt.Sprintf("ct.shop.%s.1a2b-%d-1", revision, slot), Slot: slot, Revision: revision, Release: "1a2b3c4d5e6f", State: "running", Health: health,
			Route: "in", InFlight: slot, Memory: 5 << 20, Limit: 10 << 20, CPUTime: 1500 * time.Millisecond}
	}
	gone := converge.InstanceStatus{Name: "ct.shop.v1.1a2b-3-1", Slot: 3, Revision: "v1", State: "exited", Health: "dead"}
	return converge.Status{Service: "shop", Kind: spec.Web, State: "degraded", Replicas: 4, Healthy: 2, Routes: []string{"http://shop.example.com/"},
		Instances: []converge.InstanceStatus{instance(1, "v1", "healthy"), instance(2, "v1", "healthy"), instance(4, "v2", "unhealthy"), gone}}
}

func TestMetrics_Services(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{all: []converge.Status{shop(), {Service: "blog", State: "stopped", Replicas: 2}, {Service: "odd", State: "new word", Replicas: 1}}}
		m := h.metrics()
		s := scrape(t, m)
		want(t, s,
			"conductor_status_up", "1",
			`conductor_service_replicas{service="shop"}`, "4",
			`conductor_service_replicas{service="blog"}`, "0",
			`conductor_service_healthy{service="shop"}`, "2",
			`conductor_service_state{service="shop",state="degraded"}`, "1",
			`conductor_service_state{service="shop",state="running"}`, "0",
			`conductor_service_state{service="blog",state="stopped"}`, "1",
			`conductor_service_state{service="odd",state="new word"}`, "1",
			`conductor_instances{health="healthy",revision="v1",service="shop",state="running"}`, "2",
			`conductor_instances{health="unhealthy",revision="v2",service="shop",state="running"}`, "1",
			`conductor_instances{health="dead",revision="v1",service="shop",state="exited"}`, "1",
			`conductor_instance_requests_in_flight{name="ct.shop.v1.1a2b-2-1",service="shop"}`, "2",
			`conductor_instance_memory_bytes{name="ct.shop.v1.1a2b-1-1",service="shop"}`, "5.24288e+06",
			`conductor_instance_memory_limit_bytes{name="ct.shop.v1.1a2b-1-1",service="shop"}`, "1.048576e+07",
			`conductor_instance_cpu_seconds_total{name="ct.shop.v2.1a2b-4-1",service="shop"}`, "1.5",
			// The first of anything is an increase.
			`conductor_restarts_total{reason="exited",service="shop"}`, "0",
			`conductor_upgrades_total{outcome="failed",service="blog"}`, "0",
		)
		if _, ok := s[`conductor_instance_memory_bytes{name="ct.shop.v1.1a2b-3-1",service="shop"}`]; ok {
			t.Error("a dead instance holds memory")
		}
		build := slices.ContainsFunc(keys(s), func(k string) bool {
			return strings.HasPrefix(k, `conductor_build_info{commit="abc",goversion="go1.`) && strings.HasSuffix(k, `version="1.2.3"}`)
		})
		if !build || s["go_goroutines"] == "" || s["process_resident_memory_bytes"] == "" {
			t.Errorf("what this program is, is missing: %v", keys(s))
		}

		// What is gone is not remembered, and what fails says so.
		m.Event(event.Event{Event: event.Created, Service: "shop", Reason: "exited"})
		h.all = h.all[1:]
		time.Sleep(freshness)
		for k := range scrape(t, m) {
			if strings.Contains(k, `service="shop"`) {
				t.Errorf("%s is still there", k)
			}
		}
		h.err = errors.New("no engine")
		time.Sleep(freshness)
		s = scrape(t, m)
		want(t, s, "conductor_status_up", "0", `conductor_restarts_total{reason="exited",service="blog"}`, "0")
		if _, ok := s[`conductor_service_replicas{service="blog"}`]; ok {
			t.Error("what could not be looked at is told")
		}
	})
}

// However many scrape, the host is looked at every 2 s at most.
func TestMetrics_LooksSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{all: []converge.Status{shop()}}
		m := h.metrics()
		looks := func(n int) {
			t.Helper()
			var all sync.WaitGroup
			for range inFlight {
				all.Go(func() { scrape(t, m) })
			}
			all.Wait()
			if h.looks != n {
				t.Errorf("%d looks, want %d", h.looks, n)
			}
		}
		looks(1)
		time.Sleep(freshness - time.Millisecond)
		looks(1)
		time.Sleep(time.Millisecond)
		looks(2)
		// One that was given up says nothing about the next.
		time.Sleep(freshness)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		m.Handler().ServeHTTP(httptest.NewRecorder(), httptest.NewRequestWithContext(ctx, "GET", "/metrics", nil))
		looks(4)
		want(t, scrape(t, m), "conductor_status_up", "1")
	})
}

func TestMetrics_CountsRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := (&host{all: []converge.Status{shop()}}).metrics()
		for _, e := range []event.Event{
			{Event: event.Created, Service: "shop"}, // no restart
			{Event: event.Created, Service: "shop", Reason: string(plan.Exited)},
			{Event: event.Started, Service: "shop"},
			{Event: event.Created, Service: "shop", Reason: string(plan.Exited)},
			{Event: event.Created, Service: "shop", Reason: string(plan.Unhealthy)},
			{Event: event.Failed, Service: "shop", Reason: string(plan.Unhealthy)},
		} {
			m.Event(e)
		}
		want(t, scrape(t, m),
			`conductor_restarts_total{reason="exited",service="shop"}`, "2",
			`conductor_restarts_total{reason="unhealthy",service="shop"}`, "1",
			`conductor_restarts_total{reason="out_of_memory",service="shop"}`, "0")
	})
}

// Each upgrade is counted once, whenever it comes into the history and however
// often it is read; what ended before this process began is not its news.
func TestMetrics_CountsUpgrades(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{all: []converge.Status{shop(), {Service: "blog"}}}
		ids := int64(0)
		upgrade := func(service, outcome string, ended time.Time) {
			ids++
			h.upgrades = append(h.upgrades, state.Operation{ID: ids, Service: service, Verb: "upgrade", Outcome: outcome, Started: ended.Add(-7 * time.Second), Ended: ended})
		}
		upgrade("shop", "ok", time.Now().Add(-time.Second))
		m := h.metrics()
		count := func() map[string]string { t.Helper(); time.Sleep(freshness); return scrape(t, m) }
		want(t, count(), `conductor_upgrades_total{outcome="ok",service="shop"}`, "0")
		upgrade("shop", "ok", time.Now())
		upgrade("blog", "failed", time.Now())
		upgrade("gone", "ok", time.Now())
		for range 3 {
			want(t, count(),
				`conductor_upgrades_total{outcome="ok",service="shop"}`, "1",
				`conductor_upgrades_total{outcome="failed",service="blog"}`, "1",
				`conductor_upgrade_duration_seconds_bucket{service="shop",le="5"}`, "0",
				`conductor_upgrade_duration_seconds_bucket{service="shop",le="10"}`, "1",
				`conductor_upgrade_duration_seconds_sum{service="shop"}`, "7")
		}
		upgrade("shop", "a new word", time.Now().Add(-time.Second)) // written late
		want(t, count(), `conductor_upgrades_total{outcome="failed",service="shop"}`, "1", `conductor_upgrades_total{outcome="ok",service="shop"}`, "1")
		for range 200 {
			upgrade("shop", "ok", time.Now())
			s := count()
			want(t, s, `conductor_upgrades_total{outcome="ok",service="shop"}`, fmt.Sprint(ids-4))
		}
		if len(m.ended) > 60 {
			t.Errorf("%d upgrades are remembered", len(m.ended))
		}
	})
}

// slow is a prober that takes its time.
type slow struct{ ok bool }

func (s slow) Probe(ctx context.Context, _ health.Instance, _ spec.Health) health.Result {
	select {
	case <-time.After(20 * time.Millisecond):
	case <-ctx.Done():
	}
	return health.Result{OK: s.ok}
}

func TestMetrics_TimesProbes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := (&host{all: []converge.Status{shop()}}).metrics()
		i := health.Instance{Name: plan.Name("ct", "shop", "v1.2.3", "1a2b3c", 1, 1)}
		m.Prober(slow{true}).Probe(t.Context(), i, spec.Health{Kind: spec.HealthHTTP})
		m.Prober(slow{false}).Probe(t.Context(), i, spec.Health{Kind: spec.HealthTCP})
		m.Prober(slow{true}).Probe(t.Context(), i, spec.Health{Kind: spec.HealthUptime}) // asks nobody
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		m.Prober(slow{false}).Probe(ctx, i, spec.Health{Kind: spec.HealthHTTP}) // was cut short
		m.Late(30 * time.Millisecond)
		m.Late(-time.Second)
		want(t, scrape(t, m),
			`conductor_probe_duration_seconds_count{service="shop"}`, "2",
			`conductor_probe_duration_seconds_bucket{service="shop",le="0.01"}`, "0",
			`conductor_probe_duration_seconds_bucket{service="shop",le="0.025"}`, "2",
			`conductor_probe_failures_total{service="shop"}`, "1",
			"conductor_loop_lag_seconds_count", "2",
			`conductor_loop_lag_seconds_bucket{le="0.001"}`, "1",
			"conductor_loop_lag_seconds_sum", "0.03")
	})
	if s := serviceOf("conductor", plan.Name("conductor", "shop", "v1", "1a2b", 1, 1)); s != "shop" {
		t.Errorf("the service is %q", s)
	}
}

// What the alert rules and the dashboard ask for is there.
func TestMetrics_AreThoseOfContrib(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{all: []converge.Status{shop()}}
		m := h.metrics()
		h.upgrades = []state.Operation{{ID: 1, Service: "shop", Outcome: "ok", Ended: time.Now().Add(time.Second)}}
		m.Prober(slow{}).Probe(t.Context(), health.Instance{Name: "ct.shop.v1"}, spec.Health{})
		there := map[string]bool{}
		for k := range scrape(t, m) {
			name, _, _ := strings.Cut(k, "{")
			there[name] = true
		}
		for _, file := range []string{"prometheus/alerts.yml", "grafana/conductor.json"} {
			b, err := os.ReadFile("../../contrib/" + file)
			if err != nil {
				t.Fatal(err)
			}
			asked := regexp.MustCompile(`\b(conductor|process|go)_[a-z_]+\b`).FindAllString(string(b), -1)
			if len(asked) < 5 {
				t.Errorf("%s asks for %v alone", file, asked)
			}
			for _, name := range asked {
				if !there[name] {
					t.Errorf("%s asks for %s, which there is not", file, name)
				}
			}
		}
	})
}

func keys(m map[string]string) (ks []string) {
	for k := range m {
		ks = append(ks, k)
	}
	slices.Sort(ks)
	return ks
}
