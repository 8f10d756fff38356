//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// dockerd is restarted in the middle of an upgrade: it ends, or fails clearly,
// and the next run converges.
func TestEngine_RestartedDuringAnUpgrade(t *testing.T) {
	t.Parallel()
	e, d := newWithEngine(t)
	e.Images("v1", "v2")
	addr := e.Web("shop", nil)
	e.Upgrade("shop", "v1").Want(0)

	at := "v1"
	for _, event := range []string{"created", "started", "healthy", "routed", "drained", "stopped"} {
		to := map[string]string{"v1": "v2", "v2": "v1"}[at]
		up := e.Start("service", "upgrade", "--id", "shop", "--revision", to)
		up.Until(event, 1)
		d.Stop()
		d.Start()
		switch r := up.Wait(); r.Code {
		case 0:
		case 5, 8:
			if r.Result == nil || r.Result.Error == "" {
				t.Errorf("restarted after %s: it does not tell: %s", event, r)
			}
		default:
			t.Errorf("restarted after %s: neither the end nor a clear error: %s", event, r)
		}
		e.Do("converge")
		e.Upgrade("shop", to).Want(0)
		at = to
		wantServes(t, addr, at)
		e.WantInstances("shop", map[string]int{at: 2})
		if t.Failed() {
			t.Fatalf("at the restart after %s", event)
		}
	}
}

// The engine is gone for a while and comes back: nothing that conductor keeps
// says otherwise, and converge brings all back.
func TestEngine_Gone(t *testing.T) {
	t.Parallel()
	e, d := newWithEngine(t)
	e.Images("v1", "v2")
	addr := e.Web("shop", nil)
	e.Upgrade("shop", "v1").Want(0)
	d.Stop()
	e.Upgrade("shop", "v2").Want(8, d.Engine.Socket)
	e.Conductor("service", "status").WantOneOf(d.Engine.Socket)
	d.Start()
	e.Do("converge")
	wantServes(t, addr, "v1")
	e.WantInstances("shop", map[string]int{"v1": 2})
}

// The engine fails half-way in a removal: nobody is the worse for it, everybody is
// told, and once it can the next converge finishes it.
func TestEngine_RemovalFails(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Images("v1", "v2")
	addr := e.Web("shop", nil)
	e.Upgrade("shop", "v1").Want(0)
	stuck := e.Containers("shop")[0].Name()
	release := e.immovable(stuck)
	e.Upgrade("shop", "v2").Want(0, stuck, "takes up disk space", "operation not permitted")
	wantServes(t, addr, "v2")
	e.Conductor("service", "status", "--id", "shop").Want(0, "removing", "its removal failed")
	e.Conductor("converge").Want(0, stuck, "takes up disk space")
	e.Upgrade("shop", "v1").Want(0) // its name is not had twice
	wantServes(t, addr, "v1")
	e.WantInstances("shop", map[string]int{"v1": 2})
	release()
	e.Conductor("converge").Want(0, "removed", stuck)
	if n := len(e.Containers("shop")); n != 2 {
		t.Errorf("%d containers, want 2", n)
	}
	release = e.immovable(e.Containers("shop")[0].Name())
	e.Verb("remove", "shop").Want(1, "operation not permitted")
	release()
	e.Do("converge")
	if n := len(e.Containers("shop")); n != 0 {
		t.Errorf("%d containers, want none", n)
	}
}

// The engine cannot write down that it has started a container, as where its disk
// is full: it lists it as created for good, and it serves.
func TestEngine_ListsWhatItWroteLast(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Images("v1", "v2")
	addr := e.Web("shop", Def{"replicas": "1"})
	var info struct{ DockerRootDir string }
	must(t, e.Engine.Do(e.ctx(), "GET", "/info", nil, nil, &info))
	listed := func(state string) int {
		n := 0
		for _, c := range e.Containers("shop") {
			if c.State == state {
				n++
			}
		}
		return n
	}
	at, release := "", func() {}
	// From its log's beginning to the start of its process a container needs a tenth
	// of a second, which now and then is too little.
	for try := 0; listed("created") != 1; try++ {
		if release(); try == 5 {
			t.Fatalf("the engine lists %d as created and %d as running: it could write the starts down", listed("created"), listed("running"))
		}
		at = []string{"v1", "v2"}[try%2]
		e.startWith([]string{"--output", "json", "service", "upgrade", "--id", "shop", "--revision", at}, func(p *Proc) {
			p.onEvent = func(_ int, ev Event) {
				if ev.Event != "created" {
					return
				}
				dir := filepath.Join(info.DockerRootDir, "containers", ev.Container)
				for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(time.Millisecond) {
					if logs, _ := filepath.Glob(dir + "/*log*"); len(logs) > 0 {
						break
					}
				}
				release = e.immutable(dir)
			}
		}).Wait().Want(0)
	}
	wantServes(t, addr, at)
	e.Conductor("converge").Want(0, "nothing to do")
	e.Conductor("service", "status", "--id", "shop").Want(0, "1/1 healthy")
	sv := e.supervised()
	e.Kill(e.Containers("shop")[0].ID)
	sv.Until("healthy", 1)
	release()
	sv.Signal(syscall.SIGTERM)
	sv.Wait()
	e.Do("converge")
	wantServes(t, addr, at)
	e.WantInstances("shop", map[string]int{at: 1}) // and the dead one, listed as it was
}

// immovable puts a file into a container that nobody can delete, the engine no
// more than root, until release.
func (e *Env) immovable(container string) (release func()) {
	e.t.Helper()
	var c struct {
		GraphDriver struct{ Data struct{ UpperDir string } }
	}
	must(e.t, e.Engine.Do(e.ctx(), "GET", "/containers/"+container+"/json", nil, nil, &c))
	file := filepath.Join(c.GraphDriver.Data.UpperDir, "immovable")
	must(e.t, os.WriteFile(file, nil, 0o600))
	return e.immutable(file)
}

// immutable makes a file one that nobody can delete, change or replace, until
// release.
func (e *Env) immutable(file string) (release func()) {
	e.t.Helper()
	set := func(on bool) {
		f, err := os.Open(file)
		must(e.t, err)
		defer f.Close()
		flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
		must(e.t, err)
		const bit = 0x10 // FS_IMMUTABLE_FL of linux/fs.h
		if flags &^= bit; on {
			flags |= bit
		}
		must(e.t, unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags))
	}
	set(true)
	release = sync.OnceFunc(func() { set(false) })
	e.t.Cleanup(release)
	return release
}
