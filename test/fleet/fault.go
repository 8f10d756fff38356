//go:build e2e

package fleet

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"
)

// Heal undoes all that is wrong with the host. A test's end does so too.
func (h *Host) Heal() {
	h.t.Helper()
	if h.bare {
		h.Whole()
	}
	if h.stopped {
		h.Start()
	}
	if h.cut {
		h.Join()
	}
	h.Slow(0)
	if h.hung {
		h.WakeSSH()
	}
	if h.full {
		h.Empty()
	}
	if h.docker {
		h.StartDocker()
	}
}

// Cut pulls the cable: nothing gets in or out, and nobody is told so.
func (h *Host) Cut() {
	h.t.Helper()
	h.cut = true
	h.ip("link", "set", h.link(), "down")
}

// Join puts the cable back in.
func (h *Host) Join() {
	h.t.Helper()
	h.ip("link", "set", h.link(), "up")
	h.cut = false
}

// Slow has every packet take so much longer, in both directions: an answer
// comes twice as much later. 0: no longer so.
func (h *Host) Slow(d time.Duration) {
	h.t.Helper()
	if h.wire != nil {
		must(h.t, h.wire.Close())
		h.wire = nil
	}
	if d > 0 {
		w, err := newWire(h.link(), d)
		must(h.t, err)
		h.wire = w
	}
}

// Fill fills up the disk that its engine and conductor have, but for so many
// bytes.
func (h *Host) Fill(left int64) {
	h.t.Helper()
	h.full = true
	h.Exec("sh", "-euc", `
		left() { df --output=avail -B1 /var/lib/docker | tail -1; }
		touch $0
		step=$(left)
		while n=$(($(left) - $1)) && [ $step -ge 65536 ] && [ $n -ge 65536 ]; do
			[ $step -le $n ] || step=$n
			fallocate -o $(stat -c %s $0) -l $step $0 2>/dev/null || step=$((step / 2))
		done
		# What the file system has kept for itself.
		[ "$1" != 0 ] || cat /dev/zero 2>/dev/null >>$0 || true`, filler, strconv.FormatInt(left, 10))
}

const filler = "/var/lib/docker/.filler"

// Empty takes away what Fill has put there.
func (h *Host) Empty() {
	h.t.Helper()
	h.Exec("rm", "-f", filler)
	h.full = false
}

// HangSSH has its sshd hang: connections are accepted, also those that there
// are, and nothing is answered.
func (h *Host) HangSSH() {
	h.t.Helper()
	h.hung = true
	h.Exec("pkill", "-STOP", "-x", "sshd")
}

// WakeSSH has sshd go on.
func (h *Host) WakeSSH() {
	h.t.Helper()
	h.Exec("pkill", "-CONT", "-x", "sshd")
	h.hung = false
}

// KillDocker kills its engine, as the kernel might; systemd starts another one
// some seconds later.
func (h *Host) KillDocker() {
	h.t.Helper()
	h.Exec("systemctl", "kill", "-s", "KILL", "--kill-who", "main", "docker")
}

// StopDocker stops its engine, and it stays so.
func (h *Host) StopDocker() {
	h.t.Helper()
	h.docker = true
	h.Exec("systemctl", "stop", "docker.socket", "docker")
}

// StartDocker starts it again.
func (h *Host) StartDocker() {
	h.t.Helper()
	h.Exec("systemctl", "reset-failed", "docker") // systemd counts starts, too
	h.Exec("systemctl", "start", "docker.socket", "docker")
	h.docker = false
}

// Stop cuts its power.
func (h *Host) Stop() {
	h.t.Helper()
	h.Slow(0)
	h.cut = false // it comes back with another cable
	h.hung = false
	h.docker = false
	h.stopped = true
	h.engine("kill", h.container)
}

// Start boots it, and returns when it has.
func (h *Host) Start() {
	h.t.Helper()
	h.engine("start", h.container)
	h.booted()
	h.stopped = false
}

// engine has this machine's engine do something.
func (h *Host) engine(args ...string) {
	h.t.Helper()
	_, err := output(h.name, nil, exec.Command("docker", args...))
	must(h.t, err)
}

func (h *Host) ip(args ...string) {
	h.t.Helper()
	_, err := output(h.name, nil, exec.Command("ip", args...))
	must(h.t, err)
}

// link is this machine's end of the host's cable.
func (h *Host) link() string {
	h.t.Helper()
	i, err := strconv.Atoi(h.Exec("cat", "/sys/class/net/eth0/iflink"))
	must(h.t, err)
	link, err := net.InterfaceByIndex(i)
	must(h.t, err)
	return link.Name
}

// bridgeOf is the bridge that a link is plugged into.
func bridgeOf(link string) (string, error) {
	to, err := os.Readlink("/sys/class/net/" + link + "/master")
	if err != nil {
		return "", errors.Join(errors.New(link+" is plugged into no bridge"), err)
	}
	return filepath.Base(to), nil
}
