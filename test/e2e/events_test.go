//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// The events of one instance come in the contract's order; these come once.
var (
	comes = []string{"created", "started", "healthy", "configured", "reloaded", "routed"}
	goes  = []string{"unrouted", "drained", "stopped", "removed"}
	known = append(slices.Concat(comes, goes), "pulled", "failed", "restored", "committed", "note", "warning", "result")
)

// What programs read: an object a line, each with its fields, in the
// contract's order for each instance, the result last.
func TestEvents_AreAsTheContractSays(t *testing.T) {
	t.Parallel()
	const id = "gocardless_app_production"
	e := New(t)
	e.Images("v1", "0123456789abcdef0123456789abcdef01234567")
	e.Image("v3", "EXIT_AT_START=2")
	addr := e.Web(id, nil)
	names := map[string]string{} // container ID → name, of all that were seen
	look := func() {
		for _, c := range e.Containers("") {
			names[c.ID] = c.Name()
		}
	}
	run := func(args ...string) Run {
		t.Helper()
		p := e.Start(args...)
		for !p.Ended() {
			look()
		}
		r := p.Wait()
		e.wantContract(r, id, names)
		return r
	}
	first := run("service", "upgrade", "--id", id, "--revision", "v1").Want(0)
	wantOrder(t, first, "v1", 2, comes)
	if c := first.Find("committed"); c == nil || c.Revision != "v1" {
		t.Errorf("no committed: %s", first)
	}

	second := run("service", "upgrade", "--id", id, "--revision", "0123456789abcdef0123456789abcdef01234567").Want(0)
	wantOrder(t, second, "0123456789abcdef0123456789abcdef01234567", 2, []string{"created", "started", "healthy", "configured", "routed"})
	wantOrder(t, second, "v1", 2, goes)
	wantServes(t, addr, "0123456789abcdef0123456789abcdef01234567")
	// Nothing of the old release is touched before the new one is committed.
	if i, j := slices.Index(second.Names(), "unrouted"), slices.Index(second.Names(), "stopped"); i > j || slices.Index(second.Names(), "committed") > j {
		t.Errorf("stopped before unrouted and committed: %v", second.Names())
	}

	third := run("service", "upgrade", "--id", id, "--revision", "v3").Want(5)
	if f := third.Find("failed"); f == nil || f.Cause == "" || f.Detail == "" || f.Instance == "" || f.Container == "" {
		t.Errorf("failed does not name the instance and the cause: %s", third)
	}
	if third.Find("routed") != nil || third.Find("committed") != nil || third.Find("unrouted") != nil {
		t.Errorf("a release that failed was routed: %v", third.Names())
	}

	restart := run("service", "restart", "--id", id).Want(0)
	wantOrder(t, restart, "", 4, nil)
	wantOrder(t, run("service", "stop", "--id", id).Want(0), "", 2, []string{"unrouted", "drained", "stopped"})
	run("service", "start", "--id", id).Want(0)
	run("service", "rollback", "--id", id).Want(0)
	run("service", "scale", "--id", id, "--replicas", "1").Want(0)
	nothing := run("converge").Want(0)
	if len(nothing.Events) != 1 {
		t.Errorf("converge with nothing to do tells of %v", nothing.Names())
	}
	run("service", "remove", "--id", id).Want(0)
	run("service", "remove", "--id", id) // whatever it says, it says it so
	run("service", "upgrade", "--id", "nobody", "--revision", "v1").Want(3)
}

var (
	fullID       = regexp.MustCompile(`^[0-9a-f]{64}$`)
	nanoseconds  = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{1,9}Z$`)
	instanceName = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,12}\.[0-9a-f]{4}-(\d+-\d+|before)$`)
)

