//go:build e2e

package fleet

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"conductor/test/load"
)

// ran is a run of conductor at the desk that has ended.
type ran struct {
	t              testing.TB
	args           []string
	stdout, stderr string
	code           int
	took           time.Duration
}

func (r ran) String() string {
	return fmt.Sprintf("conductor %s: exit %d after %s\n%s%s", strings.Join(r.args, " "), r.code, r.took.Round(time.Millisecond), r.stdout, r.stderr)
}

// want fails the test unless it ended with the code and told all the words.
func (r ran) want(code int, words ...string) ran {
	r.t.Helper()
	if r.code != code {
		r.t.Fatalf("want exit %d: %s", code, r)
	}
	for _, w := range words {
		if !strings.Contains(r.stdout+r.stderr, w) {
			r.t.Errorf("%q is not told: %s", w, r)
		}
	}
	return r
}

// run runs conductor at the desk to its end.
func (f *Fleet) run(t testing.TB, args ...string) ran {
	t.Helper()
	cmd := f.Command(args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	began := time.Now()
	err := cmd.Run()
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		t.Fatal(err)
	}
	return ran{t, args, out.String(), errs.String(), cmd.ProcessState.ExitCode(), time.Since(began)}
}

// describe writes fleet.yml with the keys of the service shop.
func (f *Fleet) describe(t testing.TB, shop string, more ...string) {
	t.Helper()
	var b strings.Builder
	b.WriteString("hosts:\n")
	for _, h := range f.Hosts() {
		fmt.Fprintf(&b, "  %s: {roles: [web]}\n", h.Name())
	}
	fmt.Fprintf(&b, "services:\n  shop: {on: [web], drain_timeout: 5s, %s}\n", shop)
	b.WriteString("balancer: {kind: haproxy, on: lb1, backend: shop}\n")
	for _, m := range more {
		b.WriteString(m + "\n")
	}
	must(t, os.WriteFile(filepath.Join(f.Dir, "fleet.yml"), []byte(b.String()), 0o644))
}

// deployed has all hosts run v1 and load come to the balancer.
func deployed(t *testing.T, rate float64) (*Fleet, *load.Running) {
	t.Helper()
	f := Up(t, size)
	f.describe(t, "strategy: all")
	f.run(t, "deploy", "--id", "shop", "--revision", "v1").want(0)
	for _, h := range f.Hosts() {
		eventually(t, 15*time.Second, h.Name()+" is up at the balancer", func() bool { return f.LB.Server(h.Name())["status"] == "UP" })
	}
	l := load.Start(t.Context(), load.Config{Addr: f.LB.Addr(), Host: "shop.test", Duration: time.Hour, Rate: rate, RevisionHeader: "X-Revision"})
	eventually(t, 10*time.Second, "the load gets answers", func() bool { return l.Good() > 50 })
	return f, l
}

// repeat is how many times a test does something: once on the small fleet of
// script/test, many times in script/soak.
func repeat(few, many int) int {
	switch {
	case os.Getenv("CONDUCTOR_TEST_SOAK") != "":
		return many
	case size < 4:
		return 1
	}
	return few
}

// nothingFailed ends the load, of which no request may have failed.
func nothingFailed(t *testing.T, l *load.Running) load.Result {
	t.Helper()
	r := l.Stop()
	if r.Failed != 0 || r.OK == 0 {
		t.Errorf("%d of %d requests failed:\n%s", r.Failed, r.Sent, r)
	}
	return r
}

// runs is what each host runs and what the balancer makes of it: "v1 UP".
func (f *Fleet) runs(t testing.TB) (all []string) {
	t.Helper()
	for _, h := range f.Hosts() {
		out, err := h.Try("conductor", "--output", "json", "service", "status", "--id", "shop")
		var s []struct{ Revision, State string }
		if err == nil {
			must(t, json.Unmarshal([]byte(out), &s))
		}
		if len(s) == 0 {
			s = append(s, struct{ Revision, State string }{"?", err.Error()})
		}
		all = append(all, s[0].Revision+" "+f.LB.Server(h.Name())["status"])
	}
	return all
}

