//go:build e2e

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// With 100 services on the host, status and validate take less than a second.
func TestScale_100Services(t *testing.T) {
	e := New(t)
	e.Images("v1")
	const n = 100
	listen := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	ids := make(chan string, n)
	for i := range n {
		id := fmt.Sprintf("service_%03d", i)
		e.Web(id, Def{"replicas": "1", "http": fmt.Sprintf("{port: 8080, listen: '%s', hosts: [%s.example.com]}", listen, strings.ReplaceAll(id, "_", "-"))})
		ids <- id
	}
	close(ids)
	begun := time.Now()
	var wg sync.WaitGroup
	runs := make(chan Run, n)
	for range 4 {
		wg.Go(func() {
			for id := range ids {
				runs <- e.Upgrade(id, "v1")
			}
		})
	}
	wg.Wait()
	close(runs)
	for r := range runs {
		r.Want(0)
	}
	t.Logf("100 first deploys, 4 at a time: %s", time.Since(begun).Round(time.Millisecond))

	for _, args := range [][]string{{"validate"}, {"service", "status"}, {"service", "list"}} {
		// Other tests have the processors too: the fastest of a few is what the
		// command takes.
		var took []time.Duration
		for len(took) < 3 || len(took) < 15 && slices.Min(took) > time.Second {
			took = append(took, e.Conductor(args...).Want(0).Took)
		}
		fastest := slices.Min(took)
		t.Logf("conductor %v: fastest %s of %v", args, fastest.Round(time.Millisecond), took)
		if fastest > time.Second {
			t.Errorf("conductor %v takes %s with %d services", args, fastest, n)
		}
	}
	begun = time.Now()
	e.Do("converge")
	t.Logf("conductor converge with nothing to do: %s", time.Since(begun).Round(time.Millisecond))
}
