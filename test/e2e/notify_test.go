//go:build e2e

package e2e

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// People are told of what changes: that a service is sick, that it has
// recovered, that an upgrade failed; each once.
func TestNotify_Webhook(t *testing.T) {
	t.Parallel()
	type change struct{ Kind, Service, Revision, Text string }
	var mu sync.Mutex
	var told []change
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var m struct{ Changes []change }
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
			t.Errorf("the message is no JSON: %v", err)
		}
		mu.Lock()
		defer mu.Unlock()
		told = append(told, m.Changes...)
	}))
	t.Cleanup(srv.Close)
	count := func(kind string) (n int) {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range told {
			if c.Kind == kind && c.Service == "shop" {
				n++
			}
		}
		return n
	}
	await := func(kind string) {
		t.Helper()
		eventually(t, 40*time.Second, "it is told: "+kind, func() bool { return count(kind) > 0 })
	}

	e := New(t)
	e.Config(map[string]string{"notify": "[{webhook: '" + srv.URL + "/hook'}]"})
	e.Shell("v1", nil)
	must(t, os.Mkdir(e.Path("www"), 0o755))
	e.write("www/up", "yes")
	e.Web("shop", Def{
		"replicas": "2", "health": "{path: /up, interval: 300ms, unhealthy_after: 2, start_timeout: 2s}",
		"command": "[httpd, -f, -p, '8080', -h, /srv]", "volumes": "['" + e.Path("www") + ":/srv']",
	})
	e.Upgrade("shop", "v1").Want(0)
	e.Start("supervise")
	e.serves("shop", 2)

	must(t, os.Remove(e.Path("www/up")))
	await("sick")
	e.write("www/up", "yes")
	await("recovered")
	e.Upgrade("shop", "none").Want(4)
	await("failed-upgrade")
	for kind, most := range map[string]int{"sick": 1, "recovered": 1, "failed-upgrade": 1} {
		if n := count(kind); n > most {
			t.Errorf("%s was told %d times: %v", kind, n, told)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for _, c := range told {
		if c.Kind == "failed-upgrade" && !strings.Contains(c.Text, "none") {
			t.Errorf("the failed upgrade is told without its cause: %+v", c)
		}
	}
}
