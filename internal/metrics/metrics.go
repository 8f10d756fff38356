// Package metrics tells Prometheus how the services of a host are, and what the
// supervisor does for them. It has a registry of its own, and starts nothing:
// what has to be looked at is looked at when somebody scrapes.
//
// It imports converge, event, health, plan, proxy, spec and state for their words; cmd puts
// it together. No label has more values than there are services, or words that
// are written here; revision and release are as many as have instances, and
// name as there are instances.
package metrics

import (
	"context"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"conductor/internal/converge"
	"conductor/internal/event"
	"conductor/internal/health"
	"conductor/internal/plan"
	"conductor/internal/proxy"
	"conductor/internal/spec"
	"conductor/internal/state"
)

const (
	// freshness is how long one look at the host serves all who scrape: it
	// probes every instance, and takes the engine some milliseconds for each.
	freshness = 2 * time.Second
	// lookTimeout bounds that look, so that an answer comes before Prometheus,
	// by its default of 10 s, gives the scrape up.
	lookTimeout = 8 * time.Second
	// inFlight is how many scrapes are answered at once.
	inFlight = 4
)

// Sources are what is asked when somebody scrapes.
type Sources struct {
	// Namespace of the services: it begins the names of their instances.
	Namespace string
	// Status tells how all services are.
	Status func(ctx context.Context) ([]converge.Status, error)
	// Upgrades returns the upgrades, of any process, that ended after the time;
	// state.History has them. One may be returned again.
	Upgrades func(ctx context.Context, after time.Time) ([]state.Operation, error)
	// Proxy tells what the proxy serves, and has counted.
	Proxy func(ctx context.Context) (proxy.Observed, error)
	// Version and Commit of this program.
	Version, Commit string
}

// Metrics are those of one supervisor. Its methods are safe for concurrent use.
type Metrics struct {
	sources  Sources
	registry *prometheus.Registry

	restarts *prometheus.CounterVec
	probes   *prometheus.HistogramVec
	failures *prometheus.CounterVec
	lag      prometheus.Histogram
	upgrades *prometheus.CounterVec
	upgraded *prometheus.HistogramVec
	requests *requests

	turn  chan struct{} // room for one: who looks at the host has it, and what follows
	begun time.Time     // upgrades that ended before are not counted
	known map[string]bool
	ended map[int64]time.Time // upgrades that were counted, and may be read again

	mu   sync.Mutex
	last look
}

// New returns metrics that count from now on.
func New(s Sources) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	}
	m := &Metrics{
		sources: s, registry: prometheus.NewRegistry(), begun: time.Now(), turn: make(chan struct{}, 1), known: map[string]bool{}, ended: map[int64]time.Time{},
		restarts: counter("conductor_restarts_total", "Instances that were replaced because they failed, by what they failed of.", "service", "reason"),
		probes: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "conductor_probe_duration_seconds",
			Help:    "How long health checks took to be answered, well or not.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}}, []string{"service"}),
		failures: counter("conductor_probe_failures_total", "Health checks that were not answered as they should be.", "service"),
		lag: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "conductor_loop_lag_seconds",
			Help:    "How late the supervisor begins what it does by the clock.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}}),
		upgrades: counter("conductor_upgrades_total", "Upgrades that ended, of this process and others, by outcome.", "service", "outcome"),
		upgraded: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "conductor_upgrade_duration_seconds",
			Help:    "How long upgrades took, whatever their outcome.",
			Buckets: []float64{.25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800}}, []string{"service"}),
		requests: &requests{
			namespace: s.Namespace, of: map[string]release{}, seen: map[release]time.Time{},
			total: counter("conductor_proxy_requests_total", "Requests through the proxy that ended, by the release that was asked last; without one: there was no instance.",
				"service", "revision", "release"),
			errors: counter("conductor_proxy_errors_total", "Those of the requests that were answered with a status of 500 or more.", "service", "revision", "release"),
		},
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "conductor_build_info", Help: "1, with what this program was built from.",
		ConstLabels: prometheus.Labels{"version": s.Version, "commit": s.Commit, "goversion": runtime.Version()}})
	build.Set(1)
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		build, m.restarts, m.probes, m.failures, m.lag, m.upgrades, m.upgraded, m.requests.total, m.requests.errors, (*services)(m))
	return m
}

// Handler answers scrapes.
func (m *Metrics) Handler() http.Handler {
	h := promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		Registry:            m.registry,               // which counts its own failures
		ErrorHandling:       promhttp.ContinueOnError, // one metric that fails does not take the others away
		MaxRequestsInFlight: inFlight,
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.refresh(r.Context())
		h.ServeHTTP(w, r)
	})
}

// Event counts what happened. It is an event.Sink.
func (m *Metrics) Event(e event.Event) {
	if e.Event == event.Created && e.Reason != "" {
		m.restarts.WithLabelValues(e.Service, e.Reason).Inc()
	}
}

// Late takes how late something began that was to begin at a given time.
func (m *Metrics) Late(by time.Duration) { m.lag.Observe(max(by, 0).Seconds()) }

// Prober is p, with its answers counted and timed.
func (m *Metrics) Prober(p health.Prober) health.Prober { return prober{p, m} }

type prober struct {
	health.Prober
	m *Metrics
}

func (p prober) Probe(ctx context.Context, i health.Instance, h spec.Health) health.Result {
	began := time.Now()
	r := p.Prober.Probe(ctx, i, h)
	// Uptime asks nobody; a probe that was cut short has no answer.
	if h.Kind == spec.HealthUptime || ctx.Err() != nil {
		return r
	}
	service := serviceOf(p.m.sources.Namespace, i.Name)
	p.m.probes.WithLabelValues(service).Observe(time.Since(began).Seconds())
	if !r.OK {
		p.m.failures.WithLabelValues(service).Inc()
	}
	return r
}

// serviceOf is the one that an instance is named after: ids have no dot in them.
func serviceOf(namespace, instance string) string {
	before, _, _ := strings.Cut(plan.Prefix(namespace, "/"), "/")
	id, _, _ := strings.Cut(strings.TrimPrefix(instance, before), ".")
	return id
}

// settle has the counters of all services there from the beginning, so that
// the first of anything is an increase, and of no others.
func (m *Metrics) settle(all []converge.Status) {
	now := map[string]bool{}
	for _, s := range all {
		now[s.Service] = true
		for _, r := range plan.Reasons {
			m.restarts.WithLabelValues(s.Service, string(r))
		}
		for _, o := range outcomes {
			m.upgrades.WithLabelValues(s.Service, o)
		}
		m.failures.WithLabelValues(s.Service)
	}
	for id := range m.known {
		if now[id] {
			continue
		}
		for _, v := range []interface{ DeletePartialMatch(prometheus.Labels) int }{m.restarts, m.probes, m.failures, m.upgrades, m.upgraded} {
			v.DeletePartialMatch(prometheus.Labels{"service": id})
		}
	}
	m.known = now
}
