//go:build e2e

package e2e

import (
	"encoding/json"
	"math/rand/v2"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"conductor/test/image"
	"conductor/test/load"
)

// live are the running containers of the service.
func (e *Env) live(id string) []image.Container {
	e.t.Helper()
	return slices.DeleteFunc(e.Containers(id), func(c image.Container) bool { return c.State != "running" })
}

// killOne kills the process of a live instance, behind everybody's back, and
// returns its container.
func (e *Env) killOne(id string) string {
	e.t.Helper()
	cs := e.live(id)
	if len(cs) == 0 {
		e.t.Fatalf("%s has no live instance", id)
	}
	if !e.sigkill(cs[0].ID) {
		e.t.Fatalf("%s has ended by itself", cs[0].Name())
	}
	return cs[0].ID
}

// sigkill kills the process of a container; false: it has none any more, and
// process 0 would be this test with all that runs beside it.
func (e *Env) sigkill(id string) bool {
	e.t.Helper()
	pid := e.Inspect(id).PID
	return pid > 1 && syscall.Kill(pid, syscall.SIGKILL) == nil
}

// restored waits until n instances run, none of them gone.
func (e *Env) restored(id string, n int, gone ...string) {
	e.t.Helper()
	eventually(e.t, 30*time.Second, "the instances are restored", func() bool {
		cs := e.live(id)
		return len(cs) == n && !slices.ContainsFunc(cs, func(c image.Container) bool { return slices.Contains(gone, c.ID) })
	})
}

// serves waits until n instances are healthy and routed.
func (e *Env) serves(id string, n int) {
	e.t.Helper()
	eventually(e.t, 30*time.Second, "the instances serve", func() bool {
		in := 0
		for _, s := range e.Status(id).Instances {
			if s.Health == "healthy" && s.Route == "in" {
				in++
			}
		}
		return in == n
	})
}

// processes are those of a container.
func (e *Env) processes(container string) (pids []int) {
	e.t.Helper()
	var top struct{ Processes [][]string }
	must(e.t, e.Engine.Do(e.ctx(), "GET", "/containers/"+container+"/top", url.Values{"ps_args": {"-o pid"}}, nil, &top))
	for _, p := range top.Processes {
		pid, err := strconv.Atoi(p[0])
		must(e.t, err)
		pids = append(pids, pid)
	}
	return pids
}

type serviceStatus struct {
	Instances []struct{ Name, Health, Route string }
}

// Status is what service status says.
func (e *Env) Status(id string) (s serviceStatus) {
	e.t.Helper()
	var all []serviceStatus
	r := e.Conductor("--output", "json", "service", "status", "--id", id).Want(0)
	must(e.t, json.Unmarshal([]byte(r.Stdout), &all))
	return all[0]
}

// One of two replicas is killed under load: it is replaced at once, later ones
// 5 s after each other, and nothing fails but what the killed process had in hand.
func TestSupervise_ReplacesWhatDies(t *testing.T) {
	t.Parallel()
	e, addr := serving(t, Def{"replicas": "2"})
	p := e.Start("supervise")
	l := e.Load(load.Config{Addr: addr, Rate: 1000})
	const kills = 3
	for n := range kills {
		began := time.Now()
		e.restored("shop", 2, e.killOne("shop"))
		t.Logf("kill %d: 2 replicas run after %s", n+1, time.Since(began).Round(time.Millisecond))
		e.serves("shop", 2)
	}
	r := l.Stop()
	t.Logf("%s", r)
	if r.Failed > kills*32 { // the connections of the load
		t.Errorf("%d requests failed, more than were in hand", r.Failed)
	}
	e.Conductor("service", "history", "--id", "shop").Want(0, "supervisor", "killed by SIGKILL")
	p.Signal(syscall.SIGTERM)
	began := time.Now()
	p.Wait().Want(0)
	within(t, time.Second, time.Since(began), "its end")
	e.WantInstances("shop", map[string]int{"v1": 2})
}

// An instance that is killed again and again is started at once the first time,
// and then every 5 s and no sooner, also when the supervisor is another one.
func TestSupervise_RestartsEvery5Seconds(t *testing.T) {
	t.Parallel()
	e, _ := serving(t, Def{"replicas": "1"})
	p := e.Start("supervise")
	first := e.Inspect(e.live("shop")[0].ID).StartedAt
	starts := []time.Time{first}
	n := repeat(5, 20)
	for k := range n {
		e.restored("shop", 1, e.killOne("shop"))
		starts = append(starts, e.Inspect(e.live("shop")[0].ID).StartedAt)
		if k%2 == 1 {
			p.Signal(syscall.SIGKILL)
			p.Wait()
			p = e.Start("supervise")
		}
	}
	most := 5*time.Second + e.allow(3*time.Second)
	for k := 2; k < len(starts); k++ {
		if gap := starts[k].Sub(starts[k-1]); gap < 5*time.Second || gap > most {
			t.Errorf("restart %d was %s after the one before, want 5 s", k, gap.Round(time.Millisecond))
		}
	}
	t.Logf("the first restart %s after the start, then %d more", starts[1].Sub(starts[0]).Round(time.Millisecond), n-1)
}

