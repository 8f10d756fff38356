//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"conductor/test/image"
)

// tearDown takes the installation down; a failed test tells first what was there.
func (e *Env) tearDown() {
	if e.t.Failed() {
		e.dump()
	}
	if e.Nginx != nil {
		e.Nginx.Stop()
	}
	if err := clearAll(e.ctx(), e.Engine, e.Namespace); err != nil {
		e.t.Errorf("cleaning up: %v", err)
	}
	if e.t.Failed() && os.Getenv("CONDUCTOR_TEST_KEEP") != "" {
		e.t.Logf("kept %s", e.Dir)
		return
	}
	for _, dir := range []string{e.Dir, e.RunDir(), e.RunDir() + ".sock"} {
		if err := os.RemoveAll(dir); err != nil {
			e.t.Errorf("cleaning up: %v", err)
		}
	}
}

// clearAll removes all that the engine has of a namespace.
func clearAll(ctx context.Context, engine *image.Engine, namespace string) error {
	errs := []error{clearContainers(ctx, engine, namespace)}
	ns, err := engine.Networks(ctx)
	errs = append(errs, err)
	for _, n := range ns {
		if n.Name == namespace || n.Labels["conductor.namespace"] == namespace {
			errs = append(errs, engine.RemoveNetwork(ctx, n.ID))
		}
	}
	tags, err := engine.Tags(ctx, namespace)
	errs = append(errs, err)
	for _, t := range tags {
		errs = append(errs, engine.RemoveImage(ctx, t))
	}
	// The engine ends what a process has asked for that was killed meanwhile.
	return errors.Join(append(errs, clearContainers(ctx, engine, namespace))...)
}

func clearContainers(ctx context.Context, engine *image.Engine, namespace string) error {
	cs, err := engine.Containers(ctx, "conductor.namespace="+namespace)
	errs := make([]error, len(cs))
	var wg sync.WaitGroup
	slots := make(chan struct{}, 8) // some tests have a hundred
	for i, c := range cs {
		slots <- struct{}{}
		wg.Go(func() {
			errs[i] = engine.RemoveContainer(ctx, c.ID)
			<-slots
		})
	}
	wg.Wait()
	return errors.Join(append(errs, err)...)
}

// old is how long ago a run began that surely is no more.
const old = time.Hour

// sweep removes what killed runs of these tests left behind: everything named
// as newNamespace names it, made more than an hour ago.
func sweep(ctx context.Context, engine *image.Engine) error {
	stale := map[string]bool{}
	note := func(name string) {
		if at, ok := madeAt(name); ok && time.Since(at) > old {
			stale[name] = true
		}
	}
	cs, err := engine.Containers(ctx, "conductor.namespace")
	if err != nil {
		return err
	}
	for _, c := range cs {
		note(c.Labels["conductor.namespace"])
	}
	ns, err := engine.Networks(ctx)
	if err != nil {
		return err
	}
	for _, n := range ns {
		note(n.Name)
	}
	tags, err := engine.Tags(ctx, prefix+"-")
	if err != nil {
		return err
	}
	for _, t := range tags {
		repo, _, _ := strings.Cut(t, "/")
		note(strings.TrimSuffix(repo, "-images"))
	}
	for _, parent := range []string{os.TempDir(), runDirs} {
		dirs, _ := filepath.Glob(filepath.Join(parent, prefix+"-*"))
		for _, d := range dirs {
			note(strings.TrimSuffix(filepath.Base(d), ".sock")) // a supervisor's, that was killed
		}
	}
	var errs []error
	for namespace := range stale {
		dir := filepath.Join(os.TempDir(), namespace)
		for _, f := range []string{"nginx/nginx.pid", "dockerd/docker.pid"} {
			killOwn(filepath.Join(dir, f), dir)
		}
		errs = append(errs, unmountBelow(dir), clearAll(ctx, engine, namespace), os.RemoveAll(dir), os.RemoveAll(filepath.Join(runDirs, namespace)), os.RemoveAll(filepath.Join(runDirs, namespace+".sock")))
	}
	return errors.Join(errs...)
}

// unmountBelow takes away what is mounted below dir, the last one first.
func unmountBelow(dir string) error {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	var errs []error
	lines := strings.Split(string(b), "\n")
	for _, line := range slices.Backward(lines) {
		// Names of these tests have no space, which would be written as \040.
		words := strings.Fields(line)
		if len(words) < 2 || !strings.HasPrefix(words[1], dir+"/") {
			continue
		}
		// EINVAL: it has gone meanwhile, as those of processes that end do.
		if err := syscall.Unmount(words[1], syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", words[1], err))
		}
	}
	return errors.Join(errs...)
}

// killOwn ends the process of a pid file if its command line names dir.
func killOwn(pidFile, dir string) {
	b, err := os.ReadFile(pidFile)
	if err != nil {
		return
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || pid < 2 {
		return
	}
	cmdline, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if strings.Contains(string(cmdline), dir) {
		syscall.Kill(pid, syscall.SIGTERM)
	}
}

// dump tells what a failed test leaves, while it is there.
func (e *Env) dump() {
	var b strings.Builder
	section := func(name, text string) {
		if text = strings.TrimSpace(text); text != "" {
			fmt.Fprintf(&b, "--- %s\n%s\n", name, indent(text))
		}
	}
	cs, err := e.Engine.Containers(e.ctx(), "conductor.namespace="+e.Namespace)
	text := ""
	if err != nil {
		text = err.Error()
	}
	for _, c := range cs {
		var addrs []string
		for _, n := range c.NetworkSettings.Networks {
			addrs = append(addrs, n.IPAddress)
		}
		text += fmt.Sprintf("%-40s %-10s %-30s %s\n", c.Name(), c.State, c.Status, strings.Join(addrs, " "))
	}
	section("containers", text)
	section("nginx error log", tail(e.Nginx.ErrorLog(), 40))
	for _, pattern := range []string{"conductor.yml", "services/*.yml", "state/routes.json", "state/goals/*.json", "nginx/conf.d/*.conf"} {
		files, _ := filepath.Glob(e.Path(pattern))
		if len(files) > 6 {
			files = files[:6]
		}
		for _, f := range files {
			content, _ := os.ReadFile(f)
			section(f, tail(string(content), 60))
		}
	}
	if out, err := exec.Command("find", e.Path("state"), "-type", "f").Output(); err == nil {
		section("state", string(out))
	}
	e.t.Logf("what was there at the failure:\n%s", b.String())
}

// tail is the last n lines.
func tail(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
