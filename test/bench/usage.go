package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// process is what the kernel tells of one.
type process struct {
	pid, parent int
	name        string
	own, waited time.Duration // processor time, its own and of children that ended
}

// processes are all that there are.
func processes() (all []process) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is well-formed
	for _, f := range stats {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended
		}
		if p, ok := parseStat(b); ok {
			all = append(all, p)
		}
	}
	return all
}

func parseStat(b []byte) (p process, ok bool) {
	// The name is in parentheses and may have spaces: look behind it.
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return p, false
	}
	w := strings.Fields(string(b[end+1:]))
	if len(w) < 15 {
		return p, false
	}
	p.name = string(b[open+1 : end])
	number := func(s string) int {
		n, err := strconv.Atoi(strings.TrimSpace(s))
		ok = ok && err == nil
		return n
	}
	ok = true
	p.pid, p.parent = number(string(b[:open])), number(w[1])
	p.own = time.Duration(number(w[11])+number(w[12])) * tick
	p.waited = time.Duration(number(w[13])+number(w[14])) * tick
	return p, ok
}

// cpuOf is the processor time that a process has used so far.
func cpuOf(pid int) (time.Duration, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	p, ok := parseStat(b)
	if !ok {
		return 0, fmt.Errorf("process %d: no processor time in %q", pid, b)
	}
	return p.own, nil
}

// account is the processor time of processes so far.
type account map[int]time.Duration

// engineCPU is that of the engine: dockerd, containerd, their shims, and what
// these run in containers and on the host, such as the commands of health
// checks, once it has ended.
func engineCPU() account {
	a := account{}
	for _, p := range processes() {
		if p.name == "dockerd" || p.name == "containerd" || strings.HasPrefix(p.name, "containerd-shim") {
			a[p.pid] = p.own + p.waited
		}
	}
	return a
}

// since is what was used after another account: not what belongs to those that
// have ended meanwhile.
func (a account) since(before account) (used time.Duration) {
	for pid, t := range a {
		used += max(t-before[pid], 0) // less: another process has its number
	}
	return used
}

// openFiles is the least number of them that a few looks find: a probe under
// way has one.
func openFiles(pid int) (least int, err error) {
	for n := range 50 {
		fs, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			return 0, err
		}
		if n == 0 || len(fs) < least {
			least = len(fs)
		}
		time.Sleep(10 * time.Millisecond)
	}
	return least, nil
}

// memory is what a process holds of the machine's, in bytes.
func memory(pid int) (resident int, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &resident); err == nil {
			return resident << 10, nil
		}
	}
	return 0, fmt.Errorf("process %d: no VmRSS in its status", pid)
}
