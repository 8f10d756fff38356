//go:build e2e

package e2e

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"conductor/test/load"
)

// wantRefused fails the test unless the run ended with the exit code, told all
// the words to people and to programs, and said what to do next.
func (r Run) wantRefused(code int, words ...string) {
	r.t.Helper()
	r.Want(code)
	if r.Result == nil || *r.Result.OK || r.Result.Code != code || r.Result.Error == "" {
		r.t.Errorf("the result does not tell of a failure with exit code %d: %s", code, r)
		return
	}
	if r.Result.Hint == "" {
		r.t.Errorf("it does not say what to do: %s", r)
	}
	for _, w := range words {
		if !strings.Contains(r.Stderr, w) {
			r.t.Errorf("stderr does not say %q: %s", w, r)
		}
		if !strings.Contains(r.Result.Error+r.Result.Hint, w) {
			r.t.Errorf("the result does not say %q: %s", w, r)
		}
	}
}

// What can fail before anything is touched fails there: the contract's exit
// code, a word on what to do, and nothing changed, under load.
func TestContract_RefusedBeforeAnythingIsTouched(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Images("v1", "v2")
	secret := e.Path("token")
	e.write("token", "s3cret-token")
	shop := Def{"secrets": "{TOKEN: {file: " + secret + "}}"}
	addr := e.Web("shop", shop)
	shop["http"] = "{port: 8080, listen: '" + addr + "'}"
	e.Upgrade("shop", "v1").Want(0)
	l := e.Load(load.Config{Addr: addr, Rate: 200})

	upgrade := []string{"service", "upgrade", "--id", "shop", "--revision", "v2"}
	for _, tt := range []struct {
		name  string
		args  []string // default: upgrade
		def   Def      // over shop's definition, for the time of the test
		other string   // definition of another service
		conf  string   // another file of nginx
		do    func(t *testing.T, e *Env)
		code  int
		words []string
	}{
		{name: "unknown revision", args: []string{"service", "upgrade", "--id", "shop", "--revision", "v9"}, code: 4,
			words: []string{e.Repo() + ":v9", "cannot be had", "check the revision"}},
		{name: "unknown revision, never pulled", args: []string{"service", "upgrade", "--id", "shop", "--revision", "v9"}, def: Def{"pull_policy": "never"}, code: 4,
			words: []string{e.Repo() + ":v9", "not on this host", "pull_policy"}},
		{name: "unknown service", args: []string{"service", "upgrade", "--id", "shpo", "--revision", "v2"}, code: 3,
			words: []string{"shpo", "shop"}},
		{name: "invalid definition", def: Def{"replics": "3"}, code: 3,
			words: []string{e.Path("services/shop.yml") + ":7:1", "replics", "replicas"}},
		{name: "a route that another service claims", other: "image: x\nhttp: {port: 80, listen: '" + addr + "'}\n", code: 3,
			words: []string{"shop", "other", "services/other.yml:2:1", "services/shop.yml:3:1"}},
		{name: "ports without stop-first", def: Def{"ports": "['127.0.0.1:23998:8080']", "replicas": "1"}, code: 3,
			words: []string{e.Path("services/shop.yml") + ":", "ports", "stop-first"}},
		{name: "secret that cannot be read", do: func(t *testing.T, _ *Env) {
			must(t, os.Rename(secret, secret+".away"))
			t.Cleanup(func() { os.Rename(secret+".away", secret) })
		}, code: 9, words: []string{"TOKEN", secret}},
		{name: "wrong usage: flag missing", args: []string{"service", "upgrade", "--id", "shop"}, code: 2, words: []string{"--revision", "for example"}},
		{name: "wrong usage: unknown flag", args: append(upgrade, "--revison", "v2"), code: 2, words: []string{"--revison", "--revision"}},
		{name: "wrong usage: unknown command", args: []string{"service", "upgarde", "--id", "shop"}, code: 2, words: []string{"upgarde", "upgrade"}},
		{name: "wrong usage: words for flags", args: []string{"service", "upgrade", "shop", "v2"}, code: 2, words: []string{"--id shop --revision v2"}},
		{name: "configuration of nginx broken by another file", conf: "server { listen 127.0.0.1:1; no_such_directive on; }\n", code: 6,
			words: []string{filepath.Join(e.Nginx.ConfD(), "zz-other.conf") + ":1", "no_such_directive", "no file of Conductor's"}},
		{name: "engine down", do: func(t *testing.T, e *Env) {
			e.Config(map[string]string{"engine": "{host: unix://" + e.Path("no-engine.sock") + "}"})
			t.Cleanup(func() { e.Config(map[string]string{"engine": "{host: unix://" + e.Engine.Socket + "}"}) })
		}, code: 8, words: []string{e.Path("no-engine.sock")}},
		{name: "listen port taken", do: func(t *testing.T, e *Env) {
			taken, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", freePort(t)))
			must(t, err)
			t.Cleanup(func() { taken.Close() })
			e.Service("taken", flow(Def{"image": e.Repo(), "http": "{port: 8080, listen: '" + taken.Addr().String() + "'}"}))
		}, args: []string{"service", "upgrade", "--id", "taken", "--revision", "v2"}, code: 6, words: []string{"127.0.0.1 is taken by", strconv.Itoa(os.Getpid()), "http.listen"}},
		{name: "timeout", def: Def{"health": "{path: /headers/no, status: 299}"}, args: append([]string{"--timeout", "1s"}, upgrade...), code: 124},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := e.With(t)
			e.t = t
			before := e.Snapshot()
			def := Def{}
			for _, d := range []Def{shop, tt.def} {
				for k, v := range d {
					def[k] = v
				}
			}
			e.Web("shop", def)
			defer e.Web("shop", shop)
			if tt.other != "" {
				e.Service("other", tt.other)
				defer os.Remove(e.Path("services/other.yml"))
			}
			defer os.Remove(e.Path("services/taken.yml"))
			if tt.conf != "" {
				f := filepath.Join(e.Nginx.ConfD(), "zz-other.conf")
				must(t, os.WriteFile(f, []byte(tt.conf), 0o644))
				defer func() {
					must(t, os.Remove(f))
					e.Unchanged(before)
				}()
			}
			if tt.do != nil {
				tt.do(t, e)
			}
			args := tt.args
			if args == nil {
				args = upgrade
			}
			e.JSON(args...).wantRefused(tt.code, tt.words...)
			if tt.conf == "" {
				e.Unchanged(before)
			}
			wantServes(t, addr, "v1")
		})
	}
	if r := e.NoFailures(l); len(r.Revisions) != 1 {
		t.Errorf("answers came from %+v, want v1 alone", r.Revisions)
	}
	e.Upgrade("shop", "v2").Want(0)
	wantServes(t, addr, "v2")
}

