//go:build e2e

package e2e

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// installedJob is a job of every minute in a crontab of cron's folder.
var installedJob = regexp.MustCompile(`(?m)^\* \* \* \* \* root (.*)$`)

// Debian's cron runs what was generated: each job in a container of the
// service's image, its output mailed as that of any job, its end recorded.
func TestCron_JobOfEveryMinuteRunsInItsContainer(t *testing.T) {
	t.Parallel()
	e := New(t)
	e.Shell("v1", map[string]string{
		"bin/report": "#!/bin/sh\necho $REVISION in $(cat /etc/hostname)\necho $A for $1 >&2\nexit 3\n",
		"generate-cron": generator(`MAILTO=ops@example.com
* * * * * report 100\%
* * * * * echo silent > /tmp/file
# conductor: on-lock=skip
* * * * * echo never
`)})
	e.Service("jobs", "kind: job\nimage: "+e.Repo()+"\nenvironment: {A: the sum}\n")

	e.Upgrade("jobs", "v1").Want(0)
	var commands []string // as cron has them
	for _, l := range installedJob.FindAllStringSubmatch(e.crontab("jobs"), -1) {
		commands = append(commands, strings.ReplaceAll(l[1], `\%`, "%"))
	}
	if len(commands) != 3 {
		t.Fatalf("want three jobs:\n%s", e.crontab("jobs"))
	}
	// The lock of the third is held by a run that is not over.
	lock := regexp.MustCompile(`--lock (\S+) --on-lock skip echo never$`).FindStringSubmatch(commands[2])
	if lock == nil {
		t.Fatalf("no lock: %s", commands[2])
	}
	held := e.start(run("jobs", "v1", "--lock", lock[1], "sh", "-c", "echo begun; exec sleep 1000"))
	held.says(t, "begun")

	cron := e.Cron(t)
	for _, c := range commands {
		cron.Until("CMD", c)
	}
	e.Conductor("cron", "generate", "--id", "jobs", "--remove").Want(0) // once is enough
	for _, c := range commands {
		cron.Until("END", c)
	}

	host, err := os.Hostname()
	must(t, err)
	host, _, _ = strings.Cut(host, ".")
	mails := map[string]string{} // subject → lines of the body, sorted
	for _, m := range cron.Mails() {
		if m.To != "ops@example.com" {
			t.Errorf("a mail is to %q", m.To)
		}
		said := strings.Split(strings.TrimSpace(m.Body), "\n")
		slices.Sort(said)
		mails[m.Subject] = strings.Join(said, "\n")
	}
	for n, body := range map[int]string{
		0: `^the sum for 100%\nv1 in [0-9a-f]{12}$`, // a container's host name
	} {
		subject := "Cron <root@" + host + "> " + commands[n] + map[int]string{0: " (failed)"}[n]
		if !regexp.MustCompile(body).MatchString(mails[subject]) {
			t.Errorf("no mail %q that matches %q in\n%q", subject, body, mails)
		}
	}
	if len(mails) != 1 { // for what says nothing, or is skipped, there is none
		t.Errorf("%d mails:\n%q", len(mails), mails)
	}

	recorded := map[string]runRecord{}
	for _, r := range e.runsList("jobs") {
		recorded[strings.Join(r.Command, " ")] = r
	}
	if r := recorded["report 100%"]; r.Outcome != "failed" || r.Code != 3 || r.Revision != "v1" {
		t.Errorf("the job that fails is in the history as %+v", r)
	} else {
		e.Conductor("runs", "logs", r.Name).Want(0, "the sum for 100%")
	}
	if r := recorded["/bin/sh -c echo silent > /tmp/file"]; r.Outcome != "ok" || r.Code != 0 || r.Revision != "v1" {
		t.Errorf("the job that is silent is in the history as %+v", r)
	}
	if r, ran := recorded["echo never"]; ran {
		t.Errorf("a job ran beside what holds its lock: %+v", r)
	}
	held.Signal(syscall.SIGTERM)
	held.Wait().Want(143)
	e.wantNoRuns("jobs")
}
