//go:build e2e

package e2e

import (
	"slices"
	"strings"
	"testing"
	"time"

	"conductor/internal/converge"
	"conductor/test/load"
)

// A memory hog is killed at its limit; its neighbour serves on.
func TestHog_IsKilledAtItsLimit(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Images("v1")
	hog := e.Web("hog", Def{"replicas": "1", "limits": "{memory: 64m, cpus: 0.5, pids: 100}"})
	neighbour := e.Web("neighbour", nil)
	e.Upgrade("hog", "v1").Want(0)
	e.Upgrade("neighbour", "v1").Want(0)
	id := e.IDs("hog")[0]

	others := e.Snapshot()
	l := e.Load(load.Config{Addr: neighbour, Rate: 200})
	get(hog, "/hog?mb=300")
	eventually(t, 10*time.Second, "the hog is killed", func() bool { return !e.Inspect(id).Running })
	if s := e.Inspect(id); !s.OOMKilled && s.ExitCode != 137 {
		t.Errorf("the hog ended as %+v, want killed for its memory", s)
	}
	if !converge.KilledForMemory(id) {
		t.Error("the kernel's log does not tell that the hog was killed for its memory")
	}
	if other := e.IDs("neighbour")[0]; converge.KilledForMemory(other) {
		t.Error("the kernel's log tells of the neighbour what is the hog's")
	}
	e.Conductor("service", "status", "--id", "hog").Want(0).WantOneOf("down", "OOM", "memory")
	wantServes(t, neighbour, "v1")
	e.Do("converge", "--id", "hog")
	wantServes(t, hog, "v1")
	r := e.NoFailures(l)
	t.Logf("the neighbour: %s", r)
	after := e.Snapshot()
	for _, c := range others.Containers {
		if strings.Contains(c, ".neighbour.") && !slices.Contains(after.Containers, c) {
			t.Errorf("the neighbour's %s is gone: %v", c, after.Containers)
		}
	}
}