// A second command on the same service is refused, and told whom it waits for;
// one on another service is not.
func TestContract_SecondUpgradeOfOneService(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Images("v1")
	e.Image("v2", "HEALTH_DELAY=3s")
	addr := e.Web("shop", nil)
	e.Upgrade("shop", "v1").Want(0)
	first := e.Start("service", "upgrade", "--id", "shop", "--revision", "v2")
	first.Until("started", 1)
	for _, verb := range []string{"upgrade", "rollback", "stop", "start", "restart", "remove", "scale"} {
		args := []string{"service", verb, "--id", "shop"}
		switch verb {
		case "upgrade":
			args = append(args, "--revision", "v1")
		case "scale":
			args = append(args, "--replicas", "3")
		}
		r := e.JSON(args...)
		r.wantRefused(7, "shop", strconv.Itoa(first.PID()), "upgrade")
		if r.Took > time.Second {
			t.Errorf("%s was refused after %s", verb, r.Took)
		}
	}
	e.Conductor("service", "status", "--id", "shop").Want(0, "v1", "v2")
	first.Wait().Want(0)
	wantServes(t, addr, "v2")
}

// nginx does not run: nothing is started, and once it runs it serves what it served.
func TestContract_NginxDown(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Images("v1", "v2")
	addr := e.Web("shop", nil)
	e.Upgrade("shop", "v1").Want(0)
	before := e.Snapshot()
	e.Nginx.Stop()
	for _, args := range [][]string{
		{"service", "upgrade", "--id", "shop", "--revision", "v2"},
		{"service", "upgrade", "--id", "shop", "--revision", "v2", "--plan"},
	} {
		r := e.JSON(args...)
		r.Want(8, "start nginx")
		if r.Took > 2*time.Second {
			t.Errorf("told after %s: %s", r.Took, r)
		}
		e.Unchanged(before)
	}
	e.Upgrade("shop", "v2").wantRefused(8, "nginx", "start nginx")
	e.Unchanged(before)
	e.Nginx.Start()
	wantServes(t, addr, "v1")
	e.Upgrade("shop", "v2").Want(0)
	wantServes(t, addr, "v2")
}

