//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"conductor/test/load"
)

// Every request is counted once, by the release that answered it, through an
// upgrade and a reload; what is answered with an error is one of its errors.
func TestRequests_AreCountedByRelease(t *testing.T) {
	t.Parallel()
	e, addr := serving(t, Def{"replicas": "2", "health": "{tcp: 8080, interval: 500ms, start_timeout: 15s}"})
	e.supervised()
	c := e.control()
	type count struct{ requests, errors float64 }
	counts := func(service, revision string) (n count, ok bool) {
		t.Helper()
		text := e.fetch(c, "http://conductor/metrics", 200)
		labels := []string{fmt.Sprintf("service=%q", service), fmt.Sprintf("revision=%q", revision)}
		requests, ok1 := sample(text, "conductor_proxy_requests_total", labels...)
		errors, ok2 := sample(text, "conductor_proxy_errors_total", labels...)
		return count{requests, errors}, ok1 && ok2
	}
	counted := func(service, revision string, want count) {
		t.Helper()
		var n count
		defer func() {
			t.Helper()
			if n != want {
				t.Errorf("of %s %q %v are counted, want %v", service, revision, n, want)
			}
		}()
		eventually(t, 20*time.Second, "the metrics tell", func() (ok bool) {
			n, ok = counts(service, revision)
			return ok && n == want
		})
	}
	counted("shop", "v1", count{})
	counted("shop", "", count{})

	// From now on /health is an error of v1, and / is not.
	told, sick := 0, map[string]bool{}
	for ; len(sick) < 2 && told < 100; told++ {
		sick[get(addr, "/sick").Header.Get("X-Instance")] = true
	}
	well := e.Load(load.Config{Addr: addr, Rate: 300, NewConnections: true})
	ill := e.Load(load.Config{Addr: addr, Rate: 200, NewConnections: true, Path: "/health", Good: func(int) bool { return true }})
	e.Upgrade("shop", "v2").Want(0)
	blog := e.Web("blog", nil)
	e.Upgrade("blog", "v1").Want(0).Find("reloaded")
	n := ill.Good()
	eventually(t, 10*time.Second, "answers after the reload", func() bool { return ill.Good() > n+100 })
	good, bad := e.NoFailures(well), e.NoFailures(ill)
	answers := func(r load.Result, revision string) float64 {
		t.Helper()
		v, ok := r.Revision(revision)
		if !ok {
			t.Errorf("%s never answered:\n%s", revision, r)
		}
		return float64(v.Answers)
	}
	v1 := count{float64(told) + answers(good, "v1") + answers(bad, "v1"), answers(bad, "v1")}
	v2 := count{answers(good, "v2") + answers(bad, "v2"), 0}
	if all := float64(int64(told) + good.OK + bad.OK); v1.requests+v2.requests != all {
		t.Errorf("%v and %v answers, want %v", v1.requests, v2.requests, all)
	}
	counted("shop", "v1", v1)
	counted("shop", "v2", v2)

	// What finds no instance is an error of no release.
	e.Do("service", "stop", "--id", "shop")
	for range 7 {
		if a := get(addr, "/"); a.Status != http.StatusServiceUnavailable {
			t.Errorf("stopped: %s", a)
		}
		get(blog, "/")
	}
	counted("shop", "", count{7, 7})
	counted("blog", "v1", count{7, 0})
	counted("shop", "v1", v1)
	counted("shop", "v2", v2)
}
