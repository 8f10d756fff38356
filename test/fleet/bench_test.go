//go:build e2e

package fleet

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"conductor/internal/engine/docker"
	"conductor/internal/fleet"
	"conductor/internal/fleet/sessions"
	"conductor/internal/remote"
	remotessh "conductor/internal/remote/ssh"
	"conductor/test/image"
)

// delay is of the links to all hosts and to the balancer, each way: an answer
// comes twice as much later.
const delay = 20 * time.Millisecond

// BenchmarkFleet is what script/bench measures of deploys, by the names of its
// parts; -count says how many pairs. Each measures two things in turns, and
// reports both.
func BenchmarkFleet(b *testing.B) {
	f := Up(b, size)
	f.describe(b, "strategy: all")
	f.run(b, "deploy", "--id", "shop", "--revision", "v1").want(0)
	f.Each(func(h *Host) { h.Slow(delay) })
	f.LB.Slow(delay)
	for _, h := range f.Hosts() {
		eventually(b, 15*time.Second, h.Name()+" is up at the balancer", func() bool { return f.LB.Server(h.Name())["status"] == "UP" })
	}
	m := &measuring{Fleet: f, revision: "v1"}
	b.Run("all", m.all)
	b.Run("handshake", m.handshakes)
	b.Run("ship", m.ship)
}

// measuring is a fleet that is measured; count is of the pairs so far.
type measuring struct {
	*Fleet
	revision string // that all hosts run
	count    int
}

// other is the revision that they go to next.
func (m *measuring) other() string {
	m.revision = map[string]string{"v1": "v2", "v2": "v1"}[m.revision]
	return m.revision
}

// turns does things in another order for each pair.
func (m *measuring) turns(do ...func()) {
	m.count++
	for n := range do {
		do[(n+m.count)%len(do)]()
	}
}

// all: a deploy to all hosts at once, against the upgrades that the hosts do by
// themselves: one after the other, and together. A deploy to one host beside them
// is what a deploy adds where no other host wants the processors.
func (m *measuring) all(b *testing.B) {
	for range b.N {
		var deploy, one, alone, together time.Duration
		own := func(h *Host, revision string) time.Duration {
			began := time.Now()
			h.Exec("conductor", "service", "upgrade", "--id", "shop", "--revision", revision)
			return time.Since(began)
		}
		m.turns(func() {
			deploy = m.run(b, "deploy", "--id", "shop", "--revision", m.other()).want(0).took
		}, func() {
			revision := m.other()
			for _, h := range m.Hosts() {
				alone = max(alone, own(h, revision))
			}
		}, func() {
			revision, began := m.other(), time.Now()
			m.Each(func(h *Host) { own(h, revision) })
			together = time.Since(began)
		}, func() {
			revision, first := m.other(), m.Hosts()[0]
			one = m.run(b, "deploy", "--id", "shop", "--revision", revision, "--hosts", first.Name()).want(0).took
			m.Each(func(h *Host) {
				if h != first {
					own(h, revision)
				}
			})
		})
		b.ReportMetric(deploy.Seconds(), "deploy-s")
		b.ReportMetric(one.Seconds(), "one-s")
		b.ReportMetric(alone.Seconds(), "alone-s")
		b.ReportMetric(together.Seconds(), "together-s")
	}
	b.ReportMetric(0, "ns/op")
}

// handshakes: those of a deploy in halves, with an image that is shipped and a
// migration, as each sshd tells.
func (m *measuring) handshakes(b *testing.B) {
	m.describe(b, "strategy: halves, image: ship, migrate: [/app, migrate]")
	defer m.describe(b, "strategy: all")
	for range b.N {
		m.count++
		revision := fmt.Sprintf("shipped%d", m.count)
		m.Image(revision)
		before := m.accepted()
		m.run(b, "deploy", "--id", "shop", "--revision", revision).want(0)
		most, all := 0, 0
		for host, n := range m.accepted() {
			most = max(most, n-before[host])
			all += n - before[host]
		}
		b.ReportMetric(float64(all)/float64(len(before)), "mean-handshakes")
		b.ReportMetric(float64(most), "most-handshakes")
	}
	b.ReportMetric(0, "ns/op")
}