// wantContract fails the test unless stdout is what the contract says.
func (e *Env) wantContract(r Run, id string, names map[string]string) {
	e.t.Helper()
	lines := strings.Split(strings.TrimSuffix(r.Stdout, "\n"), "\n")
	var before time.Time
	for n, line := range lines {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			e.t.Errorf("line %d is no JSON object: %q: %s", n+1, line, r)
			return
		}
		name, _ := m["event"].(string)
		if !slices.Contains(known, name) {
			e.t.Errorf("unknown event %q: %s", name, line)
		}
		if (name == "result") != (n == len(lines)-1) {
			e.t.Errorf("the result is not the last line: %s", r)
			return
		}
		if name == "result" {
			ok, isBool := m["ok"].(bool)
			code, isNumber := m["code"].(float64)
			text, isText := m["error"].(string)
			if !isBool || !isNumber || !isText || int(code) != r.Code || ok != (r.Code == 0) || (text == "") != ok {
				e.t.Errorf("the result is not that of exit code %d: %s", r.Code, line)
			}
			continue
		}
		for k, v := range m {
			if s, ok := v.(string); !ok || s == "" {
				e.t.Errorf("%s is no string with something in it: %s", k, line)
			}
		}
		for k := range maps.Keys(m) {
			if !slices.Contains([]string{"time", "event", "service", "revision", "instance", "container", "cause", "detail"}, k) {
				e.t.Errorf("unknown field %s: %s", k, line)
			}
		}
		at, err := time.Parse(time.RFC3339Nano, fmt.Sprint(m["time"]))
		if err != nil || !nanoseconds.MatchString(fmt.Sprint(m["time"])) {
			e.t.Errorf("time is not RFC 3339 with nanoseconds: %s", line)
		}
		// Steps run side by side: their lines may swap within moments.
		if before.Sub(at) > 50*time.Millisecond {
			e.t.Errorf("told %s late: %s", before.Sub(at), line)
		}
		before = at
		if m["service"] != id {
			e.t.Errorf("service is %v: %s", m["service"], line)
		}
		if !slices.Contains(slices.Concat(comes, goes), name) {
			continue
		}
		container, _ := m["container"].(string)
		instance, _ := m["instance"].(string)
		if !fullID.MatchString(container) || m["revision"] == nil {
			e.t.Errorf("without the container's full ID and the revision: %s", line)
		}
		short, ok := strings.CutPrefix(instance, e.Namespace+"."+id+".")
		if !ok || !instanceName.MatchString(short) {
			e.t.Errorf("instance is not named as the contract says: %s", line)
		}
		if was, seen := names[container]; seen && was != instance {
			e.t.Errorf("container %.12s is named %s, not %s", container, was, instance)
		}
	}
}

// wantOrder fails the test unless each of n instances of the revision had the
// events, in that order, each once; nil: unless what it had was in order.
func wantOrder(t *testing.T, r Run, revision string, n int, want []string) {
	t.Helper()
	of := map[string][]string{}
	for _, e := range r.Events {
		if e.Instance != "" && (revision == "" || e.Revision == revision) {
			of[e.Instance] = append(of[e.Instance], e.Event)
		}
	}
	if len(of) != n {
		t.Errorf("events of %d instances, want %d: %s", len(of), n, r)
	}
	all := slices.Concat(comes, goes)
	for instance, events := range of {
		switch {
		case want != nil && !slices.Equal(events, want):
			t.Errorf("%s had %v, want %v", instance, events, want)
		case !slices.IsSortedFunc(events, func(a, b string) int { return slices.Index(all, a) - slices.Index(all, b) }):
			t.Errorf("%s had %v, want the order %v", instance, events, all)
		}
	}
}

// planned are the steps that --plan tells of, as events would: what is done
// to which instance, ordered.
func (e *Env) planned(args ...string) []string {
	e.t.Helper()
	var p struct {
		Service, Revision string
		Steps             []struct{ Do, Cause string }
	}
	r := e.JSON(append(args, "--plan")...).Want(0)
	if err := json.Unmarshal([]byte(r.Stdout), &p); err != nil {
		e.t.Fatalf("the plan is no JSON document: %v: %s", err, r)
	}
	var steps []string
	for _, s := range p.Steps {
		if s.Cause == "" && !strings.HasPrefix(s.Do, "start ") && !strings.HasPrefix(s.Do, "route ") {
			e.t.Errorf("no cause: %s", s.Do)
		}
		if !strings.HasPrefix(s.Do, "route ") {
			steps = append(steps, s.Do)
		}
	}
	slices.Sort(steps)
	return steps
}