// nginx runs and does not read our file.
func TestContract_IncludeMissing(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Images("v1")
	e.nginxWithout("include ")
	addr := e.Web("shop", nil)
	before := e.Snapshot()
	e.Upgrade("shop", "v1").wantRefused(6, filepath.Join(e.Nginx.ConfD(), "*.conf"), "include", "http block")
	e.Unchanged(before)
	if a := get(fmt.Sprintf("127.0.0.1:%d", e.Nginx.Port), "/"); a.Status != 200 {
		t.Errorf("nginx answers %s", a)
	}
	if a := get(addr, "/"); a.Err == nil {
		t.Errorf("%s answers %s", addr, a)
	}
}

// nginx has no Lua: the packages are named.
func TestContract_LuaModuleMissing(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Images("v1")
	e.nginxWithout("load_module ")
	e.Web("shop", nil)
	before := e.Snapshot()
	e.Upgrade("shop", "v1").wantRefused(9, "libnginx-mod-http-lua", "lua-resty-core", "apt-get install")
	e.Unchanged(before)
}

// nginxWithout starts this nginx again without the lines that begin so.
func (e *Env) nginxWithout(directive string) {
	e.t.Helper()
	b, err := os.ReadFile(e.Nginx.Conf())
	must(e.t, err)
	var kept []string
	for line := range strings.Lines(string(b)) {
		if !strings.HasPrefix(strings.TrimSpace(line), directive) {
			kept = append(kept, line)
		}
	}
	if len(kept) == strings.Count(string(b), "\n") {
		e.t.Fatalf("no line of %s begins with %q", e.Nginx.Conf(), directive)
	}
	must(e.t, os.WriteFile(e.Nginx.Conf(), []byte(strings.Join(kept, "")), 0o644))
	e.Nginx.Stop()
	e.Nginx.Start()
}

// The disk that state_dir is on is full: nothing is begun. It fills up in the
// middle of an upgrade: it ends with the contract's exit code, the old release
// serves on, and the same command ends well once there is room.
func TestContract_DiskFull(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Images("v1", "v3")
	e.Image("v2", "HEALTH_DELAY=500ms")
	e.smallState(1 << 20)
	addr := e.Web("shop", nil)
	e.Upgrade("shop", "v1").Want(0)
	before := e.Snapshot()
	ids := e.containerIDs("shop")
	l := e.Load(load.Config{Addr: addr, Rate: 200})

	free := e.fillState()
	e.Upgrade("shop", "v2").wantRefused(9, "disk is full", e.Path("state"))
	free()
	e.Unchanged(before)

	up := e.Start("service", "upgrade", "--id", "shop", "--revision", "v2")
	up.Until("started", 2)
	free = e.fillState()
	up.Wait().wantRefused(9, "disk is full", e.Path("state"))
	for id, c := range ids {
		if now := e.containerIDs("shop")[id]; now != "running" {
			t.Errorf("the old release's container %.12s was %s and is %q", id, c, now)
		}
	}
	wantServes(t, addr, "v1")
	if v2, ok := e.NoFailures(l).Revision("v2"); ok {
		t.Errorf("the release that could not be written down served: %+v", v2)
	}
	free()
	e.Upgrade("shop", "v2").Want(0)
	wantServes(t, addr, "v2")
	e.WantInstances("shop", map[string]int{"v2": 2})
	if n := len(e.Containers("")); n != 2 {
		t.Errorf("%d containers are left, want 2", n)
	}
	if left, _ := filepath.Glob(e.Path("state/*/*.tmp")); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

// smallState mounts a file system of a size in bytes as state_dir.
func (e *Env) smallState(size int) {
	e.t.Helper()
	dir := e.Path("state")
	must(e.t, os.Mkdir(dir, 0o700))
	must(e.t, syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+strconv.Itoa(size)))
	e.t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			e.t.Errorf("unmount %s: %v", dir, err)
		}
	})
}

// fillState writes into state_dir until nothing more fits.
func (e *Env) fillState() (free func()) {
	e.t.Helper()
	name := e.Path("state/filler")
	f, err := os.Create(name)
	must(e.t, err)
	defer f.Close()
	for _, n := range []int{4096, 1} {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, n))
		}
	}
	if !strings.Contains(err.Error(), syscall.ENOSPC.Error()) {
		e.t.Fatalf("fill %s: %v", name, err)
	}
	return func() { must(e.t, os.Remove(name)) }
}

// containerIDs are all containers of a service, ID → state.
func (e *Env) containerIDs(service string) map[string]string {
	e.t.Helper()
	ids := map[string]string{}
	for _, c := range e.Containers(service) {
		ids[c.ID] = c.State
	}
	return ids
}