// A process that hangs with its port open is replaced by one that answers; the
// others serve on.
func TestSupervise_ReplacesWhatHangs(t *testing.T) {
	t.Parallel()
	e, addr := serving(t, Def{"replicas": "2", "health": "{path: /health, interval: 500ms, timeout: 500ms, unhealthy_after: 2, start_timeout: 15s}", "stop_grace_period": "1s"})
	e.Start("supervise")
	e.serves("shop", 2)
	hung := e.live("shop")[0]
	pids, started := e.processes(hung.ID), e.Inspect(hung.ID).StartedAt
	// In one slot 5 s lie between two starts, whatever happens.
	eventually(t, 10*time.Second, "it has run for a while", func() bool { return time.Since(started) > 5*time.Second })
	began := time.Now()
	for _, pid := range pids {
		must(t, syscall.Kill(pid, syscall.SIGSTOP))
	}
	eventually(t, 20*time.Second, "it is replaced", func() bool { return len(e.live("shop")) == 3 })
	found := time.Since(began)
	e.restored("shop", 2, hung.ID)
	// unhealthy_after × (interval + timeout), and the start of a container.
	within(t, 2*time.Second+e.allow(2*time.Second), found, "until a replacement ran")
	t.Logf("a replacement ran after %s, all was well after %s", found.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	e.serves("shop", 2)
	wantServes(t, addr, "v1")
	e.Conductor("service", "history", "--id", "shop").Want(0, "supervisor")
}

// Without a supervisor what dies stays dead, and so does what was stopped or is
// left to a person.
func TestSupervise_StopIsStop(t *testing.T) {
	t.Parallel()
	e, addr := serving(t, Def{"replicas": "2"})
	p := e.Start("supervise")
	e.restored("shop", 2, e.killOne("shop"))

	e.Conductor("supervise", "--pause", "shop").Want(0, "left to you")
	e.Conductor("service", "status").Want(0, "supervision is paused")
	e.killed("shop", 1)
	e.stays("shop", 1)
	e.Conductor("supervise", "--resume", "shop").Want(0)
	e.restored("shop", 2)
	e.Conductor("supervise").Want(7, "supervise") // there is one

	e.Do("service", "stop", "--id", "shop")
	e.stays("shop", 0)
	e.Do("service", "start", "--id", "shop")
	e.serves("shop", 2)
	var done []struct{ Verb, Error string }
	must(t, json.Unmarshal([]byte(e.Conductor("--output", "json", "service", "history", "--id", "shop").Want(0).Stdout), &done))
	for _, op := range done { // what was killed, and not what was stopped
		if op.Verb == "replace" && !strings.Contains(op.Error, "killed by SIGKILL") {
			t.Errorf("the supervisor takes what was stopped for dead: %+v", op)
		}
	}

	p.Signal(syscall.SIGINT)
	p.Wait().Want(0)
	e.killed("shop", 1)
	e.stays("shop", 1)
	wantServes(t, addr, "v1")
}

// killed kills an instance and waits until the engine knows: n are left.
func (e *Env) killed(id string, n int) {
	e.t.Helper()
	e.killOne(id)
	eventually(e.t, 5*time.Second, "the engine sees its end", func() bool { return len(e.live(id)) == n })
}

// stays sees for a while that so many instances run, and no more.
func (e *Env) stays(id string, n int) {
	e.t.Helper()
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if k := len(e.live(id)); k > n {
			e.t.Fatalf("%d instances of %s run, want %d", k, id, n)
		}
	}
	if k := len(e.live(id)); k != n {
		e.t.Errorf("%d instances of %s run, want %d", k, id, n)
	}
}

