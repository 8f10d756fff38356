//go:build e2e

package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// What a secret's value must never be seen in: labels, what the engine says of
// the container besides its environment, events, plans, answers, the history,
// state files, the proxy's file, errors, and the arguments of any process. The
// container has it, as environment or as a file.
func TestSecrets_AreSeenNowhereButInTheContainer(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Images("v1", "v2")
	e.Image("bad", "EXIT_AT_START=1")
	const asEnv, asFile, asCommand, inEnvFile = "5ecretEnv4711", "5ecretFile4711", "5ecretCommand4711", "5ecretEnvFile4711"
	values := []string{asEnv, asFile, asCommand, inEnvFile}
	e.write("env-secret", asEnv+"\n")
	e.write("file-secret", asFile+"\n")
	e.write("command-secret", asCommand+"\n")
	e.write("env-file", "FROM_FILE="+inEnvFile+"\n")
	addr := e.Web("shop", Def{
		"env_file": "[" + e.Path("env-file") + "]",
		"secrets": "{ENV_TOKEN: {file: " + e.Path("env-secret") + "}, FILE_TOKEN: {file: " + e.Path("file-secret") + ", as: file}, " +
			"COMMAND_TOKEN: {command: [cat, " + e.Path("command-secret") + "]}}",
		"health": "{path: /health, interval: 500ms, start_timeout: 3s}",
	})
	argv := watchArguments(values)
	clean := func(r Run) {
		t.Helper()
		for _, v := range values {
			if strings.Contains(r.Text(), v) {
				t.Errorf("%q is told: %s", v, r)
			}
		}
	}
	for _, output := range []string{"json", "plain"} {
		run := func(args ...string) Run {
			t.Helper()
			r := e.Conductor(append([]string{"--output", output}, args...)...)
			clean(r)
			return r
		}
		run("service", "upgrade", "--id", "shop", "--revision", "v1", "--plan").Want(0)
		run("service", "upgrade", "--id", "shop", "--revision", "v1").Want(0)
		run("service", "upgrade", "--id", "shop", "--revision", "bad").Want(5)
		run("service", "upgrade", "--id", "shop", "--revision", "v2").Want(0)
		run("service", "rollback", "--id", "shop", "--plan").Want(0)
		run("service", "rollback", "--id", "shop").Want(0)
		run("service", "status").Want(0)
		run("service", "history", "--id", "shop").Want(0)
		run("validate").Want(0)
		run("doctor")
	}

	// A new value is a new release: the instances are replaced, and only then.
	old := e.Snapshot().Containers
	run := e.Upgrade("shop", "v1").Want(0)
	if run.Find("created") != nil {
		t.Errorf("nothing changed, and yet: %s", run)
	}
	e.write("env-secret", asEnv+"-rotated\n")
	rotated := e.Upgrade("shop", "v1").Want(0)
	clean(rotated)
	if rotated.Find("created") == nil || fmt.Sprint(old) == fmt.Sprint(e.Snapshot().Containers) {
		t.Errorf("a rotated secret replaced nothing: %s", rotated)
	}
	wantServes(t, addr, "v1")

	for _, c := range e.Containers("shop") {
		e.wantInside(c.ID, asEnv+"-rotated", asFile, asCommand, inEnvFile)
	}
	for _, dir := range []string{e.Path("state"), e.Nginx.ConfD()} {
		wantNowhereIn(t, dir, values)
	}
	if fi, err := os.Stat(e.RunDir()); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("who may list placed secrets: %v, %v", fi, err)
	}

	// Errors of the source tell of the source, not of what it printed.
	e.Web("shop", Def{"secrets": "{COMMAND_TOKEN: {command: [sh, -c, 'cat " + e.Path("command-secret") + "; cat " + e.Path("command-secret") + " >&2; exit 3']}}"})
	r := e.Upgrade("shop", "v2").Want(9, "COMMAND_TOKEN")
	clean(r)
	clean(e.Conductor("service", "history", "--id", "shop").Want(0))

	e.Verb("remove", "shop").Want(0)
	if left, _ := os.ReadDir(e.RunDir()); len(left) > 0 {
		t.Errorf("placed secrets are left: %v", left)
	}
	for process, line := range argv() {
		t.Errorf("in the arguments of process %d: %q", process, line)
	}
}

// wantInside fails the test unless the container has the values, and what the
// engine tells of it has them in its environment alone.
func (e *Env) wantInside(id, asEnv, asFile, asCommand, inEnvFile string) {
	e.t.Helper()
	var all map[string]any
	must(e.t, e.Engine.Do(e.ctx(), "GET", "/containers/"+id+"/json", nil, nil, &all))
	config := all["Config"].(map[string]any)
	env := fmt.Sprint(config["Env"])
	for _, want := range []string{"ENV_TOKEN=" + asEnv, "COMMAND_TOKEN=" + asCommand, "FROM_FILE=" + inEnvFile} {
		if !strings.Contains(env, want) {
			e.t.Errorf("the container's environment has no %s", want)
		}
	}
	delete(config, "Env")
	rest, err := json.Marshal(all)
	must(e.t, err)
	for _, v := range []string{asEnv, asFile, asCommand, inEnvFile} {
		if bytes.Contains(rest, []byte(v)) {
			e.t.Errorf("the engine tells of %q outside of the environment", v)
		}
	}
	if strings.Contains(env, asFile) {
		e.t.Errorf("a secret that should be a file is in the environment")
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/root/run/secrets/FILE_TOKEN", e.Inspect(id).PID))
	if err != nil || strings.TrimSpace(string(b)) != asFile {
		e.t.Errorf("/run/secrets/FILE_TOKEN in the container: %q, %v", b, err)
	}
}

// wantNowhereIn fails the test if a file of the folder has one of the values.
func wantNowhereIn(t *testing.T, dir string, values []string) {
	t.Helper()
	must(t, filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(name)
		for _, v := range values {
			if bytes.Contains(b, []byte(v)) {
				t.Errorf("%q is in %s", v, name)
			}
		}
		return err
	}))
}

// watchArguments looks at the arguments of all processes until it is asked
// which of them had one of the values.
func watchArguments(values []string) (found func() map[int]string) {
	stop := make(chan struct{})
	seen := map[int]string{}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
			for _, f := range files {
				b, _ := os.ReadFile(f)
				for _, v := range values {
					if bytes.Contains(b, []byte(v)) {
						var pid int
						fmt.Sscanf(f, "/proc/%d/", &pid)
						seen[pid] = string(bytes.ReplaceAll(b, []byte{0}, []byte{' '}))
					}
				}
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	return func() map[int]string {
		close(stop)
		wg.Wait()
		return seen
	}
}