func wantRuns(t testing.TB, f *Fleet, want ...string) {
	t.Helper()
	var got []string
	for end := time.Now().Add(10 * time.Second); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if got = f.runs(t); fmt.Sprint(got) == fmt.Sprint(want) {
			return
		}
	}
	t.Errorf("the hosts run %q, want %q", got, want)
}

func all(what string) (s []string) {
	for range size {
		s = append(s, what)
	}
	return s
}

// A deploy drops nothing, by whatever strategy, with a test and a migration.
func TestDeploy_DropsNothing(t *testing.T) {
	f, l := deployed(t, 1000)
	revision := "v1"
	for _, strategy := range []string{"halves", "one-at-a-time"} {
		f.describe(t, "migrate: [migrate], strategy: "+strategy)
		for range repeat(3, 20) {
			revision = map[string]string{"v1": "v2", "v2": "v1"}[revision]
			r := f.run(t, "deploy", "--id", "shop", "--revision", revision, "--reason", "because").want(0, fmt.Sprintf("%s on %d hosts", revision, size))
			t.Logf("%s to %s: %s", strategy, revision, r.took.Round(time.Millisecond))
			wantRuns(t, f, all(revision+" UP")...)
		}
	}
	r := nothingFailed(t, l)
	t.Logf("%s", r)
	// The hosts' histories begin with those of other tests.
	out := f.run(t, "fleet", "history", "--id", "shop", "--limit", fmt.Sprint(2*repeat(3, 20))).want(0, "because", fmt.Sprint("web", size)).stdout
	if strings.Contains(out, "failed") {
		t.Error(out)
	}
	f.run(t, "fleet", "status").want(0, "web1", "running")
	f.run(t, "deploy", "--id", "shop", "--revision", revision).want(0, "nothing to do")
	f.run(t, "fleet", "rollback", "--id", "shop", "--revision", "v77").want(2, "web1 has kept no release of v77", "it has kept v")
}

// Where the test fails no host is touched; where the migration fails the old
// half serves on, and the new half is out.
func TestDeploy_GatesThatFail(t *testing.T) {
	f, l := deployed(t, 500)
	// One that was never tested: hosts remember what was, also for other tests.
	f.Image("untested")
	f.Each(func(h *Host) { h.Load(f.Repo() + ":untested") })
	f.describe(t, "strategy: halves, test: [check-nothing]")
	f.run(t, "deploy", "--id", "shop", "--revision", "untested").want(5, "the test ended with exit code 127 on web1", "check-nothing")
	wantRuns(t, f, all("v1 UP")...)
	f.Image("torn", "MIGRATE_EXIT=3")
	f.Each(func(h *Host) { h.Load(f.Repo() + ":torn") })
	f.describe(t, "strategy: halves, migrate: [/app, migrate]")
	f.run(t, "deploy", "--id", "shop", "--revision", "torn").want(5, "exit code 3")
	wantRuns(t, f, "torn DRAIN", "torn DRAIN", "v1 UP", "v1 UP")
	f.describe(t, "strategy: halves")
	f.run(t, "deploy", "--id", "shop", "--revision", "v2").want(0)
	wantRuns(t, f, all("v2 UP")...)
	f.describe(t, "strategy: halves, migrate: [/app, migrate]")
	// Back by itself, where that is asked for.
	f.run(t, "deploy", "--id", "shop", "--revision", "torn", "--on-failure", "rollback").want(5)
	wantRuns(t, f, all("v2 UP")...)
	nothingFailed(t, l)
}

// A release that is not healthy stops at the first host; the others serve, and
// when it is good the next deploy goes on.
func TestDeploy_UnhealthyRelease(t *testing.T) {
	f, l := deployed(t, 500)
	f.Image("bad", "STATUS=500")
	f.Each(func(h *Host) { h.Load(f.Repo() + ":bad") })
	f.describe(t, "strategy: one-at-a-time")
	f.run(t, "deploy", "--id", "shop", "--revision", "bad").want(5, "web1", "500", "conductor fleet admit web1")
	got := f.runs(t)
	if !strings.HasPrefix(got[0], "v1 ") || !strings.Contains(got[0], "DRAIN") || got[1] != "v1 UP" {
		t.Errorf("the hosts run %q", got)
	}
	f.run(t, "deploy", "--id", "shop", "--revision", "v2").want(0)
	wantRuns(t, f, all("v2 UP")...)
	nothingFailed(t, l)
}

