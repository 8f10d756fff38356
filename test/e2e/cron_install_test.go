//go:build e2e

package e2e

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// crontab is what cron reads of the service; "": nothing.
func (e *Env) crontab(id string) string {
	e.t.Helper()
	b, err := os.ReadFile(e.crontabPath(id))
	if err != nil && !os.IsNotExist(err) {
		e.t.Fatal(err)
	}
	return string(b)
}

func (e *Env) crontabPath(id string) string {
	return e.Path("cron.d/conductor--" + e.Namespace + "--" + id)
}

// wantCrontab: the installed crontab runs the job at the revision, and cron
// takes it: a plain file of root's that nobody else may write.
func (e *Env) wantCrontab(id, revision, job string) {
	e.t.Helper()
	got := e.crontab(id)
	want := "* * * * * root " + e.call(id, revision) + job + "\n"
	if _, jobs, _ := strings.Cut(got, "conductor cron list`.\n"); jobs != want {
		e.t.Errorf("the crontab of %s is\n%swant\n%s", id, got, want)
		return
	}
	info, err := os.Lstat(e.crontabPath(id))
	must(e.t, err)
	if st := info.Sys().(*syscall.Stat_t); info.Mode() != 0o644 || st.Uid != 0 || st.Nlink != 1 {
		e.t.Errorf("cron would not take the crontab: %v, user %d, %d names", info.Mode(), st.Uid, st.Nlink)
	}
	if entries, _ := os.ReadDir(e.Path("cron.d")); len(entries) != 1 {
		e.t.Errorf("beside the crontab there is more: %v", entries)
	}
}

func (e *Env) wantNoCrontab(id string) {
	e.t.Helper()
	if got := e.crontab(id); got != "" {
		e.t.Errorf("the crontab of %s is\n%swant none", id, got)
	}
}

// call is how lines begin that run a job of the service.
func (e *Env) call(id, revision string) string {
	e.t.Helper()
	conductor, err := filepath.EvalSymlinks(binaries.conductor)
	must(e.t, err)
	return conductor + " run --config " + e.Path("conductor.yml") + " --id " + id + " --revision " + revision + " "
}

// jobs makes revisions of an image whose crontab has one job, bin/job REVISION.
func (e *Env) jobs(revisions ...string) {
	e.t.Helper()
	for _, r := range revisions {
		e.Shell(r, map[string]string{"generate-cron": generator("* * * * * bin/job " + r + "\n"), "srv/index.html": r})
	}
}

// A job is deployed by its crontab alone, and everything that is done to a
// service is done to that.
func TestCron_AJobIsItsCrontab(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.jobs("v1", "v2")
	e.Service("jobs", "kind: job\nimage: "+e.Repo()+"\n")
	plan := e.Conductor("service", "upgrade", "--id", "jobs", "--revision", "v1", "--plan").Want(0)
	if !strings.Contains(plan.Stdout, "install the crontab of v1") {
		t.Errorf("the plan says nothing of the crontab: %s", plan)
	}
	e.wantNoCrontab("jobs")

	e.Upgrade("jobs", "v1").Want(0)
	e.wantCrontab("jobs", "v1", "bin/job v1")
	if again := e.Upgrade("jobs", "v1").Want(0, "nothing to do"); again.Find("scheduled") != nil {
		t.Errorf("it was installed again: %s", again)
	}
	e.Upgrade("jobs", "v2").Want(0)
	e.wantCrontab("jobs", "v2", "bin/job v2")
	e.Do("service", "rollback", "--id", "jobs")
	e.wantCrontab("jobs", "v1", "bin/job v1")
	e.Do("service", "stop", "--id", "jobs")
	e.wantNoCrontab("jobs")
	e.Conductor("cron", "list").Want(0, "stopped")
	e.Do("converge")
	e.wantNoCrontab("jobs") // stopped is stopped
	e.Do("service", "start", "--id", "jobs")
	e.wantCrontab("jobs", "v1", "bin/job v1")
	if cs := e.Containers("jobs"); len(cs) != 0 {
		t.Errorf("a job has containers: %v", cs)
	}
	e.Do("service", "remove", "--id", "jobs")
	e.wantNoCrontab("jobs")
	if tags, err := e.Engine.Tags(e.ctx(), e.Namespace+"/jobs"); len(tags) != 0 || err != nil {
		t.Errorf("image names are left: %v, %v", tags, err)
	}
}

