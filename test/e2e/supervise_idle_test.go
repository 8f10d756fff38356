//go:build e2e

package e2e

import (
	"fmt"
	"net/http"
	"os"
	"testing"
	"time"
)

// A supervisor to which nothing happens holds what it held, however long: ten
// minutes in script/soak.
func TestSupervise_HoldsNoMore(t *testing.T) {
	t.Parallel()
	e, _ := serving(t, Def{"replicas": "2", "health": "{path: /health, interval: 500ms}"})
	metrics := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	p := e.supervised("--listen", metrics)
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	e.serves("shop", 2)
	before := e.IDs("shop")
	// What it holds while it asks for something it holds for that moment only:
	// the least of a few looks counts.
	least := func() (goroutines, files int) {
		for n := range 50 {
			g, ok := sample(e.fetch(c, "http://"+metrics+"/metrics", 200), "go_goroutines")
			if !ok {
				t.Fatal("the metrics do not tell goroutines")
			}
			fs, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.PID()))
			must(t, err)
			if n == 0 {
				goroutines, files = int(g), len(fs)
			}
			goroutines, files = min(goroutines, int(g)), min(files, len(fs))
			time.Sleep(20 * time.Millisecond) // another moment
		}
		return goroutines, files
	}
	time.Sleep(5 * time.Second) // its first pass is over
	g, f := least()
	time.Sleep(time.Duration(repeat(20, 600)) * time.Second) // the case is that so much time passes
	g2, f2 := least()
	// On a busy machine there may be none among the looks at which nothing was
	// asked. What is held for good is held at all of them.
	for n := 0; n < 20 && (g2 > g || f2 > f); n++ {
		a, b := least()
		g2, f2 = min(g2, a), min(f2, b)
	}
	t.Logf("%d goroutines and %d open files, %d and %d in the end", g, f, g2, f2)
	if g2 > g || f2 > f {
		t.Errorf("it held %d goroutines and %d open files, and holds %d and %d", g, f, g2, f2)
	}
	for n, id := range e.IDs("shop") {
		if id != before[n] {
			t.Errorf("an instance was replaced to which nothing happened")
		}
	}
}