// A host that is cut off in the middle is told, and out; the others serve; when
// it is back the deploy goes on.
func TestDeploy_HostCutOff(t *testing.T) {
	f, l := deployed(t, 500)
	f.describe(t, "strategy: one-at-a-time, max_failed: 1")
	web2 := f.Host("web2")
	web2.Cut()
	began := time.Now()
	eventually(t, 20*time.Second, "the balancer sees that web2 is gone", func() bool { return f.LB.Server("web2")["status"] == "DOWN" })
	t.Logf("seen after %s", time.Since(began).Round(time.Millisecond))
	cut := l.Stop() // what was on its way there
	l = load.Start(t.Context(), load.Config{Addr: f.LB.Addr(), Host: "shop.test", Duration: time.Hour, Rate: 500, RevisionHeader: "X-Revision"})
	f.run(t, "deploy", "--id", "shop", "--revision", "v2").want(8, "web2")
	for _, name := range []string{"web1", "web3", "web4"} {
		if s := f.LB.Server(name)["status"]; s != "UP" {
			t.Errorf("%s is %s", name, s)
		}
	}
	web2.Join()
	f.run(t, "deploy", "--id", "shop", "--revision", "v2").want(0)
	wantRuns(t, f, all("v2 UP")...)
	nothingFailed(t, l)
	t.Logf("while it was cut off: %s", cut)
}

// Of two who deploy at once one is told who is at it, and there is never half
// of each.
func TestDeploy_TwoAtOnce(t *testing.T) {
	f, l := deployed(t, 200)
	f.describe(t, "strategy: one-at-a-time")
	first := f.Command("deploy", "--id", "shop", "--revision", "v2")
	var out bytes.Buffer
	first.Stdout, first.Stderr = &out, &out
	must(t, first.Start())
	eventually(t, 20*time.Second, "the first has the lock", func() bool {
		return strings.Contains(f.run(t, "fleet", "status").stdout, "is under way")
	})
	f.run(t, "deploy", "--id", "shop", "--revision", "v1").want(7, "held it since")
	if err := first.Wait(); err != nil {
		t.Errorf("%v\n%s", err, &out)
	}
	wantRuns(t, f, all("v2 UP")...)
	nothingFailed(t, l)
}

// A deploy that is killed leaves what serves serving, lets go of its locks, and
// the next one goes on; the migration is not done again.
func TestDeploy_Killed(t *testing.T) {
	f, l := deployed(t, 500)
	f.describe(t, "strategy: halves, migrate: [/app, migrate]")
	moments := []string{"upgraded", "migrated", "withdrawn", "admitted"}
	moments = moments[:repeat(3, 3)+1] // the small fleet: before the migration, and between it and the swap
	for _, after := range moments {
		f.Image(after)
		f.Each(func(h *Host) { h.Load(f.Repo() + ":" + after) })
		f.killedAfter(t, after, "deploy", "--id", "shop", "--revision", after)
		f.run(t, "deploy", "--id", "shop", "--revision", after, "--wait").want(0)
		wantRuns(t, f, all(after+" UP")...)
	}
	if n := f.migrations(moments); n != len(moments) {
		t.Errorf("migrated %d times, want once for each of %d revisions", n, len(moments))
	}
	nothingFailed(t, l)
}

// killedAfter runs a deploy and kills it as soon as its first event of the name
// is seen.
func (f *Fleet) killedAfter(t testing.TB, event string, args ...string) {
	t.Helper()
	cmd := f.Command(append([]string{"--output", "json"}, args...)...)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	seen := false
	for lines := bufio.NewScanner(out); !seen && lines.Scan(); {
		seen = strings.Contains(lines.Text(), `"event":"`+event+`"`)
	}
	must(t, cmd.Process.Kill())
	cmd.Wait()
	if !seen {
		t.Fatalf("it ended without the event %s", event)
	}
}