// When all replicas turn sick at once, they are not all killed: one at a time is
// tried, and when the cause goes away it all recovers by itself.
func TestSupervise_AllSickAtOnce(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Shell("v1", nil)
	must(t, os.Mkdir(e.Path("database"), 0o755))
	e.write("database/up", "yes")
	addr := e.Web("shop", Def{
		"replicas": "3", "health": "{path: /up, interval: 300ms, unhealthy_after: 2, start_timeout: 2s}",
		"command": "[httpd, -f, -p, '8080', -h, /srv]", "volumes": "['" + e.Path("database") + ":/srv']",
	})
	e.Upgrade("shop", "v1").Want(0)
	e.Start("supervise")
	e.serves("shop", 3)
	before := e.IDs("shop")
	must(t, os.Remove(e.Path("database/up")))
	eventually(t, 20*time.Second, "one is tried", func() bool { return len(e.live("shop")) > 3 })
	for end := time.Now().Add(8 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		cs := e.live("shop")
		kept := 0
		for _, c := range cs {
			if slices.Contains(before, c.ID) {
				kept++
			}
		}
		if kept < 3 || len(cs) > 4 {
			t.Fatalf("%d of 3 instances are left, and %d run in all", kept, len(cs))
		}
	}
	e.Conductor("service", "status").Want(0, "unhealthy")
	if a := get(addr, "/up"); a.Status != 404 { // a bad answer of the application's own, not none
		t.Errorf("%s", a)
	}
	e.write("database/up", "yes")
	e.serves("shop", 3)
	e.restored("shop", 3)
	if a := get(addr, "/up"); a.Status != 200 {
		t.Errorf("%s", a)
	}
}

// Old instances are replaced by fresh ones, one at a time, and nothing is
// dropped. A fresh one that does not become healthy leaves the old one be.
func TestSupervise_Recycles(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Shell("v1", nil)
	must(t, os.Mkdir(e.Path("www"), 0o755))
	e.write("www/up", "yes")
	addr := e.Web("shop", Def{
		"replicas": "2", "health": "{path: /up, interval: 300ms, unhealthy_after: 100, start_timeout: 2s}", "recycle": "{every: 10s}",
		"command": "[httpd, -f, -p, '8080', -h, /srv]", "volumes": "['" + e.Path("www") + ":/srv']",
	})
	e.Upgrade("shop", "v1").Want(0)
	before := e.IDs("shop")
	p := e.Start("supervise")
	l := e.Load(load.Config{Addr: addr, Path: "/up", Rate: 200})
	most := 0
	eventually(t, e.allow(40*time.Second), "both are replaced", func() bool {
		most = max(most, len(e.live("shop")))
		return len(e.live("shop")) == 2 && !slices.ContainsFunc(e.live("shop"), func(c image.Container) bool { return slices.Contains(before, c.ID) })
	})
	e.NoFailures(l)
	if most > 3 {
		t.Errorf("%d instances ran at once: more than one was replaced at a time", most)
	}
	// What starts now does not become healthy, and what runs is not asked so strictly.
	must(t, os.Remove(e.Path("www/up")))
	e.write("www/index.html", "still here")
	old := e.IDs("shop")
	p.Until("warning", 1)
	eventually(t, 20*time.Second, "the fresh one is gone", func() bool { return slices.Equal(e.IDs("shop"), old) })
	if a := get(addr, "/"); a.Status != 200 {
		t.Errorf("%s", a)
	}
}

// Upgrades and the supervisor do not get into each other's way.
func TestSupervise_LeavesUpgradesAlone(t *testing.T) {
	t.Parallel()
	e, addr := serving(t, Def{"replicas": "2"})
	e.Start("supervise")
	l := e.Load(load.Config{Addr: addr, Rate: 500})
	at := "v1"
	for range 4 {
		at = map[string]string{"v1": "v2", "v2": "v1"}[at]
		e.Upgrade("shop", at).Want(0)
		wantServes(t, addr, at)
	}
	e.NoFailures(l)
	e.restored("shop", 2, e.killOne("shop"))
	e.WantInstances("shop", map[string]int{at: 2})
	// One that was cut off is finished.
	to := map[string]string{"v1": "v2", "v2": "v1"}[at]
	e.StartKilled(2, "service", "upgrade", "--id", "shop", "--revision", to).Wait()
	eventually(t, 30*time.Second, "it is finished", func() bool {
		return strings.Contains(e.read("state/goals/shop.json"), `"revision": "`+to) && !strings.Contains(e.read("state/goals/shop.json"), `"candidate"`)
	})
	eventually(t, 30*time.Second, "what was before is gone", func() bool { return len(e.Instances("shop")) == 1 && e.Instances("shop")[to] == 2 })
}

// The supervisor is killed at random while instances die at random: in the end
// the goals are met, and nothing is there besides.
func TestSupervise_SurvivesKills(t *testing.T) {
	t.Parallel()
	e, addr := serving(t, Def{"replicas": "2"})
	p := e.Start("supervise")
	for range repeat(10, 100) {
		if cs := e.live("shop"); len(cs) > 0 && rand.IntN(2) == 0 {
			e.sigkill(cs[rand.IntN(len(cs))].ID) // it may be gone
		}
		time.Sleep(time.Duration(rand.IntN(400)) * time.Millisecond) // when it is killed is chance
		p.Signal(syscall.SIGKILL)
		p.Wait()
		p = e.Start("supervise")
	}
	e.serves("shop", 2)
	e.restored("shop", 2)
	wantServes(t, addr, "v1")
	if dead := len(e.Containers("shop")) - 2; dead > 2 {
		t.Errorf("%d dead instances are kept, want one a slot", dead)
	}
}

