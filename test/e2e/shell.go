//go:build e2e

package e2e

import (
	"math"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"conductor/test/image"
)

// shellService makes a revision of an image with a shell, busybox, and the
// definition of a worker that it is an image of. Runs of it are commands.
func (e *Env) shellService(id string, def Def, revisions ...string) {
	e.t.Helper()
	for _, r := range revisions {
		e.Shell(r, nil)
	}
	d := Def{
		"kind": "worker", "image": e.Repo(), "command": "[sleep, '86400']", "stop_grace_period": "2s",
		"environment": "{A: from-the-definition}", "limits": "{memory: 64m}", "replicas": "1",
	}
	for k, v := range def {
		d[k] = v
	}
	e.Service(id, flow(d))
}

// Shell makes a revision with busybox and its commands in /bin, and the files.
// Its working directory is /srv.
func (e *Env) Shell(revision string, files map[string]string) {
	e.t.Helper()
	i := image.Image{
		Binary: "/bin/busybox", Files: files, Links: map[string]string{}, Dir: "/srv", Cmd: "/bin/sh",
		Env: map[string]string{"REVISION": revision}, Labels: map[string]string{prefix: e.Namespace},
	}
	for _, c := range strings.Fields("sh cat ls echo sleep yes head env id printf tty stty kill true false date dd seq wc tr touch nc mkdir httpd") {
		i.Links["bin/"+c] = "busybox"
	}
	i.Links["bin/busybox"] = "../app"
	must(e.t, e.Engine.Import(e.ctx(), e.Repo()+":"+revision, i))
}

// run are the words of conductor run, with its flags before the command.
func run(id, revision string, words ...string) []string {
	return append([]string{"run", "--id", id, "--revision", revision}, words...)
}

// sh is a script as a command.
func sh(script string) []string { return []string{"sh", "-c", script} }

// liveRuns are the containers of runs that there are.
func (e *Env) liveRuns(id string) []image.Container {
	e.t.Helper()
	cs, err := e.Engine.Containers(e.ctx(), "conductor.namespace="+e.Namespace, "conductor.service="+id, "conductor.kind=run")
	must(e.t, err)
	return cs
}

// wantNoRuns fails the test if a container of a run is left.
func (e *Env) wantNoRuns(id string) {
	e.t.Helper()
	for _, c := range e.liveRuns(id) {
		e.t.Errorf("run %s is left: %s", c.Name(), c.Status)
	}
}

// exec runs a command in a container, and does not wait for it.
func (e *Env) exec(id string, command ...string) {
	e.t.Helper()
	var made struct {
		ID string `json:"Id"`
	}
	must(e.t, e.Engine.Do(e.ctx(), "POST", "/containers/"+id+"/exec", nil, map[string]any{"Cmd": command}, &made))
	must(e.t, e.Engine.Do(e.ctx(), "POST", "/exec/"+made.ID+"/start", nil, map[string]any{"Detach": true}, nil))
}

// says waits until the process has written the text on stdout.
func (p *Proc) says(t testing.TB, text string) {
	t.Helper()
	eventually(t, procTimeout, "it says "+text, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return slices.Contains(strings.Split(p.lines, "\n"), text)
	})
}

// within fails the test if something took longer.
func within(t testing.TB, limit, took time.Duration, what string) {
	t.Helper()
	if took > limit {
		t.Errorf("%s took %s, want at most %s", what, took.Round(time.Millisecond), limit)
	}
}

// usualStart is how long conductor takes to start where nothing is amiss, with the
// other tests beside it.
const usualStart = 50 * time.Millisecond

// allow is the time that what starts containers may take, which is given for a usual
// machine: as much more as processes take to start on this one at the moment, up to
// eight times. Some virtual machines take ten times as long for a page fault.
func (e *Env) allow(d time.Duration) time.Duration {
	e.t.Helper()
	best := time.Duration(math.MaxInt64)
	for range 3 {
		best = min(best, e.Conductor("version").Want(0).Took)
	}
	return time.Duration(float64(d) * min(max(float64(best)/float64(usualStart), 1), 8))
}

// asCron runs the command of a crontab's line as cron does: what comes after
// the first % is its input, with a newline for each further one, and the
// host's shell gets the rest.
func (e *Env) asCron(command string) (stdout string) {
	e.t.Helper()
	var text, input strings.Builder
	to := &text
	for i := 0; i < len(command); i++ {
		switch {
		case command[i] == '\\' && i+1 < len(command) && strings.IndexByte(`%\`, command[i+1]) >= 0 && to == &text:
			i++
			to.WriteByte(command[i])
		case command[i] == '%' && to == &text:
			to = &input
		case command[i] == '%':
			to.WriteByte('\n')
		default:
			to.WriteByte(command[i])
		}
	}
	if to == &input {
		input.WriteByte('\n')
	}
	cmd := exec.Command("/bin/sh", "-c", text.String())
	cmd.Env, cmd.Dir, cmd.Stdin = []string{"PATH=/usr/bin:/bin"}, e.Dir, strings.NewReader(input.String())
	out, err := cmd.Output()
	if err != nil {
		e.t.Errorf("%s: %v", text.String(), err)
	}
	return string(out)
}

func (e *Env) exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
