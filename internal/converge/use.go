package converge

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"conductor/internal/engine"
)

// use fills in what the instances use of memory and processors, read from the
// kernel: asking the engine takes it a second or two for each container.
func (s *snapshot) use(ctx context.Context, out []Status) {
	type sample struct {
		at  time.Time
		cpu time.Duration
	}
	first := map[int]sample{}
	running := func(f func(*InstanceStatus)) {
		for n := range out {
			for m := range out[n].Instances {
				if i := &out[n].Instances[m]; i.State == string(engine.Running) && i.pid > 0 {
					f(i)
				}
			}
		}
	}
	running(func(i *InstanceStatus) {
		g := cgroupOf(i.pid)
		i.Memory = g.memory()
		first[i.pid] = sample{time.Now(), g.cpu()}
	})
	if len(first) == 0 {
		return
	}
	select {
	case <-time.After(cpuWindow):
	case <-ctx.Done():
		return
	}
	running(func(i *InstanceStatus) {
		f := first[i.pid]
		i.CPUTime = cgroupOf(i.pid).cpu()
		if took := time.Since(f.at); took > 0 {
			i.CPU = max(0, float64(i.CPUTime-f.cpu)/float64(took))
		}
	})
}

// cgroup has the directories of a process's controllers, of either version.
type cgroup map[string]string

// cgroupOf reads /proc/PID/cgroup; a process that is gone has none.
func cgroupOf(pid int) cgroup {
	g := cgroup{}
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cgroup"))
	if err != nil {
		return g
	}
	for line := range strings.Lines(string(data)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		if f[1] == "" {
			g[""] = filepath.Join("/sys/fs/cgroup", f[2])
			continue
		}
		for c := range strings.SplitSeq(f[1], ",") {
			g[c] = filepath.Join("/sys/fs/cgroup", c, f[2])
		}
	}
	return g
}

// memory is what the processes hold in bytes, without the page cache that the
// kernel would give back at once; 0: unknown.
func (g cgroup) memory() int64 {
	if dir, ok := g["memory"]; ok {
		return max(0, number(dir, "memory.usage_in_bytes")-field(dir, "memory.stat", "total_inactive_file"))
	}
	if dir, ok := g[""]; ok {
		return max(0, number(dir, "memory.current")-field(dir, "memory.stat", "inactive_file"))
	}
	return 0
}

// peak is the most that the processes have held in bytes, page cache included,
// as limits count it; 0: unknown.
func (g cgroup) peak() int64 {
	if dir, ok := g["memory"]; ok {
		return number(dir, "memory.max_usage_in_bytes")
	}
	if dir, ok := g[""]; ok {
		return max(number(dir, "memory.peak"), number(dir, "memory.current")) // before Linux 5.19 there is no peak
	}
	return 0
}

// cpu is the processor time used so far; 0: unknown.
func (g cgroup) cpu() time.Duration {
	if dir, ok := g["cpuacct"]; ok {
		return time.Duration(number(dir, "cpuacct.usage"))
	}
	if dir, ok := g[""]; ok {
		return time.Duration(field(dir, "cpu.stat", "usage_usec")) * time.Microsecond
	}
	return 0
}

func number(dir, file string) int64 {
	data, _ := os.ReadFile(filepath.Join(dir, file))
	n, _ := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	return n
}

func field(dir, file, name string) int64 {
	data, _ := os.ReadFile(filepath.Join(dir, file))
	for line := range strings.Lines(string(data)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok && k == name {
			n, _ := strconv.ParseInt(v, 10, 64)
			return n
		}
	}
	return 0
}
