package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"conductor/test/bench/container"
	"conductor/test/image"
)

const (
	namespace = "ct-bench"
	repo      = "ct-bench-images/app"
	firstPort = 25000
	lastPort  = 25999
)

// host is an installation for the measurements: two nginx, one for Conductor
// and one for the floor, which are alike; an image in two revisions; a network
// for the floor's containers.
type host struct {
	options
	dir     string
	engine  *image.Engine
	main    *nginx // Conductor's
	floors  *nginx // the floor program's
	network network
	port    int // the last one handed out
}

// network is the floor's own; Conductor makes one for itself.
type network struct {
	id, name string
	subnet   netip.Prefix
}

func socket() string {
	if s, ok := strings.CutPrefix(os.Getenv("DOCKER_HOST"), "unix://"); ok {
		return s
	}
	return "/var/run/docker.sock"
}

func newHost(ctx context.Context, o options) (h *host, err error) {
	h = &host{options: o, engine: image.NewEngine(socket()), port: firstPort - 1}
	h.sweep() // what a killed run left
	if h.dir, err = os.MkdirTemp("", namespace+"-"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.close())
		}
	}()
	if err := os.Chmod(h.dir, 0o755); err != nil { // nginx's workers pass through
		return nil, err
	}
	for _, rev := range []string{"v1", "v2"} {
		if err := h.engine.Import(ctx, repo+":"+rev, image.Image{Binary: o.app, Env: map[string]string{"REVISION": rev},
			Labels: map[string]string{container.Label: namespace}}); err != nil {
			return nil, err
		}
	}
	if h.main, err = startNginx(ctx, filepath.Join(h.dir, "nginx"), h.freePort(), luaModules, ""); err != nil {
		return nil, err
	}
	if h.floors, err = startNginx(ctx, filepath.Join(h.dir, "floor-nginx"), h.freePort(), luaModules, ""); err != nil {
		return nil, err
	}
	if err := h.makeNetwork(ctx); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(h.dir, "services"), 0o755); err != nil {
		return nil, err
	}
	config := fmt.Sprintf("namespace: %s\nstate_dir: %s\nengine: {host: 'unix://%s'}\nproxy:\n  config_dir: %s\n  test: %s\n  reload: %s\n",
		namespace, filepath.Join(h.dir, "state"), h.engine.Socket, h.main.confD(),
		words(h.main.command("-t")), words(h.main.command("-s", "reload")))
	return h, os.WriteFile(h.configFile(), []byte(config), 0o644)
}

func (h *host) configFile() string { return filepath.Join(h.dir, "conductor.yml") }

// words are a list in YAML.
func words(ws []string) string { return "['" + strings.Join(ws, "', '") + "']" }

func (h *host) makeNetwork(ctx context.Context) error {
	h.network.name = namespace + "-floor"
	var made struct{ ID string }
	err := h.engine.Do(ctx, "POST", "/networks/create", nil, map[string]any{
		"Name": h.network.name, "Driver": "bridge", "Labels": map[string]string{container.Label: namespace},
		"IPAM": map[string]any{"Config": []map[string]string{{"Subnet": "10.211.0.0/24"}}},
	}, &made)
	if err != nil {
		return fmt.Errorf("make network: %w", err)
	}
	h.network.id, h.network.subnet = made.ID, netip.MustParsePrefix("10.211.0.0/24")
	return nil
}

// addr is the nth address of the floor's network.
func (h *host) addr(n int) netip.Addr {
	a := h.network.subnet.Addr().As4()
	a[3] = byte(n)
	return netip.AddrFrom4(a)
}

// service writes a definition and returns where the proxy serves it. Of health
// it says how it is asked, besides the path.
func (h *host) service(id string, replicas int, health ...string) (netip.AddrPort, error) {
	at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(h.freePort()))
	text := fmt.Sprintf("image: %s\nreplicas: %d\nenvironment: {SERVICE: %s}\nhttp: {port: 8080, listen: '%s'}\nhealth: {%s}\n",
		repo, replicas, id, at, strings.Join(append([]string{"path: /health"}, health...), ", "))
	return at, os.WriteFile(filepath.Join(h.dir, "services", id+".yml"), []byte(text), 0o644)
}

// freePort is a loopback port that nobody listens at.
func (h *host) freePort() int {
	for h.port++; h.port <= lastPort; h.port++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", h.port))
		if err == nil {
			_ = l.Close()
			return h.port
		}
	}
	panic("no free loopback port")
}

// command is conductor on this installation.
func (h *host) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, h.conductor, append([]string{"--config", h.configFile()}, args...)...)
}

func (h *host) close() error {
	h.main.stop()
	h.floors.stop()
	return errors.Join(h.sweep(), os.RemoveAll(h.dir))
}

// sweep takes away everything of the benchmarks' namespace at the engine.
func (h *host) sweep() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	errs := []error{h.leaveSwarm()}
	for _, label := range []string{"conductor.namespace=" + namespace, container.Label + "=" + namespace, container.Label + "=" + namespace + "-floor"} {
		errs = append(errs, h.removeContainers(ctx, label))
	}
	ns, err := h.engine.Networks(ctx)
	errs = append(errs, err)
	for _, n := range ns {
		if n.Name == namespace || n.Name == namespace+"-floor" {
			errs = append(errs, h.engine.RemoveNetwork(ctx, n.ID))
		}
	}
	for _, prefix := range []string{namespace + "/", repo + ":", shellRepo + ":"} {
		tags, err := h.engine.Tags(ctx, prefix)
		errs = append(errs, err)
		for _, t := range tags {
			errs = append(errs, h.engine.RemoveImage(ctx, t))
		}
	}
	return errors.Join(errs...)
}

// forget removes services.
func (h *host) forget(ctx context.Context, ids ...string) error {
	return atATime(4, len(ids), func(n int) error {
		if out, err := h.command(ctx, "service", "remove", "--id", ids[n]).CombinedOutput(); err != nil {
			return fmt.Errorf("remove %s: %w: %s", ids[n], err, out)
		}
		return nil
	})
}

func (h *host) removeContainers(ctx context.Context, label string) error {
	cs, err := h.engine.Containers(ctx, label)
	errs := []error{err}
	for _, c := range cs {
		errs = append(errs, h.engine.RemoveContainer(ctx, c.ID))
	}
	return errors.Join(errs...)
}

// machine says on what it was measured; no names.
func (h *host) machine(ctx context.Context) string {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	var v struct{ Version, APIVersion string }
	_ = h.engine.Do(ctx, "GET", "/version", nil, nil, &v) // an empty version shows
	out, _ := exec.CommandContext(ctx, "nginx", "-v").CombinedOutput()
	_, version, _ := strings.Cut(strings.TrimSpace(string(out)), "nginx/")
	cpu := ""
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if k, name, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == "model name" {
			cpu = strings.TrimSpace(name)
			break
		}
	}
	load, _ := os.ReadFile("/proc/loadavg")
	first, _, _ := strings.Cut(string(load), " ")
	number, _, _ := strings.Cut(strings.TrimSpace(string(kernel)), "-")
	return fmt.Sprintf("%d processors (%s), Linux %s, Docker %s (API %s), nginx %s with %d workers, %s; load average at the end %s.",
		runtime.NumCPU(), cpu, number, v.Version, v.APIVersion, version, workers, runtime.Version(), first)
}