// done are the same of a run.
func done(r Run) []string {
	verbs := map[string]string{"created": "create", "started": "start", "stopped": "stop", "removed": "remove"}
	var steps []string
	for _, e := range r.Events {
		if v := verbs[e.Event]; v != "" && !strings.HasSuffix(e.Instance, "-before") {
			steps = append(steps, v+" "+e.Instance)
		}
		if e.Event == "committed" {
			steps = append(steps, "commit "+e.Revision)
		}
		if e.Event == "note" && e.Detail == "upgrade.before is done" {
			steps = append(steps, "run before "+e.Revision)
		}
	}
	slices.Sort(steps)
	return steps
}

// --plan changes nothing, and what it tells is then done.
func TestPlan_ChangesNothingAndIsWhatIsThenDone(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Images("v1", "v2", "v3")
	addr := e.Web("shop", nil)
	stopFirst := Def{"http": "{port: 8080, listen: '" + addr + "'}", "replicas": "1", "upgrade": "{order: stop-first, before: [/app, migrate]}"}
	for _, tt := range []struct {
		name string
		def  Def
		args []string
		none bool
	}{
		{name: "first deploy", args: []string{"upgrade", "--revision", "v1"}},
		{name: "upgrade", args: []string{"upgrade", "--revision", "v2"}},
		{name: "the same again", args: []string{"upgrade", "--revision", "v2"}, none: true},
		{name: "rollback", args: []string{"rollback"}},
		{name: "rollback to a revision", args: []string{"rollback", "--revision", "v2"}},
		{name: "stop-first, with upgrade.before", def: stopFirst, args: []string{"upgrade", "--revision", "v3"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := e.With(t)
			if tt.def != nil {
				e.Web("shop", tt.def)
			}
			args := append([]string{"service", tt.args[0], "--id", "shop"}, tt.args[1:]...)
			before := e.Snapshot()
			plan := e.planned(args...)
			text := e.Conductor(append(args, "--plan")...).Want(0)
			e.Unchanged(before)
			if tt.none != (len(plan) == 0) || tt.none != strings.Contains(text.Stdout, "nothing to do") {
				t.Errorf("the plan has %d steps: %s", len(plan), text)
			}
			for _, step := range plan {
				if !strings.Contains(text.Stdout, step) {
					t.Errorf("%q is not in the plan for people: %s", step, text)
				}
			}
			if did := done(e.JSON(args...).Want(0)); !slices.Equal(plan, did) {
				t.Errorf("planned\n%s\ndone\n%s", indent(strings.Join(plan, "\n")), indent(strings.Join(did, "\n")))
			}
		})
	}
}

// exec leaves stdout, stderr and the exit code to the command.
func TestExec_StdoutIsTheCommandsAlone(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Images("v1")
	e.Web("shop", nil)
	e.Upgrade("shop", "v1").Want(0)
	for _, output := range []string{"plain", "json", "quiet"} {
		exec := func(cmd ...string) Run {
			return e.Conductor(append([]string{"--output", output, "service", "exec", "--id", "shop"}, cmd...)...)
		}
		if r := exec("/app", "migrate").Want(0); r.Stdout != "migrating to v1\n" || r.Stderr != "" {
			t.Errorf("not the command's output alone: %s", r)
		}
		if r := exec("--", "/app", "fail").Want(1); r.Stdout != "" || r.Stderr != "app: told to fail\n" {
			t.Errorf("not the command's output alone: %s", r)
		}
		if r := exec("/app", "no-such", "--revision", "x").Want(2); r.Stdout != "" {
			t.Errorf("stdout is not the command's alone: %s", r)
		}
		// As Docker has it: its age decides on which of the two.
		if r := exec("/no-such-command"); r.Code != 126 && r.Code != 127 || !strings.Contains(r.Text(), "/no-such-command") {
			t.Errorf("a command that is not there, want exit 126 or 127 and its name: %s", r)
		}
	}
	if r := e.Conductor("service", "exec", "--id", "nobody", "/app", "migrate").Want(3, "nobody"); r.Stdout != "" {
		t.Errorf("stdout is not the command's alone: %s", r)
	}
}
