//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Limits are those that the kernel holds the container to, and a change of
// them replaces it.
func TestLimits_AreTheKernels(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Images("v1")
	addr := e.Web("shop", Def{"replicas": "1", "limits": "{memory: 64m, cpus: 0.5, pids: 100}"})
	def := func(limits string) {
		e.Web("shop", Def{"replicas": "1", "limits": limits, "http": "{port: 8080, listen: '" + addr + "'}"})
	}
	e.Upgrade("shop", "v1").Want(0)
	e.wantLimits(e.IDs("shop")[0], 64<<20, 0.5, 100)
	e.Conductor("service", "status", "--id", "shop").Want(0, "/64M")

	def("{memory: 96m, cpus: 1.5, pids: 50}")
	old := e.IDs("shop")[0]
	e.Upgrade("shop", "v1").Want(0)
	if e.IDs("shop")[0] == old {
		t.Error("changed limits replaced nothing")
	}
	e.wantLimits(e.IDs("shop")[0], 96<<20, 1.5, 50)
	wantServes(t, addr, "v1")
}

// wantLimits fails the test unless the kernel has these limits for the
// container's processes; either version of control groups.
func (e *Env) wantLimits(id string, memory int64, cpus float64, pids int) {
	e.t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", e.Inspect(id).PID))
	must(e.t, err)
	dirs := map[string]string{}
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		for c := range strings.SplitSeq(f[1], ",") {
			dirs[c] = filepath.Join("/sys/fs/cgroup", c, f[2])
		}
	}
	read := func(controller, v1, v2 string) string {
		dir, file := dirs[controller], v1
		if dir == "" {
			dir, file = dirs[""], v2
		}
		b, err := os.ReadFile(filepath.Join(dir, file))
		must(e.t, err)
		return strings.TrimSpace(string(b))
	}
	if got := read("memory", "memory.limit_in_bytes", "memory.max"); got != fmt.Sprint(memory) {
		e.t.Errorf("memory limit is %s, want %d", got, memory)
	}
	if got := read("pids", "pids.max", "pids.max"); got != fmt.Sprint(pids) {
		e.t.Errorf("limit of processes is %s, want %d", got, pids)
	}
	var quota, period float64
	if _, ok := dirs["cpu"]; ok {
		fmt.Sscan(read("cpu", "cpu.cfs_quota_us", ""), &quota)
		fmt.Sscan(read("cpu", "cpu.cfs_period_us", ""), &period)
	} else {
		fmt.Sscan(read("cpu", "", "cpu.max"), &quota, &period)
	}
	if period == 0 || quota/period != cpus {
		e.t.Errorf("limit of processors is %v/%v, want %v", quota, period, cpus)
	}
}
