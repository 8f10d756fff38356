package metrics

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"conductor/internal/converge"
	"conductor/internal/plan"
	"conductor/internal/proxy"
)

// requested fails unless the release of shop has these counts: "" for no series.
func requested(t *testing.T, s map[string]string, revision, release, requests, errors string) {
	t.Helper()
	labels := fmt.Sprintf("{release=%q,revision=%q,service=\"shop\"}", release, revision)
	want(t, s, "conductor_proxy_requests_total"+labels, requests, "conductor_proxy_errors_total"+labels, errors)
}

// Each request that the proxy counts while it is watched is counted once, at
// the release of its instance, whatever becomes of instance and proxy.
func TestMetrics_CountsRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two := "ct.shop.v1.1a2b-1-1", "ct.shop.v1.1a2b-2-1"
		fresh := plan.Name("ct", "shop", "v2", "1a2b3c4d5e6f", 4, 1)
		h := &host{all: []converge.Status{shop(), {Service: "worker", Instances: []converge.InstanceStatus{{Name: "ct.worker.v1.1a2b-1-1"}}}}}
		h.proxied = proxy.Observed{Requests: map[string]proxy.Count{one: {Requests: 1000, Errors: 100}}, Unserved: map[string]uint64{"shop": 7}}
		m := h.metrics()
		look := func() map[string]string { t.Helper(); time.Sleep(freshness); return scrape(t, m) }
		s := look() // what was counted before is not its news
		requested(t, s, "v1", "1a2b3c4d5e6f", "0", "0")
		requested(t, s, "v2", "1a2b3c4d5e6f", "0", "0")
		requested(t, s, "", "", "0", "0")
		if n := len(m.requests.seen); n != 3 {
			t.Errorf("%d releases, want two of shop and none: %v", n, m.requests.seen)
		}

		h.proxied.Requests = map[string]proxy.Count{one: {Requests: 1010, Errors: 101}, two: {Requests: 5}, fresh: {Requests: 3, Errors: 3}}
		h.proxied.Unserved["shop"] = 9
		for range 2 { // the second time there is nothing new
			s = look()
			requested(t, s, "v1", "1a2b3c4d5e6f", "15", "1")
			requested(t, s, "v2", "1a2b3c4d5e6f", "3", "3")
			requested(t, s, "", "", "2", "2")
		}

		// A proxy that does not answer tells nothing.
		h.proxied, h.proxyErr = proxy.Observed{}, errors.New("down")
		requested(t, look(), "v1", "1a2b3c4d5e6f", "15", "1")
		// It was started again: one counts less, one as much, one is not there.
		h.proxyErr = nil
		h.proxied.Requests = map[string]proxy.Count{one: {Requests: 20, Errors: 2}, two: {Requests: 6}}
		s = look()
		requested(t, s, "v1", "1a2b3c4d5e6f", "36", "3")
		requested(t, s, "v2", "1a2b3c4d5e6f", "3", "3")
		h.proxied.Requests = map[string]proxy.Count{one: {Requests: 20}, fresh: {Requests: 4, Errors: 1}} // two, and the errors of one, are forgotten
		s = look()
		requested(t, s, "v1", "1a2b3c4d5e6f", "36", "3")
		requested(t, s, "v2", "1a2b3c4d5e6f", "7", "4")

		// One that came and went between two looks is like those named alike;
		// of one that nothing is like, its name tells.
		h.proxied.Requests["ct.shop.v1.1a2b-7-19"] = proxy.Count{Requests: 4}
		h.proxied.Requests[plan.Name("ct", "shop", "v1.2.3-beta.1", "0f0f0f0f0f", 1, 2)] = proxy.Count{Requests: 1, Errors: 1}
		h.proxied.Requests["ct.gone.v1.1a2b-1-1"] = proxy.Count{Requests: 50}
		s = look()
		requested(t, s, "v1", "1a2b3c4d5e6f", "40", "3")
		requested(t, s, "v1.2.3-beta.", "0f0f", "1", "1")
		for k := range s {
			if strings.Contains(k, `proxy`) && !strings.Contains(k, `service="shop"`) {
				t.Errorf("%s: of a service that there is not, or that has no route", k)
			}
		}
	})
}

// Series of releases are there as long as somebody might not have read them.
func TestMetrics_ForgetsReleases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := &host{all: []converge.Status{shop()}}
		m := h.metrics()
		scrape(t, m)
		names := func(revision string) (is []converge.InstanceStatus) {
			return []converge.InstanceStatus{{Name: plan.Name("ct", "shop", revision, "1a2b", 1, 1), Revision: revision, Release: "1a2b", Route: "in"}}
		}
		h.proxied.Requests = map[string]proxy.Count{}
		for n := range 200 {
			revision := fmt.Sprintf("r%d", n)
			h.all[0].Instances = names(revision)
			h.proxied.Requests[h.all[0].Instances[0].Name] = proxy.Count{Requests: 2, Errors: 1}
			if n > 60 { // the proxy forgets as well
				delete(h.proxied.Requests, plan.Name("ct", "shop", fmt.Sprintf("r%d", n-60), "1a2b", 1, 1))
			}
			time.Sleep(lingering / 10)
			s := scrape(t, m)
			requested(t, s, revision, "1a2b", "2", "1")
			if n > 10 {
				requested(t, s, fmt.Sprintf("r%d", n-9), "1a2b", "2", "1")
				requested(t, s, fmt.Sprintf("r%d", n-11), "1a2b", "", "")
			}
		}
		if len(m.requests.seen) > 20 || len(m.requests.of) > 70 || len(m.requests.last) > 70 {
			t.Errorf("%d releases, %d instances, %d counts are remembered", len(m.requests.seen), len(m.requests.of), len(m.requests.last))
		}
		// A service that is gone takes all along, at once.
		h.all = nil
		time.Sleep(freshness)
		for k := range scrape(t, m) {
			if strings.Contains(k, "shop") {
				t.Errorf("%s is still there", k)
			}
		}
	})
}
