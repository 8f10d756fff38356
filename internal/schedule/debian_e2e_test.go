//go:build e2e

package schedule

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// Packages of Debian 12 that bring crontabs.
var packages = strings.Fields(`amavisd-new anacron atop awstats cacti certbot cron-daemon-common dma e2fsprogs logcheck
	mailman3 mailman3-web mdadm munin munin-node ntpsec php-common rsnapshot roundcube-core sogo sysstat tiger`)

// systemJob is a job's line in the form of /etc/cron.d: time, user, command.
var systemJob = regexp.MustCompile(`(?m)^([ \t]*(?:@\w+|(?:[^ \t\n#=@]+[ \t]+){4}[^ \t\n]+)[ \t]+)[a-z][a-z0-9_-]*[ \t]+(.*)$`)

// anyJob is how the line of a job begins.
var anyJob = regexp.MustCompile(`(?m)^[ \t]*[@*0-9]`)

// debianCrontabs downloads the packages and returns their crontabs in the form
// of a user's, by name.
func debianCrontabs(t *testing.T) map[string]string {
	t.Helper()
	dir := t.TempDir()
	script := `set -e; cd "$0"; apt-get download -qq "$@" >&2
		for p in *.deb; do mkdir "${p%%_*}"; dpkg-deb --fsys-tarfile "$p" | tar -x -C "${p%%_*}" --wildcards './etc/cron*'; done`
	if out, err := exec.Command("/bin/sh", append([]string{"-c", script, dir}, packages...)...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s\n(apt-get update may help)", err, out)
	}
	crontabs := make(map[string]string)
	for _, p := range packages {
		before := len(crontabs)
		for _, pattern := range []string{"etc/cron.d/[^.]*", "etc/crontab"} {
			files, _ := filepath.Glob(filepath.Join(dir, p, pattern))
			for _, file := range files {
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				crontabs[p+"/"+filepath.Base(file)] = systemJob.ReplaceAllString(string(text), "$1$2")
			}
		}
		if len(crontabs) == before {
			t.Errorf("the package %s has no crontab", p)
		}
	}
	return crontabs
}

func TestParse_CrontabsOfDebianPackages(t *testing.T) {
	crontabs := debianCrontabs(t)
	s := newSandbox(t)
	var names, texts []string
	for name, text := range crontabs {
		names, texts = append(names, name), append(texts, text)
	}
	jobs := 0
	for i, takes := range newRealCron(t).takes(t, texts) {
		name, text := names[i], texts[i]
		c, err := Parse(text)
		if err != nil || !takes {
			t.Errorf("%s: cron takes it: %v; Parse: %v\n%s", name, takes, err, text)
			continue
		}
		if got := c.String(); got != text {
			t.Errorf("%s: %s", name, cmp.Diff(text, got))
		}
		if len(c.Jobs()) != len(anyJob.FindAllString(text, -1)) {
			t.Errorf("%s: %d jobs in\n%s", name, len(c.Jobs()), text)
		}
		target := Target{Conductor: s.program, Service: "s", Revision: "r"}
		if _, err := Generate(c, target); err != nil {
			var ps Problems
			if !errors.As(err, &ps) || !strings.Contains(ps[0].Message, "cron takes 998") {
				t.Errorf("%s: %v", name, err)
			}
		}
		jobs += checkGenerated(t, s, c, target)
	}
	t.Logf("%d crontabs, %d jobs", len(texts), jobs)
	if len(texts) < 20 || jobs < 30 {
		t.Errorf("only %d crontabs and %d jobs", len(texts), jobs)
	}
}