// The crontab of a service with a route is generated before any traffic moves,
// and installed after it has moved.
func TestCron_FollowsTheRelease(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.jobs("v1", "v2")
	addr := e.Web("shop", Def{
		"cron": "{}", "command": "[sh, -c, 'test -e /srv/sick || exec httpd -f -p 8080 -h /srv; sleep 1000']",
		"health": "{path: /, interval: 500ms, start_timeout: 4s}", "working_dir": "/",
	})
	e.Upgrade("shop", "v1").Want(0)
	e.wantCrontab("shop", "v1", "bin/job v1")

	e.Shell("fails", map[string]string{"generate-cron": "#!/bin/sh\necho no database >&2\nexit 3\n", "srv/index.html": "fails"})
	e.Shell("sick", map[string]string{"generate-cron": generator("* * * * * bin/job sick\n"), "srv/sick": ""})
	for rev, words := range map[string][]string{"fails": {"exited 3", "no database"}, "sick": {"not become healthy"}} {
		r := e.Upgrade("shop", rev).Want(5, words...)
		e.wantCrontab("shop", "v1", "bin/job v1")
		e.WantInstances("shop", map[string]int{"v1": 2})
		if created := r.Find("created") != nil; created != (rev == "sick") {
			t.Errorf("%s: an instance was created: %v", rev, created)
		}
	}

	r := e.Upgrade("shop", "v2").Want(0)
	e.wantCrontab("shop", "v2", "bin/job v2")
	if names := r.Names(); slices.Index(names, "scheduled") < slices.Index(names, "routed") {
		t.Errorf("the crontab was installed before the switch: %v", names)
	}
	e.wantPage(addr, "v2")
	e.Do("service", "rollback", "--id", "shop")
	e.wantCrontab("shop", "v1", "bin/job v1")
	e.wantPage(addr, "v1")

	// Without its key it takes no part in cron any more.
	e.Web("shop", Def{
		"command": "[sh, -c, 'test -e /srv/sick || exec httpd -f -p 8080 -h /srv; sleep 1000']", "http": "{port: 8080, listen: '" + addr + "'}",
		"health": "{path: /, interval: 500ms, start_timeout: 4s}", "working_dir": "/",
	})
	e.Do("converge")
	e.wantNoCrontab("shop")
	e.wantNoRuns("shop")
}

// An installed crontab keeps its image, whatever revision serves.
func TestCron_InstallKeepsTheImage(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.jobs("v1", "v2", "v3")
	e.Service("work", "image: "+e.Repo()+"\ncommand: [sleep, '1000']\ncron: {}\nhealth: {command: [\"true\"]}\nstop_grace_period: 1s\n")
	e.Upgrade("work", "v1").Want(0)
	e.Conductor("cron", "generate", "--id", "work", "--revision", "v2", "--install").Want(0, "crontab installed")
	e.wantCrontab("work", "v2", "bin/job v2")
	e.WantInstances("work", map[string]int{"v1": 1})
	// Only Conductor's name for it is left.
	must(t, e.Engine.RemoveImage(e.ctx(), e.Repo()+":v2"))
	e.Do("prune")
	command := strings.TrimPrefix(e.crontab("work")[strings.Index(e.crontab("work"), "* root "):], "* root ")
	command = strings.TrimSuffix(strings.Replace(command, "bin/job v2\n", "cat /srv/index.html", 1), "\n")
	if got := e.asCron(command); got != "v2" {
		t.Errorf("the job's image says %q, want v2", got)
	}
	for _, verb := range []string{"restart", "stop"} {
		e.Do("service", verb, "--id", "work")
	}
	e.wantNoCrontab("work")
	e.Do("service", "start", "--id", "work")
	e.wantCrontab("work", "v2", "bin/job v2")

	e.Conductor("cron", "generate", "--id", "work", "--remove").Want(0, "crontab removed")
	e.wantNoCrontab("work")
	tags, err := e.Engine.Tags(e.ctx(), e.Namespace+"/work")
	must(t, err)
	if len(tags) != 1 {
		t.Errorf("names of images: %v, want that of v1 alone", tags)
	}
	e.Upgrade("work", "v3").Want(0)
	e.wantCrontab("work", "v3", "bin/job v3")
}

