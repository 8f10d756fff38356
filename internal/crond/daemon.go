package crond

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Daemon is the cron daemon that reads this host's crontabs.
type Daemon struct {
	PID  int            // 0: none runs
	Zone *time.Location // of its clock
}

// names are what cron daemons are called: Debian's, and cronie's or busybox's.
var names = []string{"cron", "crond"}

// Find looks for the daemon. One that sees other files, as in a container, is
// not this host's.
func Find() Daemon {
	own, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return Daemon{Zone: hostZone()}
	}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		comm, err := os.ReadFile(filepath.Join("/proc", e.Name(), "comm"))
		if err != nil || !slices.Contains(names, strings.TrimSpace(string(comm))) {
			continue
		}
		if ns, err := os.Readlink(filepath.Join("/proc", e.Name(), "ns/mnt")); err != nil || ns != own {
			continue
		}
		environ, err := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if err != nil {
			continue
		}
		return Daemon{PID: pid, Zone: zoneOf(environ)}
	}
	return Daemon{Zone: hostZone()}
}

// zoneOf is the zone of a process with the environment. As the C library has
// it, a zone that cannot be found is UTC.
func zoneOf(environ []byte) *time.Location {
	for kv := range bytes.SplitSeq(environ, []byte{0}) {
		name, ok := strings.CutPrefix(string(kv), "TZ=")
		if !ok {
			continue
		}
		name = strings.TrimPrefix(name, ":")
		if filepath.IsAbs(name) {
			return zoneIn(name)
		}
		if loc, err := time.LoadLocation(name); err == nil {
			return loc
		}
		return time.UTC
	}
	return hostZone()
}

func hostZone() *time.Location { return zoneIn("/etc/localtime") }

// zoneIn reads a zone from a file, and names it as the file's place does.
func zoneIn(file string) *time.Location {
	data, err := os.ReadFile(file)
	if err != nil {
		return time.UTC
	}
	name := file
	if target, err := filepath.EvalSymlinks(file); err == nil {
		name = target
	}
	if _, short, ok := strings.Cut(name, "zoneinfo/"); ok {
		name = short
	}
	loc, err := time.LoadLocationFromTZData(name, data)
	if err != nil {
		return time.UTC
	}
	return loc
}
