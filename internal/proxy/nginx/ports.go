package nginx

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

type addr = netip.AddrPort

// listenLine finds the sockets of a rendered file.
var listenLine = regexp.MustCompile(`(?m)^    listen (\S+?)(?: [a-z0-9 ]+)?;$`)

// sockets returns where nginx will listen.
func (d document) sockets() []addr {
	var all []addr
	for _, m := range listenLine.FindAllStringSubmatch(d.tail, -1) {
		text := m[1]
		if !strings.Contains(text, ":") {
			text = "0.0.0.0:" + text
		}
		if a, err := netip.ParseAddrPort(text); err == nil && !slices.Contains(all, a) {
			all = append(all, a)
		}
	}
	return all
}

// portsFree refuses a socket that another program has. nginx would pass its
// own test, take the reload, and go on with the configuration before.
func (p *Proxy) portsFree(d document, admin addr, master int) error {
	if !p.local() {
		master = 0 // its number is one of another namespace, maybe
	} else if master == 0 {
		master = max(masterOf(p.c.Reload), 0)
	}
	var taken *listening // looked up once: all processes' files are read for it
	for _, a := range d.sockets() {
		network := "tcp4"
		if a.Addr().Is6() {
			network = "tcp6"
		}
		l, err := net.Listen(network, a.String())
		if err == nil {
			l.Close()
			continue
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			continue // nginx's own test says it
		}
		if taken == nil {
			taken = lookUp()
		}
		holder, foreign := taken.holder(a, master)
		if !foreign {
			continue
		}
		hint := "stop it, or give the service another port in http.listen"
		if a == admin {
			hint = "stop it, or set proxy.admin to a free address"
		}
		return refused(hint, "port %d of %s is taken by %s", a.Port(), a.Addr(), holder)
	}
	return nil
}

// listening is one look at who listens where on this host.
type listening struct {
	sockets map[string]addr  // as /proc/PID/fd names them
	pids    map[string][]int // who has them open
}

func lookUp() *listening {
	l := &listening{sockets: map[string]addr{}, pids: map[string][]int{}}
	for _, file := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			if len(f) < 10 || f[3] != "0A" {
				continue
			}
			if local, ok := kernelAddr(f[1]); ok {
				l.sockets["socket:["+f[9]+"]"] = local
			}
		}
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*")
	for _, fd := range fds {
		link, err := os.Readlink(fd)
		if err != nil {
			continue
		}
		if _, ok := l.sockets[link]; ok {
			pid, _ := strconv.Atoi(strings.Split(fd, "/")[2])
			l.pids[link] = append(l.pids[link], pid)
		}
	}
	return l
}

// holder names the process that listens there. It is foreign if it surely is
// not the nginx of this master (0: any nginx).
func (l *listening) holder(a addr, master int) (name string, foreign bool) {
	found := false
	for link, local := range l.sockets {
		if local.Port() != a.Port() || local.Addr() != a.Addr() && !local.Addr().IsUnspecified() && !a.Addr().IsUnspecified() {
			continue
		}
		found = true
		for _, pid := range l.pids[link] {
			comm, parent := process(pid)
			if master == 0 && comm == "nginx" || pid == master || parent == master && master != 0 {
				return comm, false
			}
			name = fmt.Sprintf("%s (PID %d)", comm, pid)
		}
	}
	switch {
	case !found:
		return "another program", false
	case name == "":
		return "a process that cannot be seen", true
	}
	return name, true
}

// kernelAddr reads "0100007F:1F90": words of the machine's order, little endian
// on all machines that Conductor is built for.
func kernelAddr(text string) (addr, bool) {
	host, port, ok := strings.Cut(text, ":")
	b, err := hex.DecodeString(host)
	n, err2 := strconv.ParseUint(port, 16, 16)
	if !ok || err != nil || err2 != nil || len(b)%4 != 0 {
		return addr{}, false
	}
	for word := range slices.Chunk(b, 4) {
		slices.Reverse(word)
	}
	ip, ok := netip.AddrFromSlice(b)
	return netip.AddrPortFrom(ip.Unmap(), uint16(n)), ok
}

// process returns the name and the parent of a process.
func process(pid int) (comm string, parent int) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0
	}
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return "", 0
	}
	if f := strings.Fields(string(stat[end+1:])); len(f) > 1 {
		parent, _ = strconv.Atoi(f[1])
	}
	return string(stat[open+1 : end]), parent
}

// masterOf returns the PID of the nginx master that the reload command could
// mean: the one with the same -c and -p, if it has any. It is 0 where none
// runs, and -1 where several do.
func masterOf(reload []string) int {
	var marks []string
	for i, word := range reload {
		if (word == "-c" || word == "-p") && i+1 < len(reload) {
			marks = append(marks, reload[i+1])
		}
	}
	found := 0
	titles, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, title := range titles {
		text, err := os.ReadFile(title)
		if err != nil || !bytes.HasPrefix(text, []byte("nginx: master process")) {
			continue
		}
		if slices.ContainsFunc(marks, func(m string) bool { return !strings.Contains(string(text), m) }) {
			continue
		}
		pid, _ := strconv.Atoi(strings.Split(title, "/")[2])
		if found != 0 {
			return -1
		}
		found = pid
	}
	return found
}

// olderWorkers tells whether a worker of an earlier cycle, or of a
// configuration that was not Conductor's, still takes connections.
func (s status) olderWorkers() bool {
	for _, cycle := range s.workers {
		if cycle < s.cycle {
			return true
		}
	}
	if comm, _ := process(s.master); comm != "nginx" {
		return false // it runs where its processes cannot be seen from here
	}
	children, err := os.ReadFile(fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", s.master))
	if err != nil {
		return false
	}
	for word := range strings.FieldsSeq(string(children)) {
		pid, _ := strconv.Atoi(word)
		title, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		_, known := s.workers[pid]
		if err == nil && !known && string(bytes.TrimRight(title, "\x00 ")) == "nginx: worker process" {
			return true
		}
	}
	return false
}