// Whatever is wrong with a generate-cron, what is installed stays.
func TestCron_BadGeneratorsLeaveTheOldCrontab(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.jobs("v1")
	e.Service("jobs", "kind: job\nstop_grace_period: 1s\nimage: "+e.Repo()+"\n")
	e.Upgrade("jobs", "v1").Want(0)
	info, err := os.Stat(e.crontabPath("jobs"))
	must(t, err)
	bad := map[string]struct {
		script string
		code   int
	}{
		"missing": {code: 5},
		"fails":   {script: "#!/bin/sh\necho '* * * * * x'\nexit 3\n", code: 5},
		"hangs":   {script: "#!/bin/sh\necho '* * * * * x'\nsleep 1000\n", code: 124},
		"floods":  {script: "#!/bin/sh\nyes '* * * * * x' | head -c 10000000\n", code: 5},
		"injects": {script: generator("* * * * * x\n* * * * * root\x01\n"), code: 5},
		"wrong":   {script: generator("* * * * * x\n60 * * * * x\n"), code: 5},
	}
	for rev, b := range bad {
		files := map[string]string{}
		if b.script != "" {
			files["generate-cron"] = b.script
		}
		e.Shell(rev, files)
		for _, args := range [][]string{
			{"service", "upgrade", "--id", "jobs", "--revision", rev},
			{"cron", "generate", "--id", "jobs", "--revision", rev, "--install"},
		} {
			if b.code == 124 {
				args = append(args, "--timeout", "4s")
			}
			e.Conductor(args...).Want(b.code)
		}
	}
	e.wantCrontab("jobs", "v1", "bin/job v1")
	if now, err := os.Stat(e.crontabPath("jobs")); err != nil || !os.SameFile(info, now) || !now.ModTime().Equal(info.ModTime()) {
		t.Errorf("the crontab was written again: %v", err)
	}
	e.Conductor("service", "status", "--id", "jobs").Want(0, "v1")
	e.wantNoRuns("jobs")
}

// A crontab that was changed, or is gone, is put right. One that somebody else
// has written is left alone, and so is a host without cron.
func TestCron_WhatIsInstalledIsWhatTheGoalSays(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.jobs("v1", "v2")
	e.Service("jobs", "kind: job\nimage: "+e.Repo()+"\n")
	e.Upgrade("jobs", "v1").Want(0)
	text := e.crontab("jobs")
	for _, change := range []func(){
		func() { must(t, os.Remove(e.crontabPath("jobs"))) },
		func() { must(t, os.WriteFile(e.crontabPath("jobs"), []byte(text+"* * * * * root rm -rf /\n"), 0o644)) },
	} {
		change()
		e.Conductor("cron", "list").Want(0, "conductor converge --id jobs")
		e.Do("converge")
		e.wantCrontab("jobs", "v1", "bin/job v1")
		e.Conductor("converge").Want(0, "nothing to do")
	}
	const theirs = "* * * * * root theirs\n"
	must(t, os.WriteFile(e.crontabPath("jobs"), []byte(theirs), 0o644))
	for _, args := range [][]string{
		{"service", "upgrade", "--id", "jobs", "--revision", "v2"},
		{"cron", "generate", "--id", "jobs", "--revision", "v2", "--install"},
	} {
		e.Conductor(args...).Want(9, e.crontabPath("jobs"), "move it away")
		if got := e.crontab("jobs"); got != theirs {
			t.Errorf("somebody else's crontab became\n%s", got)
		}
	}
	e.Conductor("service", "status", "--id", "jobs").Want(0, "v1")
	must(t, os.RemoveAll(e.Path("cron.d")))
	e.Conductor("service", "upgrade", "--id", "jobs", "--revision", "v2").Want(9, "no folder", "cron_dir")
}