// The disk with Conductor's state is full: what dies is replaced all the same,
// and what could not be written down is when there is room.
func TestSupervise_DiskFull(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.smallState(2 << 20)
	e.Images("v1")
	addr := e.Web("shop", nil)
	e.Upgrade("shop", "v1").Want(0)
	e.Start("supervise")
	e.serves("shop", 2)
	free := e.fillState()
	e.restored("shop", 2, e.killOne("shop"))
	wantServes(t, addr, "v1") // by the other one
	free()
	e.serves("shop", 2)
	// The history tries again after a while.
	eventually(t, 40*time.Second, "deaths are in the history again", func() bool {
		e.restored("shop", 2, e.killOne("shop"))
		return strings.Contains(e.Conductor("service", "history", "--id", "shop").Want(0).Text(), "supervisor")
	})
	e.serves("shop", 2)
}

// nginx is killed, and its file is deleted and edited by hand: what is
// Conductor's own is put right.
func TestSupervise_PutsTheProxyRight(t *testing.T) {
	t.Parallel()
	e, addr := serving(t, nil)
	const file = "nginx/conf.d/conductor.conf"
	right := e.read(file)
	p := e.Start("supervise")
	said := 0
	for name, harm := range map[string]func(){
		"deleted": func() { must(t, os.Remove(e.Path(file))) },
		"edited":  func() { e.write(file, strings.ReplaceAll(right, "proxy_pass", "# proxy_pass")) },
		"emptied": func() { e.write(file, "") },
	} {
		harm()
		said++
		p.Until("configured", said) // it is told
		if now := e.read(file); strings.Count(now, "\n") != strings.Count(right, "\n") || strings.Contains(now, "# proxy_pass") {
			t.Errorf("the file that was %s is now\n%s", name, now)
		}
		wantServes(t, addr, "v1")
	}
	e.Nginx.Stop()
	e.killOne("shop")
	e.restored("shop", 2)
	e.Nginx.Start()
	e.serves("shop", 2)
	wantServes(t, addr, "v1")
	p.Signal(syscall.SIGTERM)
	p.Wait().Want(0)
}

// The engine is gone for a while, with all containers: all comes back, and it is
// told in one message.
func TestSupervise_EngineGone(t *testing.T) {
	t.Parallel()
	e, d := newWithEngine(t)
	e.Images("v1")
	addr := e.Web("shop", nil)
	e.Web("blog", Def{"replicas": "1"})
	for _, id := range []string{"shop", "blog"} {
		e.Upgrade(id, "v1").Want(0)
	}
	p := e.Start("supervise")
	d.Stop()
	p.Until("warning", 1)
	time.Sleep(time.Duration(repeat(5, 30)) * time.Second) // the case is that it is gone for so long
	d.Start()
	e.serves("shop", 2)
	e.serves("blog", 1)
	wantServes(t, addr, "v1")
	p.Signal(syscall.SIGTERM)
	r := p.Wait().Want(0)
	if n := strings.Count(strings.Join(r.Names(), " "), "warning"); n != 1 {
		t.Errorf("%d warnings, want one: %s", n, r)
	}
}

// Everything has died, as after a boot: services come back after those that
// they depend on, and each by itself.
func TestSupervise_BringsServicesBackInOrder(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Image("v1", "HEALTH_DELAY=1s")
	order := []string{"database", "cache", "shop"} // not the alphabet's
	for n, id := range order {
		def := Def{"replicas": "2"}
		if n > 0 {
			def["depends_on"] = "[" + order[n-1] + "]"
		}
		e.Web(id, def)
	}
	for _, id := range order {
		e.Upgrade(id, "v1").Want(0)
	}
	for _, id := range order {
		e.killed(id, 1)
		e.killed(id, 0)
	}
	p := e.Start("supervise")
	for _, id := range order {
		e.restored(id, 2)
		e.serves(id, 2)
	}
	p.Signal(syscall.SIGTERM)
	r := p.Wait().Want(0)
	for n, id := range order[1:] {
		before, after := -1, -1
		for i, ev := range r.Events {
			if ev.Service == order[n] && ev.Event == "healthy" && before < 0 {
				before = i
			}
			if ev.Service == id && ev.Event == "created" && after < 0 {
				after = i
			}
		}
		if before < 0 || after < before {
			t.Errorf("%s was begun (event %d) before %s was healthy (event %d): %s", id, after, order[n], before, r)
		}
	}
}
