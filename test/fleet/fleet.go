//go:build e2e

package fleet

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"conductor/test/image"
)

// prefix begins the name of every fleet of tests; a person's is another.
const prefix = "ct-fleet-t"

// folders is where script/fleet has the folder of each fleet.
const folders = "/var/tmp"

// Fleet is a fleet in the hands of a test.
type Fleet struct {
	t testing.TB
	*made
	LB     *Balancer
	Engine *image.Engine // this machine's, which a deploy ships images from
	images []string      // that the test has made there
}

// made is what script/fleet has made.
type made struct {
	Name  string
	Dir   string // ssh_config, known_hosts, key, fleet.yml, services, bin
	hosts []*machine
	lock  *os.File // held while this process lives, so that others can sweep up
	// hierarchies of control groups that there were before, as the kernel has them.
	hierarchies string
}

// one is the fleet of this process.
var one struct {
	sync.Mutex
	*made
}

// Main runs the tests of a package, and takes the fleet down that they used.
func Main(m *testing.M) (code int) {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "fleet: these tests need root, for the engine and for its hosts")
		return 1
	}
	defer func() {
		one.Lock()
		defer one.Unlock()
		if one.made == nil {
			return
		}
		for _, h := range one.hosts {
			h.wire.Close()
		}
		if err := errors.Join(one.down(), one.left()); err != nil {
			fmt.Fprintln(os.Stderr, "fleet:", err)
			code = max(code, 1)
		}
	}()
	return m.Run()
}

// Up gives the test a fleet with n hosts, web1 to webN, and lb1. The first test
// of the process to ask says how many there are for all.
func Up(t testing.TB, n int) *Fleet {
	t.Helper()
	one.Lock()
	defer one.Unlock()
	if one.made == nil {
		sweep(t)
		m, err := bringUp(n)
		if err != nil {
			t.Fatal(err)
		}
		one.made = m
	}
	if have := len(one.hosts) - 1; n > have {
		t.Fatalf("the fleet of this process has %d hosts, and %d are wanted: let all tests ask for as many", have, n)
	}
	f := &Fleet{t: t, made: one.made, Engine: image.NewEngine(socket())}
	f.LB = &Balancer{Host: f.Host("lb1")}
	t.Cleanup(f.reset)
	return f
}