// A conductor that is killed at any event leaves a crontab that the next one
// puts right.
func TestCron_SurvivesKill(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.jobs("v1", "v2")
	e.Service("jobs", "kind: job\nimage: "+e.Repo()+"\n")
	e.Upgrade("jobs", "v1").Want(0)
	to, job := "v2", "bin/job v2"
	for n, event := range []string{"committed", "scheduled"} {
		r := e.StartKilled(n, "service", "upgrade", "--id", "jobs", "--revision", to).Wait()
		// After scheduled nothing is left to be done but to say so, and a process
		// that is quick has ended when the kill comes.
		names := r.Names()
		if n == 1 && len(names) == 3 && names[2] == "result" {
			names = names[:2]
		}
		if len(names) == 0 || names[len(names)-1] != event {
			t.Errorf("it was killed at %v, want %s", names, event)
		}
		e.Do("converge")
		e.wantCrontab("jobs", to, job)
		e.Conductor("converge").Want(0, "nothing to do")
		to, job = "v1", "bin/job v1"
	}
}

// cron list tells of each job how it went and when it runs; cron trigger runs
// it as cron does.
func TestCron_ListAndTrigger(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Shell("v1", map[string]string{"generate-cron": generator("MAILTO=ops@example.com\nX=from the crontab\n" +
		"30 2 * * * echo $REVISION $X && cat && exit 3%a line\n" +
		"# conductor: on-lock=skip jitter=1h\n*/10 * * * * sleep 1000\n@daily true\n")})
	e.Service("jobs", "kind: job\nimage: "+e.Repo()+"\ncron: {on_lock: wait}\nstop_grace_period: 1s\n")
	e.Upgrade("jobs", "v1").Want(0)
	jobs := e.cronList()
	if len(jobs) != 3 || jobs[0].OnLock != "wait" || jobs[1].OnLock != "skip" || jobs[0].Last != nil {
		t.Fatalf("cron list: %+v", jobs)
	}
	trigger := func(n int) []string { return []string{"cron", "trigger", "--id", "jobs", jobs[n].Job} }
	r := e.Conductor(trigger(0)...).Want(3)
	if r.Stdout != "v1 from the crontab\na line\n" {
		t.Errorf("the job printed %q", r.Stdout)
	}
	e.Conductor(trigger(2)...).Want(0)

	// Without jitter, and under its lock: the second one is skipped.
	p := e.Start(trigger(1)...)
	eventually(t, 10*time.Second, "it runs", func() bool {
		last := e.cronList()[1].Last
		return last != nil && last.Outcome == ""
	})
	if r := e.Conductor(trigger(1)...).Want(0); r.Text() != "" || len(e.liveRuns("jobs")) != 1 {
		t.Errorf("it was not skipped in silence: %s", r)
	}
	p.Signal(syscall.SIGINT)
	p.Wait().Want(130)
	e.wantNoRuns("jobs")
	jobs = e.cronList()
	for n, want := range map[int]int{0: 3, 2: 0} {
		if l := jobs[n].Last; l == nil || l.Code != want || l.Ended.IsZero() {
			t.Errorf("job %s: last run %+v, want exit %d", jobs[n].Job, l, want)
		}
	}
	if !slices.ContainsFunc(jobs[0].Next, func(at time.Time) bool { return at.Minute() == 30 && at.Hour() == 2 }) || len(jobs[0].Next) != 3 {
		t.Errorf("next times of 30 2 * * *: %v", jobs[0].Next)
	}
}

// wantPage: the address answers with the page of the revision.
func (e *Env) wantPage(addr, revision string) {
	e.t.Helper()
	if a := get(addr, "/"); a.Err != nil || a.Status != 200 || a.Body != revision {
		e.t.Errorf("%s answers %s, want the page of %s", addr, a, revision)
	}
}

type cronJob struct {
	Service, Job string
	OnLock       string `json:"on_lock"`
	Next         []time.Time
	Last         *struct {
		Code    int
		Outcome string
		Ended   time.Time
	}
}

func (e *Env) cronList(args ...string) (jobs []cronJob) {
	e.t.Helper()
	r := e.Conductor(append([]string{"cron", "list", "--output", "json"}, args...)...).Want(0)
	must(e.t, json.Unmarshal([]byte(r.Stdout), &jobs))
	return jobs
}
