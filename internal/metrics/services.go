package metrics

import (
	"context"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"conductor/internal/converge"
)

// states are those of converge.Status. A service is in one of them: that is 1,
// the others 0, so that a change is no series that ends.
var states = []string{"running", "degraded", "down", "stopped", "upgrading", "not deployed", "job"}

// look is one look at the host.
type look struct {
	at  time.Time
	ok  bool
	all []converge.Status
}

// refresh looks at the host, unless somebody has of late.
func (m *Metrics) refresh(ctx context.Context) {
	select {
	case m.turn <- struct{}{}:
		defer func() { <-m.turn }()
	case <-ctx.Done():
		return
	}
	if l := m.seen(); !l.at.IsZero() && time.Since(l.at) < freshness {
		return
	}
	gone := ctx.Done()
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	// Whoever has ended requests by then is among the instances, unless it is gone.
	seen, proxyErr := m.sources.Proxy(ctx)
	all, err := m.sources.Status(ctx)
	select {
	case <-gone:
		return // who scraped has gone, and probes that were cut short say that all is unwell
	default:
	}
	l := look{at: time.Now(), ok: err == nil && ctx.Err() == nil}
	if l.ok {
		l.all = all
		m.settle(all)
		m.countUpgrades(ctx)
		m.requests.instances(all, l.at)
		if proxyErr == nil { // which is told by others
			m.requests.count(seen, l.at)
		}
		m.requests.forget(m.known, l.at)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.last = l
}

func (m *Metrics) seen() look {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last
}

// services tells Prometheus what was seen at the last look.
type services Metrics

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	statusUp  = describe("conductor_status_up", "1 if the services could be looked at; if not, there are no metrics of them.")
	replicas  = describe("conductor_service_replicas", "Instances that the service should have now: 0 while it is stopped.", "service")
	healthy   = describe("conductor_service_healthy", "Instances of the current release that pass their health check.", "service")
	inState   = describe("conductor_service_state", "1 for the state that the service is in, 0 for the others.", "service", "state")
	instances = describe("conductor_instances", "Instances, dead ones that are kept for their logs included.", "service", "revision", "state", "health")
	inflight  = describe("conductor_instance_requests_in_flight", "Requests that the proxy has open at the instance.", "service", "name")
	memory    = describe("conductor_instance_memory_bytes", "Memory that the instance holds, without page cache that can be taken back.", "service", "name")
	limit     = describe("conductor_instance_memory_limit_bytes", "Memory that the instance may hold; none where there is no limit.", "service", "name")
	cpu       = describe("conductor_instance_cpu_seconds_total", "Processor time that the instance has used.", "service", "name")
)

// Describe is prometheus.Collector's.
func (s *services) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{statusUp, replicas, healthy, inState, instances, inflight, memory, limit, cpu} {
		to <- d
	}
}

// Collect is prometheus.Collector's.
func (s *services) Collect(to chan<- prometheus.Metric) {
	l := (*Metrics)(s).seen()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	gauge(statusUp, truth(l.ok))
	for _, st := range l.all {
		gauge(replicas, float64(wanted(st)), st.Service)
		gauge(healthy, float64(st.Healthy), st.Service)
		for _, state := range states {
			gauge(inState, truth(state == st.State), st.Service, state)
		}
		if !slices.Contains(states, st.State) {
			gauge(inState, 1, st.Service, st.State)
		}
		type kind struct{ revision, state, health string }
		count := map[kind]int{}
		for _, i := range st.Instances {
			health := i.Health
			if health == "" {
				health = "unknown"
			}
			count[kind{i.Revision, i.State, health}]++
			if i.Route != "" {
				gauge(inflight, float64(i.InFlight), st.Service, i.Name)
			}
			if i.Limit > 0 {
				gauge(limit, float64(i.Limit), st.Service, i.Name)
			}
			if i.Memory > 0 {
				gauge(memory, float64(i.Memory), st.Service, i.Name)
			}
			if i.CPUTime > 0 {
				to <- prometheus.MustNewConstMetric(cpu, prometheus.CounterValue, i.CPUTime.Seconds(), st.Service, i.Name)
			}
		}
		for k, n := range count {
			gauge(instances, float64(n), st.Service, k.revision, k.state, k.health)
		}
	}
}

// wanted is how many instances there should be now.
func wanted(st converge.Status) int {
	switch st.State {
	case "stopped", "not deployed", "job":
		return 0
	}
	return st.Replicas
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