// bringUp makes a fleet.
func bringUp(n int) (*made, error) {
	b := make([]byte, 5)
	rand.Read(b)
	name := prefix + strings.ToLower(base32.StdEncoding.EncodeToString(b))
	m := &made{Name: name, Dir: filepath.Join(folders, name), hierarchies: hierarchies()}
	if err := os.Mkdir(m.Dir, 0o755); err != nil {
		return nil, err
	}
	lock, err := os.Open(m.Dir)
	if err == nil {
		m.lock = lock
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err == nil {
		err = script(name, "up", fmt.Sprint(n)) // which takes down what it could not bring up
	}
	if err != nil {
		return nil, fmt.Errorf("bring up %s: %w", name, err)
	}
	list, err := os.ReadFile(filepath.Join(m.Dir, "hosts"))
	for line := range strings.Lines(string(list)) {
		name, address, _ := strings.Cut(strings.TrimSpace(line), " ")
		m.hosts = append(m.hosts, &machine{name: name, address: address, container: m.Name + "-" + name})
	}
	return m, err
}

// down takes it away.
func (m *made) down() error { return script(m.Name, "down") }

// left is an error if something is left of it.
func (m *made) left() error {
	var errs []error
	for what, list := range map[string][]string{
		"containers": {"docker", "ps", "-aq", "--filter", "label=ct-fleet=" + m.Name},
		"networks":   {"docker", "network", "ls", "-q", "--filter", "label=ct-fleet=" + m.Name},
		"images":     {"docker", "images", "-q", m.Name + "/*"},
		"mounts":     {"awk", "-v", "dir=" + m.Dir + "/", "index($2, dir) == 1 { print $2 }", "/proc/mounts"},
		"folders":    {"find", folders, "-maxdepth", "1", "-name", m.Name},
		"disks":      {"losetup", "-n", "-l", "-O", "BACK-FILE"},
	} {
		out, err := output("here", nil, exec.Command(list[0], list[1:]...))
		if what == "disks" && !strings.Contains(out, m.Dir) {
			out = ""
		}
		if err != nil || out != "" {
			errs = append(errs, fmt.Errorf("%s of %s are left: %s", what, m.Name, out), err)
		}
	}
	if now := hierarchies(); now != m.hierarchies {
		errs = append(errs, fmt.Errorf("there were control groups %s, and now %s", m.hierarchies, now))
	}
	return errors.Join(errs...)
}

// hierarchies are the controllers of the hierarchies of control groups that the
// kernel has.
func hierarchies() string {
	b, _ := os.ReadFile("/proc/self/cgroup")
	var names []string
	for line := range strings.Lines(string(b)) {
		_, line, _ = strings.Cut(line, ":")
		name, _, _ := strings.Cut(line, ":")
		names = append(names, name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// sweep takes away what killed runs have left: fleets whose process has ended.
func sweep(t testing.TB) {
	left, err := filepath.Glob(filepath.Join(folders, prefix+"*"))
	must(t, err)
	for _, dir := range left {
		info, err := os.Stat(dir)
		if err != nil || time.Since(info.ModTime()) < time.Minute {
			continue // gone meanwhile, or not locked yet
		}
		f, err := os.Open(dir)
		if err != nil {
			continue
		}
		if syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
			if err := script(filepath.Base(dir), "down"); err != nil {
				t.Logf("sweeping up after a killed run: %v", err)
			}
		}
		f.Close()
	}
}

// script runs script/fleet.
func script(name string, args ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Minute) // debootstrap, the first time
	defer cancel()
	cmd := exec.CommandContext(ctx, "../../script/fleet", append([]string{"--name", name}, args...)...)
	// It gets to take away what it has made.
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("script/fleet %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}

// Host is a host by its name, web1 and so on, or lb1.
func (f *Fleet) Host(name string) *Host {
	f.t.Helper()
	i := slices.IndexFunc(f.hosts, func(m *machine) bool { return m.name == name })
	if i < 0 {
		f.t.Fatalf("there is no host %s in the fleet", name)
	}
	return &Host{t: f.t, machine: f.hosts[i]}
}

// Hosts are those that run services: all but the balancer.
func (f *Fleet) Hosts() (hs []*Host) {
	for _, m := range f.hosts {
		if m.name != "lb1" {
			hs = append(hs, &Host{t: f.t, machine: m})
		}
	}
	return hs
}

// SSHConfig is the configuration with which ssh reaches the hosts by name.
func (f *Fleet) SSHConfig() string { return filepath.Join(f.Dir, "ssh_config") }

// Command is conductor as it is run at the desk: in the fleet's folder, where
// fleet.yml is, with a ssh that knows the hosts.
func (f *Fleet) Command(args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(f.Dir, "bin", "conductor"), args...)
	cmd.Dir = f.Dir
	cmd.Env = append(os.Environ(), "PATH="+filepath.Join(f.Dir, "bin")+":"+os.Getenv("PATH"))
	return cmd
}

// Repo is the image of the service shop, whose revisions v1 and v2 all hosts have.
func (f *Fleet) Repo() string { return f.Name + "/shop" }

// Image makes another revision, on this machine's engine alone: test/app with
// KEY=VALUE in its environment. It goes with the test.
func (f *Fleet) Image(revision string, env ...string) (ref string) {
	f.t.Helper()
	i := image.Image{Binary: filepath.Join(f.Dir, "app"), Env: map[string]string{"REVISION": revision}}
	for _, kv := range env {
		k, v, _ := strings.Cut(kv, "=")
		i.Env[k] = v
	}
	ref = f.Repo() + ":" + revision
	must(f.t, f.Engine.Import(context.Background(), ref, i))
	f.images = append(f.images, ref)
	return ref
}

// reset undoes what a test has done to the fleet, so that the next one finds it
// as it came up.
func (f *Fleet) reset() {
	f.Each(func(h *Host) {
		h.Heal()
		h.reset(f.Repo(), filepath.Join(f.Dir, "services", "shop.yml"))
	})
	f.LB.Heal()
	f.LB.Exec("systemctl", "restart", "haproxy")
	for _, ref := range f.images {
		if err := f.Engine.RemoveImage(context.Background(), ref); err != nil {
			f.t.Errorf("remove %s: %v", ref, err)
		}
	}
}

// Each does something with all hosts but the balancer, at once.
func (f *Fleet) Each(do func(*Host)) {
	f.t.Helper()
	var wg sync.WaitGroup
	hosts := f.Hosts()
	done := make([]bool, len(hosts))
	for i, h := range hosts {
		wg.Go(func() {
			do(h)
			done[i] = true
		})
	}
	wg.Wait()
	if slices.Contains(done, false) { // a test's FailNow ended it
		f.t.FailNow()
	}
}

// socket is where the machine's engine listens.
func socket() string {
	if s, ok := strings.CutPrefix(os.Getenv("DOCKER_HOST"), "unix://"); ok {
		return s
	}
	return "/var/run/docker.sock"
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits until f is true, and fails the test after d.
func eventually(t testing.TB, d time.Duration, what string, f func() bool) {
	t.Helper()
	deadline := time.Now().Add(d)
	for !f() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", d, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
