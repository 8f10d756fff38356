//go:build e2e

package e2e

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"conductor/test/load"
)

func TestInterrupt_BeforeTheSwitch(t *testing.T) {
	t.Parallel()
	for name, sig := range map[string]syscall.Signal{"Ctrl-C": syscall.SIGINT, "SIGTERM": syscall.SIGTERM} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e, addr := serving(t, nil)
			e.Image("slow", "HEALTH_DELAY=20s")
			unchanged(e, addr, func() {
				up := e.Start("service", "upgrade", "--id", "shop", "--revision", "slow")
				up.Until("started", 1)
				begun := time.Now()
				up.Signal(sig)
				up.Wait().Want(130, "interrupted")
				if took := time.Since(begun); took > 6*time.Second {
					t.Errorf("rolling back took %s", took)
				}
			})
			if cs := e.Containers("shop"); len(cs) != 2 {
				t.Errorf("%d containers are left, want the 2 of v1", len(cs))
			}
			e.Upgrade("shop", "v2").Want(0)
		})
	}
}

func TestInterrupt_AfterTheSwitch(t *testing.T) {
	t.Parallel()
	e, addr := serving(t, Def{"upgrade": "{drain_timeout: 10s}"})
	l := e.Load(load.Config{Addr: addr, Rate: 200})
	slow := later(addr, "/slow?ms=3000")
	eventually(t, 5*time.Second, "the slow request is in flight", func() bool { return l.Good() > 100 })
	up := e.Start("service", "upgrade", "--id", "shop", "--revision", "v2")
	up.Until("committed", 1)
	up.Signal(syscall.SIGINT)
	up.Wait().Want(0)
	if a := <-slow; a.Err != nil || a.Body != "begundone" {
		t.Errorf("the request in flight: %s", a)
	}
	e.NoFailures(l)
	e.WantInstances("shop", map[string]int{"v2": 2})
	if cs := e.Containers("shop"); len(cs) != 2 {
		t.Errorf("%d containers are left, want the 2 of v2", len(cs))
	}
}

func TestInterrupt_ASecondLeavesAtOnce(t *testing.T) {
	t.Parallel()
	e, addr := serving(t, Def{"upgrade": "{drain_timeout: 30s}"})
	sse := openEvents(t, addr) // keeps the drain waiting
	up := e.Start("service", "upgrade", "--id", "shop", "--revision", "v2")
	up.Until("committed", 1)
	up.Signal(syscall.SIGINT)
	// Two signals that are pending at once are one: the first is to have come.
	eventually(t, 5*time.Second, "it says that it was interrupted", func() bool {
		return up.Ended() || strings.Contains(up.err.String(), "A second time leaves at once")
	})
	if up.Ended() {
		t.Fatalf("it ended at the first, before the drain was over: %s", up.Wait())
	}
	begun := time.Now()
	up.Signal(syscall.SIGINT)
	r := up.Wait().Want(130)
	if took := time.Since(begun); took > time.Second {
		t.Errorf("it took %s to leave: %s", took, r)
	}
	sse.Alive(t, "the stream of the old release")
	wantServes(t, addr, "v2")
	sse.Close()
	e.Do("converge", "--id", "shop")
	e.WantInstances("shop", map[string]int{"v2": 2})
}