// migrations are how often the hosts have migrated to the revisions, all together.
func (f *Fleet) migrations(revisions []string) (n int) {
	for _, h := range f.Hosts() {
		var runs []struct{ Revision string }
		must(f.t, json.Unmarshal([]byte(h.Exec("conductor", "--output", "json", "runs", "list", "--id", "shop")), &runs))
		for _, r := range runs {
			if slices.Contains(revisions, r.Revision) {
				n++
			}
		}
	}
	return n
}

// A person takes a host out; a deploy upgrades it there and leaves it out.
func TestFleet_DrainAndAdmit(t *testing.T) {
	f, l := deployed(t, 200)
	f.run(t, "fleet", "drain", "web3").want(0, "web3: is out")
	f.describe(t, "strategy: halves")
	f.run(t, "deploy", "--id", "shop", "--revision", "v2").want(0)
	wantRuns(t, f, "v2 UP", "v2 UP", "v2 MAINT", "v2 UP")
	f.run(t, "fleet", "admit", "web3").want(0, "web3: is in")
	wantRuns(t, f, all("v2 UP")...)
	f.run(t, "fleet", "exec", "--id", "shop", "/app", "migrate").want(0, "web1 | migrating to v2", "web4 | migrating to v2")
	nothingFailed(t, l)
}

// Without a registry the image travels by layers, to all hosts at once, and a
// layer that they have does not.
func TestDeploy_ShipsImages(t *testing.T) {
	f, l := deployed(t, 200)
	f.describe(t, "strategy: all, image: ship")
	f.Image("shipped") // here alone
	f.run(t, "deploy", "--id", "shop", "--revision", "shipped").want(0)
	wantRuns(t, f, all("shipped UP")...)
	ids := map[string]bool{}
	for _, h := range f.Hosts() {
		ids[h.Exec("docker", "image", "inspect", "-f", "{{.ID}}", f.Repo()+":shipped")] = true
	}
	if len(ids) != 1 {
		t.Errorf("the hosts have the images %v", ids)
	}
	f.run(t, "deploy", "--id", "shop", "--revision", "nowhere").want(4, "nowhere")
	wantRuns(t, f, all("shipped UP")...)
	nothingFailed(t, l)
}

// Definitions that differ stop a deploy before it begins; sync shows how they
// differ, and brings them in step.
func TestSync_BringsDefinitionsInStep(t *testing.T) {
	f, l := deployed(t, 100)
	f.describe(t, "strategy: all", "definitions: services")
	f.run(t, "sync").want(0, "web1: in step", "web4: in step")
	file := filepath.Join(f.Dir, "services", "shop.yml")
	was, err := os.ReadFile(file)
	must(t, err)
	t.Cleanup(func() { must(t, os.WriteFile(file, was, 0o644)) })
	web3 := f.Host("web3")
	web3.Write("/etc/conductor/services/shop.yml", strings.Replace(string(was), "replicas: 2", "replicas: 3", 1))
	f.run(t, "deploy", "--id", "shop", "--revision", "v2").want(3, "web3", "conductor sync")
	f.run(t, "fleet", "status").want(0, "its definition differs")
	f.run(t, "sync", "--plan").want(0, "web3: 1 definition to be sent", "-replicas: 3", "+replicas: 2", "web1: in step")
	f.run(t, "deploy", "--id", "shop", "--revision", "v2").want(3)
	f.run(t, "sync").want(0, "web3: 1 definition sent")
	if got := web3.Exec("cat", "/etc/conductor/services/shop.yml"); strings.TrimSpace(got) != strings.TrimSpace(string(was)) {
		t.Errorf("web3 has %s", got)
	}
	// What is not valid goes nowhere, and nothing of it is changed.
	must(t, os.WriteFile(file, []byte(string(was)+"nonsense: 1\n"), 0o644))
	f.run(t, "sync").want(3, "nonsense")
	// What was edited here, and not sent.
	must(t, os.WriteFile(file, []byte(strings.Replace(string(was), "replicas: 2", "replicas: 1", 1)), 0o644))
	f.run(t, "deploy", "--id", "shop", "--revision", "v2").want(3, "not the one that is here", "conductor sync")
	must(t, os.WriteFile(file, was, 0o644))
	f.run(t, "deploy", "--id", "shop", "--revision", "v2").want(0)
	wantRuns(t, f, all("v2 UP")...)
	nothingFailed(t, l)
}
