package metrics

import (
	"maps"
	"regexp"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"conductor/internal/converge"
	"conductor/internal/plan"
	"conductor/internal/proxy"
)

// lingering is how long the series of a release stay that has no instance and
// no requests any more, so that all who scrape have what was counted last.
const lingering = 5 * time.Minute

// release is what requests are counted by. One with a service alone is for
// those that found no instance.
type release struct{ service, revision, digest string }

func (r release) labels() []string { return []string{r.service, r.revision, r.digest} }

// requests adds up what the proxy has counted by instance. The proxy begins
// anew when it is started.
type requests struct {
	namespace     string
	total, errors *prometheus.CounterVec
	last          map[string]proxy.Count // by instance, when it was read last; nil before the first time
	of            map[string]release     // by instance: those that there are, or were counted
	seen          map[release]time.Time  // when it had an instance or a request last
}

// nobody stands among the instances for a service's lack of one.
func nobody(service string) string { return "@" + service }

// instances takes which there are of which release, and has the counters of
// those that are behind a route there from the beginning.
func (r *requests) instances(all []converge.Status, now time.Time) {
	there := map[string]release{}
	for _, st := range all {
		if len(st.Routes) > 0 {
			there[nobody(st.Service)] = release{service: st.Service}
		}
		for _, i := range st.Instances {
			if i.Route != "" {
				there[i.Name] = release{st.Service, i.Revision, i.Release}
			}
		}
	}
	maps.DeleteFunc(r.of, func(name string, _ release) bool {
		_, counted := r.last[name]
		return !counted
	})
	maps.Copy(r.of, there)
	for _, rel := range there {
		r.add(rel, proxy.Count{}, now)
	}
}

// count adds what the proxy has counted since the last time. What it had
// counted before the first time is not this process's news.
func (r *requests) count(o proxy.Observed, now time.Time) {
	counts := make(map[string]proxy.Count, len(o.Requests)+len(o.Unserved))
	maps.Copy(counts, o.Requests)
	for service, n := range o.Unserved {
		counts[nobody(service)] = proxy.Count{Requests: n, Errors: n}
	}
	for name, c := range counts {
		if more := since(r.last[name], c); r.last != nil && more != (proxy.Count{}) {
			rel := r.release(name)
			r.of[name] = rel
			r.add(rel, more, now)
		}
	}
	r.last = counts
}

func (r *requests) add(rel release, c proxy.Count, now time.Time) {
	r.seen[rel] = now
	r.total.WithLabelValues(rel.labels()...).Add(float64(c.Requests))
	r.errors.WithLabelValues(rel.labels()...).Add(float64(c.Errors))
}

// since is what came to a count. A smaller one has begun anew.
func since(before, now proxy.Count) proxy.Count {
	if now.Requests < before.Requests {
		before = proxy.Count{}
	}
	if now.Errors < before.Errors {
		before.Errors = 0
	}
	return proxy.Count{Requests: now.Requests - before.Requests, Errors: now.Errors - before.Errors}
}

// release tells of which one an instance is. One that came and went between two
// looks is of the same release as others that are named alike; without any, as
// much is known of it as its name says.
func (r *requests) release(name string) release {
	if rel, ok := r.of[name]; ok {
		return rel
	}
	if service, ok := strings.CutPrefix(name, nobody("")); ok {
		return release{service: service}
	}
	service := serviceOf(r.namespace, name)
	prefix := plan.Prefix(r.namespace, service)
	parts := named.FindStringSubmatch(strings.TrimPrefix(name, prefix))
	if parts == nil {
		return release{service, "unknown", "unknown"}
	}
	for other, rel := range r.of {
		if strings.HasPrefix(other, prefix+parts[1]+"-") {
			return rel
		}
	}
	return release{service, parts[2], parts[3]}
}

// named is what follows the service in the name of an instance: revision and
// release, then slot and number.
var named = regexp.MustCompile(`^((.+)\.([0-9a-f]+))-\d+-\d+$`)

// forget takes away the series of services that are gone, and of releases that
// have had neither instance nor request for a while.
func (r *requests) forget(known map[string]bool, now time.Time) {
	for rel, at := range r.seen {
		if !known[rel.service] || now.Sub(at) > lingering {
			delete(r.seen, rel)
			r.total.DeleteLabelValues(rel.labels()...)
			r.errors.DeleteLabelValues(rel.labels()...)
		}
	}
}
