//go:build e2e

package fleet

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Host is a host in the hands of a test. What it does there goes past the
// network, so that it works on a host that is cut off, too.
type Host struct {
	t testing.TB
	*machine
}

// machine is a host, and what is wrong with it.
type machine struct {
	name, address, container string

	stopped bool
	cut     bool
	full    bool
	hung    bool // sshd
	docker  bool // its engine was stopped
	bare    bool // another machine is in its place
	wire    *wire
}

// Name is web1 and the like, which is its host name, and its name for ssh.
func (h *Host) Name() string { return h.name }

// IP is its address on the fleet's network.
func (h *Host) IP() string { return h.address }

// Try runs a command there as root, and returns what it wrote.
func (h *Host) Try(command ...string) (stdout string, err error) {
	return h.pipe(nil, command...)
}

// Exec runs a command there as root, which must end well, and returns what it
// wrote, without the newline at the end.
func (h *Host) Exec(command ...string) (stdout string) {
	h.t.Helper()
	out, err := h.Try(command...)
	must(h.t, err)
	return strings.TrimRight(out, "\n")
}

// pipe runs a command there with something on its standard input.
func (h *Host) pipe(stdin []byte, command ...string) (stdout string, err error) {
	return output(h.name, stdin, exec.Command("docker", append([]string{"exec", "-i", h.container}, command...)...))
}

// SSH runs a command there by ssh, as the user deploy.
func (h *Host) SSH(f *Fleet, command ...string) (stdout string, err error) {
	return output(h.name, nil, exec.Command("ssh", append([]string{"-F", f.SSHConfig(), h.name}, command...)...))
}

func output(on string, stdin []byte, cmd *exec.Cmd) (string, error) {
	var out, said bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &said
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s: %s: %w\n%s%s", on, strings.Join(cmd.Args, " "), err, out.String(), said.String())
	}
	return out.String(), nil
}

// Write writes a file there, root's and for all to read.
func (h *Host) Write(path, text string) {
	h.t.Helper()
	_, err := h.pipe([]byte(text), "tee", path)
	must(h.t, err)
}

// Load brings images there from this machine's engine.
func (h *Host) Load(refs ...string) {
	h.t.Helper()
	images, err := exec.Command("docker", append([]string{"save"}, refs...)...).Output()
	must(h.t, err)
	_, err = h.pipe(images, "docker", "load")
	must(h.t, err)
}

// booted waits until all of its units have started.
func (h *Host) booted() {
	h.t.Helper()
	eventually(h.t, time.Minute, h.name+" has booted", func() bool {
		// It waits, where systemd can be asked at all.
		said, err := h.Try("systemctl", "is-system-running", "--wait")
		if strings.HasPrefix(said, "degraded") {
			said, _ = h.Try("systemctl", "--failed", "--no-pager")
			h.t.Fatalf("%s has not booted well:\n%s", h.name, said)
		}
		return err == nil
	})
}

// reset takes away what a test has had conductor do there: services, their
// definitions, and images but v1 and v2 of repo.
func (h *Host) reset(repo, definition string) {
	h.t.Helper()
	text, err := os.ReadFile(definition)
	must(h.t, err)
	h.Exec("sh", "-euc", `
		for goal in /var/lib/conductor/goals/*.json; do
			[ -e "$goal" ] || continue
			conductor --output quiet service remove --id "$(basename "$goal" .json)"
		done
		rm -f /etc/conductor/services/*
		docker images --format '{{.Repository}}:{{.Tag}}' | grep -vxF "$1:v1" | grep -vxF "$1:v2" | grep -v '<none>' | xargs -r docker rmi >/dev/null
		docker image prune -f >/dev/null`, "-", repo)
	h.Write("/etc/conductor/services/shop.yml", string(text))
}