// accepted is how many connections each sshd has let in.
func (m *measuring) accepted() map[string]int {
	all := map[string]int{}
	for _, machine := range m.hosts {
		h := m.Host(machine.name)
		h.Exec("journalctl", "--sync")
		all[h.Name()] = strings.Count(h.Exec("journalctl", "-u", "ssh", "-o", "cat", "--no-pager"), "Accepted publickey")
	}
	return all
}

// layer is how large the layer is that travels, and does not get smaller by
// being packed.
const layer = 100 << 20

// ship: an image whose layer is new to the host, against scp of the same bytes.
func (m *measuring) ship(b *testing.B) {
	noise := make([]byte, layer)
	rand.Read(noise)
	file, ref, h := filepath.Join(b.TempDir(), "layer"), m.Repo()+":noise", m.Host("web1")
	must(b, os.WriteFile(file, noise, 0o600))
	must(b, m.Engine.Import(b.Context(), ref, image.Image{Binary: filepath.Join(m.Dir, "app"), Files: map[string]string{"noise": string(noise)}}))
	defer func() { must(b, m.Engine.RemoveImage(context.Background(), ref)) }()
	for range b.N {
		var scp, sent, whole time.Duration
		m.turns(func() {
			cmd := exec.Command("scp", "-q", "-F", m.SSHConfig(), file, h.Name()+":layer")
			began := time.Now()
			if out, err := cmd.CombinedOutput(); err != nil {
				b.Fatalf("scp: %v: %s", err, out)
			}
			scp = time.Since(began)
			h.Exec("rm", "/home/deploy/layer")
		}, func() {
			sent, whole = m.bring(b, h, "noise")
			h.Exec("docker", "rmi", ref)
		})
		b.ReportMetric(scp.Seconds(), "scp-s")
		b.ReportMetric(sent.Seconds(), "sent-s")
		b.ReportMetric(whole.Seconds(), "whole-s")
	}
	b.ReportMetric(layer, "bytes")
	b.ReportMetric(0, "ns/op")
}

// bring has the host have the image as a deploy does, over a connection of its
// own. sent is the session in which the layer travels, from its request to the
// host's word that the layer is on its disk and right; whole is all of it, the
// connection and what both engines do included.
func (m *measuring) bring(b *testing.B, h *Host, revision string) (sent, whole time.Duration) {
	b.Helper()
	ctx := b.Context()
	e, err := docker.New("")
	must(b, err)
	defer e.Close()
	t := &stopwatch{Transport: remotessh.New(remotessh.Options{Command: []string{"ssh", "-F", m.SSHConfig()}}), of: remote.Receive}
	defer t.Close()
	hosts := &sessions.Hosts{Transport: t, At: map[string]remote.Host{h.Name(): {Name: h.Name(), SSH: h.Name()}}, Version: "bench", By: "bench"}
	shipper := &sessions.Shipper{Engine: e, Hosts: hosts}
	defer shipper.Close()
	began := time.Now()
	held, err := hosts.Hold(ctx, h.Name(), fleet.Question{Service: "shop"}, false)
	must(b, err)
	defer held.Release()
	_, err = shipper.Ship(ctx, h.Name(), "shop", revision)
	must(b, err)
	return t.took, time.Since(began)
}

// stopwatch adds up how long requests of one kind take.
type stopwatch struct {
	remote.Transport
	of   remote.Do
	took time.Duration
}

func (s *stopwatch) Do(ctx context.Context, host remote.Host, r remote.Request, streams remote.Streams) error {
	began := time.Now()
	err := s.Transport.Do(ctx, host, r, streams)
	if r.Do == s.of {
		s.took += time.Since(began)
	}
	return err
}
