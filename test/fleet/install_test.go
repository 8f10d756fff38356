//go:build e2e

package fleet

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"conductor/test/load"
)

// A bare machine becomes a host that serves, by one command: also when the
// command is killed in the middle, and somebody else is at its packages. Once all
// is there nothing is done.
func TestHostInstall_FromZero(t *testing.T) {
	f, l := deployed(t, 500)
	f.describe(t, "strategy: all, image: ship, migrate: [migrate]", "definitions: services")
	nothingFailed(t, l) // what is on its way to web4 is lost with it
	web4 := f.Host("web4")
	web4.Bare()
	eventually(t, 20*time.Second, "the balancer sees that web4 is gone", func() bool { return f.LB.Server("web4")["status"] == "DOWN" })
	l = load.Start(t.Context(), load.Config{Addr: f.LB.Addr(), Host: "shop.test", Duration: time.Hour, Rate: 500, RevisionHeader: "X-Revision"})

	f.run(t, "deploy", "--id", "shop", "--revision", "v2").want(9, "web4", "conductor host install web4")
	plan := f.run(t, "host", "install", "web4", "--plan").want(0, "docker.io", "nginx", "Debian GNU/Linux 12", "definitions", "shop to v1", "admit")
	t.Logf("plan: %s\n%s", plan.took.Round(time.Millisecond), plan.stdout)

	began := time.Now()
	first := f.Command("host", "install", "web4")
	must(t, first.Start())
	eventually(t, time.Minute, "dpkg installs something", func() bool { _, err := web4.Try("pgrep", "-x", "dpkg"); return err == nil })
	must(t, first.Process.Kill())
	first.Wait()
	// dpkg dies, too, and another one is at it for a while.
	web4.Exec("sh", "-c", "pkill -KILL apt-get; pkill -KILL dpkg; rm -rf /run/conductor-packages")
	web4.Exec("systemd-run", "--quiet", "perl", "-e",
		`open(F, ">", "/var/lib/dpkg/lock-frontend") or die; $l = pack("ssx4qqlx4", 1, 0, 0, 0, 0); fcntl(F, 6, $l) or die; open(D, ">", "/run/locked"); close(D); select(undef, undef, undef, .1) until -e "/run/conductor-packages/said"; sleep 2`)
	eventually(t, 10*time.Second, "somebody has the lock", func() bool { _, err := web4.Try("test", "-e", "/run/locked"); return err == nil })
	again := f.run(t, "host", "install", "web4").want(0, "web4: runs shop v1", "waiting")
	t.Logf("killed, and run again: %s\n%s", time.Since(began).Round(time.Millisecond), again.stdout)

	wantRuns(t, f, all("v1 UP")...)
	if got := web4.Exec("dpkg-query", "-W", "-f", "${db:Status-Abbrev}", "conductor", "docker.io", "nginx"); got != "ii ii ii " {
		t.Errorf("packages: %q", got)
	}
	if got := web4.Exec("dpkg", "--verify", "conductor"); got != "" {
		t.Errorf("files of the package: %s", got)
	}
	here, err := os.ReadFile(filepath.Join(f.Dir, "services", "shop.yml"))
	must(t, err)
	if got := web4.Exec("cat", "/etc/conductor/services/shop.yml"); got != strings.TrimRight(string(here), "\n") {
		t.Errorf("definition: %s", got)
	}
	if got := web4.Exec("conductor", "--output", "json", "runs", "list", "--id", "shop"); strings.Contains(got, "migrate") {
		t.Errorf("it was migrated again: %s", got)
	}
	if got := web4.Exec("sh", "-c", "ls -d /run/conductor-packages; systemctl is-active conductor-supervise nginx docker | sort -u"); got != "active" {
		t.Errorf("left, and active: %s", got)
	}

	done := f.run(t, "host", "install", "web4").want(0, "nothing to do")
	t.Logf("all is there: %s", done.took.Round(time.Millisecond))
	if done.took > 10*time.Second {
		t.Errorf("it took %s to do nothing", done.took)
	}
	f.run(t, "host", "install", "web4", "--plan").want(0, "nothing to do")
	f.run(t, "deploy", "--id", "shop", "--revision", "v2").want(0)
	wantRuns(t, f, all("v2 UP")...)
	answers := int64(0)
	r := nothingFailed(t, l)
	for _, revision := range r.Revisions {
		answers += revision.Answers
	}
	if answers != r.OK { // the page of an nginx that was just installed, for one
		t.Errorf("%d of %d answers are not the service's: %+v", r.OK-answers, r.OK, r.Revisions)
	}
}

// What cannot be is told before anything is touched.
func TestHostInstall_FailsEarly(t *testing.T) {
	f := Up(t, size)
	f.describe(t, "strategy: all", "definitions: services")
	f.run(t, "host", "install", "web9").want(2, "there is no host web9", "web4")
	other := filepath.Join(t.TempDir(), "other.deb")
	must(t, os.WriteFile(other, []byte("!<arch>\n"), 0o644))
	f.run(t, "host", "install", "web1", "--package", other).want(2, "no whole Debian package")
	web1 := f.Host("web1")
	t.Cleanup(func() { web1.Write("/etc/sudoers.d/deploy", "deploy ALL=(ALL) NOPASSWD: ALL\n") })
	web1.Write("/etc/sudoers.d/deploy", "deploy ALL=(root) NOPASSWD: /usr/bin/conductor session\n")
	f.run(t, "host", "install", "web1").want(9, "web1", "root's shell", "NOPASSWD")
}
